/** A model with a state in its middle stage, on hosts of a grid on virtual time: sequences and what they lose. */
import { describe, expect, it } from 'vitest';
import type { InferResponseMessage } from '#core/inference-message.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { readModel } from '#core/onnx/model-reader.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { balancedCut } from '#core/split/balanced-cut.js';
import { declaredTypes } from '#core/split/boundary-type.js';
import { Cutter } from '#core/split/cut.js';
import { readSplitGraph } from '#core/split/graph.js';
import { stateProblem, stateSpans } from '#core/split/state-spans.js';
import { PipelineWorld, stageMs } from './pipeline-world.js';

const valueOf = (answer: InferResponseMessage | undefined): number | undefined => {
  const data = answer?.outputs.find(({ name }) => name === 'y')?.data;
  return data === undefined ? undefined : new Int32Array(data.slice().buffer)[0];
};

async function asked(
  world: PipelineWorld,
  x: number,
  sequence: { readonly id: number; readonly start?: boolean; readonly end?: boolean },
) {
  const answered = world.infer('a', x, { sequence });
  await world.pass(20 * stageMs);
  return answered;
}

describe('a stateful model in stages', () => {
  it('keeps the state of each sequence in the stage that owns it, with whoever began the sequence', async () => {
    // Two holders of the middle: a sequence must not go from one to the other.
    const world = await PipelineWorld.start({ a: [0], b: [1], c: [1], d: [2] }, { isStateful: true });
    const sums = new Map([1, 2, 3, 4, 5, 6].map((id) => [id, 0]));
    for (let step = 0; step < 5; step += 1) {
      for (const [id, before] of sums) {
        const x = 10 * step + id;
        const { answer, error } = await asked(world, x, { id, start: step === 0, end: step === 4 });
        const sum = (x + 1) * 2 + before;
        expect([error, valueOf(answer)]).toEqual([undefined, sum + x]);
        sums.set(id, sum);
      }
    }
    expect(world.runs('b', 1)).toBeGreaterThan(0);
    expect(world.runs('c', 1)).toBeGreaterThan(0);
    expect(world.runs('b', 1) + world.runs('c', 1)).toBe(30);
  });

  it('loses a sequence whose stage is lost, says so in a way that may be tried again, and takes it up from its start', async () => {
    const world = await PipelineWorld.start({ a: [0], b: [1], c: [1], d: [2] }, { isStateful: true });
    expect(valueOf((await asked(world, 1, { id: 7, start: true })).answer)).toBe(5);
    const holder = world.runs('b', 1) > 0 ? 'b' : 'c';
    world.kill(holder);
    const lost = await asked(world, 2, { id: 7 });
    expect(lost.error?.retryable).toBe(true);
    const after = await asked(world, 3, { id: 7 });
    expect(after.error?.message).toMatch(
      /^sequence 7 of model 'sum' version 1 has lost a state: .*; begin it again \(sequence_start\)$/,
    );
    expect(after.error?.retryable).toBe(true);
    // The other holder of the stage knows nothing of it and never answers out of another state.
    expect(world.runs(holder === 'b' ? 'c' : 'b', 1)).toBe(0);
    expect(valueOf((await asked(world, 4, { id: 7, start: true })).answer)).toBe(14);
    expect(valueOf((await asked(world, 4, { id: 7 })).answer)).toBe(24);
  });
});

/** s' = s + x; y = s' × 2; z = y + 1 with t' = t + z: two states, and a place between them. */
function twoStates(): Cutter {
  const graph = new GraphBuilder('states');
  const x = graph.input('x', 'FP32', [1]);
  const s = graph.input('s', 'FP32', [1]);
  const t = graph.input('t', 'FP32', [1]);
  const sum = graph.node('Add', [s, x], { output: 's_next' });
  const double = graph.node('Add', [sum, sum]);
  const more = graph.node('Neg', [double]);
  const half = graph.node('Mul', [t, more]);
  const other = graph.node('Add', [half, more], { output: 't_next' });
  graph.output(other, 'FP32', [1]);
  graph.output(sum, 'FP32', [1]);
  graph.output(graph.node('Neg', [other], { output: 'y' }), 'FP32', [1]);
  return new Cutter(readSplitGraph(readModel(encodeModelBytes(graph.model({ opset: 17 })))));
}

describe('the cut of a stateful model', () => {
  const cutter = twoStates();
  const types = declaredTypes(cutter.graph);

  it('parts no state from what makes it, and names the nodes that stay together', () => {
    const spans = stateSpans(cutter.graph, [
      { inputName: 's', outputName: 's_next' },
      { inputName: 't', outputName: 't_next' },
    ]);
    const problems = [1, 2, 3, 4, 5].map((position) => stateProblem(spans, position));
    expect(problems.map((problem) => problem === '')).toEqual([true, true, true, false, true]);
    expect(problems[3]).toBe(
      '"t" is a state, which must be read and made ("t_next") in one shard: nodes 3 to 4 cannot be parted',
    );
  });

  it('into more stages than states leave places for is impossible, with the reason', () => {
    const spans = stateSpans(cutter.graph, [{ inputName: 's', outputName: 't_next' }]);
    expect(() => balancedCut(cutter, types, 3, spans)).toThrow(
      /cannot be cut into 3 stages: 2 positions are needed and 1 are legal; the first that is not: "s" is a state, .* nodes 0 to 4 cannot be parted/,
    );
  });
});
