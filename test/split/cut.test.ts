import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GraphBuilder, onnxTensor } from '#core/onnx/builder.js';
import { int, tensor } from '#core/onnx/attribute.js';
import { readModel } from '#core/onnx/model-reader.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { declaredTypes } from '#core/split/boundary-type.js';
import { cutCandidates, preferredCuts } from '#core/split/cut-candidates.js';
import { chooseCuts } from '#core/split/cut-choices.js';
import { Cutter } from '#core/split/cut.js';
import { compareOutputs } from '#core/split/equivalence.js';
import { readSplitGraph } from '#core/split/graph.js';
import { encodeShard } from '#core/split/shard-writer.js';
import { join, loadBytes, loadPlan, prepare } from './direct-shards.js';
import { randomModel } from './random-graph.js';

const exact = { relative: 0, steps: new Map<string, number>() };

function cutterOf(builder: GraphBuilder): Cutter {
  return new Cutter(readSplitGraph(readModel(encodeModelBytes(builder.model({ opset: 17 })))));
}

describe('cutting a graph', () => {
  it(
    'any cut of any small graph into two or three answers bit by bit what the whole answers',
    { timeout: 120_000 },
    async () => {
      let cutsTried = 0;
      await fc.assert(
        fc.asyncProperty(fc.integer(), fc.integer({ min: 1, max: 7 }), async (seed, steps) => {
          const { bytes, inputs } = randomModel(seed, steps);
          const { cutter, types } = await prepare(bytes);
          const whole = await loadBytes(bytes);
          const expected = await whole.run(inputs);
          await whole.release();
          const { length: nodes } = cutter.graph.nodes;
          const cuts = [
            ...chooseCuts({ nodes, stages: 2, cuts: 'all', seed }),
            ...chooseCuts({ nodes, stages: 3, cuts: 6, seed }),
          ];
          for (const cut of cuts) {
            const plan = cutter.cut(cut);
            expect(cutter.problems(plan, types)).toEqual([]);
            const shards = await loadPlan(plan, types);
            const { problem } = compareOutputs(await shards.run(inputs), expected, exact);
            await shards.release();
            expect(problem, `cut [${cut.join(',')}]`).toBe('');
            cutsTried += 1;
          }
        }),
        { numRuns: 40 },
      );
      expect(cutsTried).toBeGreaterThan(100);
    },
  );

  it('every node runs in the shard of its place or is repeated, and every value comes from somewhere', () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.integer({ min: 2, max: 30 }),
        fc.integer({ min: 2, max: 5 }),
        (seed, steps, stages) => {
          const cutter = new Cutter(readSplitGraph(readModel(randomModel(seed, steps).bytes)));
          const { nodes } = cutter.graph;
          for (const cut of chooseCuts({ nodes: nodes.length, stages, cuts: 5, seed })) {
            const plan = cutter.cut(cut);
            const given = new Set(cutter.graph.inputs.map(({ name }) => name));
            for (const shard of plan.shards) {
              expect(shard.outputs.length).toBeGreaterThan(0);
              for (const name of shard.inputs) expect(given.has(name), `${name} into shard ${shard.index}`).toBe(true);
              const here = new Set([...shard.inputs, ...shard.initializers]);
              for (const { uses, defines, index } of shard.nodes) {
                for (const name of uses) expect(here.has(name), `${name} in shard ${shard.index}`).toBe(true);
                for (const name of defines) here.add(name);
                const isHome = index >= shard.from && index < shard.to;
                if (!isHome) expect(cutter.kinds[index]).not.toBe('work');
              }
              for (const name of shard.outputs) {
                expect(here.has(name), `${name} out of shard ${shard.index}`).toBe(true);
                given.add(name);
              }
            }
            const delivered = plan.shards.flatMap(({ outputs }) => outputs);
            for (const { name } of cutter.graph.outputs) {
              expect(delivered.filter((other) => other === name)).toEqual([name]);
            }
            for (const { index } of nodes.filter(({ index }) => cutter.kinds[index] === 'work')) {
              expect(plan.shards.filter((shard) => shard.nodes.some((node) => node.index === index)).length).toBe(1);
            }
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it('weights are views on the file, not copies, and shared ones are in both shards', () => {
    const builder = new GraphBuilder('shared');
    const weight = builder.constant('w', [64, 64], new Float32Array(4096).fill(0.5));
    const x = builder.input('x', 'FP32', [1, 64]);
    const first = builder.node('MatMul', [x, weight], { output: 'first' });
    builder.output(builder.node('MatMul', [first, weight], { output: 'second' }), 'FP32', [1, 64]);
    const cutter = cutterOf(builder);
    const plan = cutter.cut([1]);
    expect(plan.shards.map(({ initializers }) => initializers)).toEqual([['w'], ['w']]);
    const types = new Map(declaredTypes(cutter.graph)).set('first', { kind: 'tensor', dataType: 1, shape: undefined });
    for (const shard of plan.shards) {
      const { parts, byteLength, weightBytes } = encodeShard(plan, shard, types);
      expect(weightBytes).toBe(4096 * 4);
      const own = parts.filter(({ buffer }) => buffer !== cutter.graph.model.bytes.buffer);
      expect(own.reduce((sum, part) => sum + part.byteLength, 0)).toBeLessThan(1000);
      expect(byteLength).toBeGreaterThan(4096 * 4);
      expect(readModel(join(parts)).graph.initializers[0]?.dataBytes).toBe(4096 * 4);
    }
  });

  it('the bytes of nodes and fields that nobody here knows survive', () => {
    const builder = new GraphBuilder('unknown');
    const x = builder.input('x', 'FP32', [1]);
    const first = builder.node('Relu', [x], { output: 'first' });
    builder.output(builder.node('Neg', [first], { output: 'second' }), 'FP32', [1]);
    const plain = encodeModelBytes(builder.model({ opset: 17, metadata: { classes: 'cat,dog' } }));
    // Field 999 of the model: a text.
    const unknown = Buffer.from([0xba, 0x3e, 3, 0x6e, 0x65, 0x77]);
    const model = readModel(Buffer.concat([plain, unknown]));
    const cutter = new Cutter(readSplitGraph(model));
    const plan = cutter.cut([1]);
    const types = new Map(declaredTypes(cutter.graph)).set('first', { kind: 'tensor', dataType: 1, shape: undefined });
    const [one, two] = plan.shards.map((shard) => Buffer.from(join(encodeShard(plan, shard, types).parts)));
    for (const bytes of [one!, two!]) {
      expect(bytes.includes(unknown)).toBe(true);
      expect(bytes.includes('cat,dog')).toBe(true);
    }
    for (const [index, bytes] of [one!, two!].entries()) {
      const { start, end } = cutter.graph.nodes[index]!.view;
      expect(bytes.includes(Buffer.from(model.bytes.subarray(start, end)))).toBe(true);
    }
  });

  it('the integers cross instead of the floats made of them', () => {
    const builder = new GraphBuilder('quantised');
    const scale = builder.constant('scale', [], Float32Array.of(0.1));
    const zero = builder.constant('zero', [], Int8Array.of(0));
    const x = builder.input('x', 'FP32', [1, 8]);
    const small = builder.node('QuantizeLinear', [x, scale, zero], { output: 'small' });
    const back = builder.node('DequantizeLinear', [small, scale, zero], { output: 'back' });
    const relu = builder.node('Relu', [back], { output: 'relu' });
    const again = builder.node('QuantizeLinear', [relu, scale, zero], { output: 'again' });
    builder.output(builder.node('DequantizeLinear', [again, scale, zero], { output: 'end' }), 'FP32', [1, 8]);
    const cutter = cutterOf(builder);
    expect(cutter.cut([2]).crossings).toEqual([{ name: 'small', from: 0, to: [1] }]);
    expect(cutter.cut([2]).shards[1]).toMatchObject({ copies: 1, inputs: ['small'] });
    const types = new Map(declaredTypes(cutter.graph));
    const shape = [1, 8].map((size) => ({ size, symbol: '' }));
    for (const name of ['back', 'relu']) types.set(name, { kind: 'tensor', dataType: 1, shape });
    for (const name of ['small', 'again']) types.set(name, { kind: 'tensor', dataType: 3, shape });
    const candidates = cutCandidates(cutter, types);
    expect(candidates.map(({ boundaryBytes, splitsQuantized }) => [boundaryBytes, splitsQuantized])).toEqual([
      [8, false],
      [8, false],
      [32, true],
      [8, false],
    ]);
    expect(preferredCuts(candidates).map(({ position }) => position)).toEqual([1, 2, 4]);
  });

  it('sizes are computed where the tensor is, and sent where it is not', () => {
    const builder = new GraphBuilder('sizes');
    const x = builder.input('x', 'FP32', ['rows', 4]);
    const relu = builder.node('Relu', [x], { output: 'relu' });
    const shape = builder.node('Shape', [relu], { output: 'shape' });
    const near = builder.node('Neg', [relu], { output: 'near' });
    const far = builder.node('ReduceSum', [near], { output: 'far', attributes: { keepdims: int(1) } });
    builder.output(builder.node('Reshape', [near, shape], { output: 'same' }), 'FP32');
    builder.output(builder.node('Expand', [far, shape], { output: 'wide' }), 'FP32');
    const cutter = cutterOf(builder);
    // Before Neg the tensor itself crosses; behind it only its sizes.
    expect(cutter.cut([2]).crossings.map(({ name }) => name)).toEqual(['relu']);
    expect(cutter.cut([3]).crossings.map(({ name }) => name)).toEqual(['shape', 'near']);
  });

  it('a boundary that no executor can hand over is never legal, with the reason', async () => {
    const builder = new GraphBuilder('sequence');
    const x = builder.input('x', 'FP32', [2]);
    const list = builder.node('SequenceConstruct', [x, x], { output: 'list' });
    const joined = builder.node('ConcatFromSequence', [list], { output: 'joined', attributes: { axis: int(0) } });
    const brain = builder.node('Cast', [joined], { output: 'brain', attributes: { to: int(16) } });
    builder.output(builder.node('Cast', [brain], { output: 'end', attributes: { to: int(1) } }), 'FP32', [4]);
    const { cutter, types } = await prepare(encodeModelBytes(builder.model({ opset: 17 })));
    expect(cutCandidates(cutter, types).map(({ problem }) => problem)).toEqual([
      '"list" is a sequence',
      '',
      `"brain" is BFLOAT16, which ONNX Runtime's JavaScript interface cannot pass`,
    ]);
  });

  it('a shard of nothing but repeated nodes keeps them as its work', () => {
    const builder = new GraphBuilder('constants');
    const x = builder.input('x', 'FP32', [1]);
    const one = builder.node('Constant', [], {
      output: 'one',
      attributes: { value: tensor(onnxTensor('', [1], Float32Array.of(1))) },
    });
    builder.output(builder.node('Add', [x, one], { output: 'sum' }), 'FP32', [1]);
    const plan = cutterOf(builder).cut([1]);
    expect(plan.shards.map(({ inputs, outputs }) => [inputs, outputs])).toEqual([
      [[], ['one']],
      [['x', 'one'], ['sum']],
    ]);
  });

  it('positions outside of the graph are refused', () => {
    const { bytes } = randomModel(1, 3);
    const cutter = new Cutter(readSplitGraph(readModel(bytes)));
    for (const cut of [[0], [cutter.graph.nodes.length], [2, 2], [2, 1], [1.5], [-1]]) {
      expect(() => cutter.cut(cut)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }) as Error);
    }
  });
});
