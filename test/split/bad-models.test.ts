/** Models that a splitter must refuse, survive, or answer with a reason. */
import { describe, expect, it } from 'vitest';
import { graph as graphAttribute } from '#core/onnx/attribute.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import type { GraphDraft } from '#core/onnx/draft.js';
import { readModel } from '#core/onnx/model-reader.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { cutCandidates } from '#core/split/cut-candidates.js';
import { chooseCuts } from '#core/split/cut-choices.js';
import { Cutter } from '#core/split/cut.js';
import { declaredTypes } from '#core/split/boundary-type.js';
import { readSplitGraph, type SplitGraph } from '#core/split/graph.js';
import { encodeShard } from '#core/split/shard-writer.js';
import { join, loadPlan, prepare } from './direct-shards.js';

function sorted(graph: GraphDraft): SplitGraph {
  return readSplitGraph(readModel(encodeModelBytes({ graph, opset: 17 })));
}

const value = (name: string): GraphDraft['inputs'][number] => ({ name, dataType: 1, shape: [1] });
const node = (opType: string, inputs: readonly string[], outputs: readonly string[]): GraphDraft['nodes'][number] => ({
  opType,
  inputs,
  outputs,
});

describe('graphs that cannot be sorted', () => {
  it('nodes that wait for each other in a circle are named by their number', () => {
    const nodes = [node('Add', ['x', 'b'], ['a']), node('Relu', ['a'], ['b'])];
    const graph = { name: 'circle', nodes, inputs: [value('x')], outputs: [value('b')], initializers: [] };
    expect(() => sorted(graph)).toThrow(/2 nodes of the model wait for each other in a circle/);
  });

  it('a name that nothing defines, and one that is defined twice, are named', () => {
    const missing = {
      name: 'missing',
      nodes: [node('Add', ['x', 'ghost'], ['a'])],
      inputs: [value('x')],
      outputs: [value('a')],
      initializers: [],
    };
    expect(() => sorted(missing)).toThrow(/uses the value "ghost", which nothing defines/);
    expect(() => sorted({ ...missing, nodes: [], outputs: [value('ghost')] })).toThrow(/"ghost"/);
    // The writer of this project refuses a value that is defined twice, so a file of somebody else: two equal names.
    const bytes = Buffer.from(
      encodeModelBytes({
        graph: {
          ...missing,
          nodes: [node('Relu', ['x'], ['aa']), node('Relu', ['x'], ['ab'])],
          outputs: [value('aa')],
        },
        opset: 17,
      }),
    );
    bytes.write('aa', bytes.indexOf('ab'));
    expect(() => readSplitGraph(readModel(bytes))).toThrow(/"aa" is defined twice/);
  });

  it('an outer name that only a branch of an If gives out is a use of it', () => {
    const branch = (name: string, gives: string): GraphDraft => ({
      name,
      nodes: [],
      inputs: [],
      outputs: [value(gives)],
      initializers: [],
    });
    const nodes = [
      {
        ...node('If', ['yes'], ['end']),
        attributes: {
          then_branch: graphAttribute(branch('then', 'a')),
          else_branch: graphAttribute(branch('else', 'x')),
        },
      },
      node('Relu', ['x'], ['a']),
    ];
    const graph = sorted({
      name: 'captured',
      nodes,
      inputs: [value('x'), { name: 'yes', dataType: 9, shape: [] }],
      outputs: [value('end')],
      initializers: [],
    });
    expect(graph.nodes.map(({ operator }) => operator)).toEqual(['Relu', 'If']);
    expect(graph.nodes[1]?.uses).toEqual(['yes', 'a', 'x']);
    expect(new Cutter(graph).cut([1]).shards[1]?.inputs).toEqual(['x', 'yes', 'a']);
  });
});

describe('graphs with little to cut', () => {
  it('a graph without nodes is one shard that gives out its inputs and weights, and cannot be cut', async () => {
    const builder = new GraphBuilder('empty');
    builder.input('x', 'FP32', [1]);
    builder.constant('w', [1], Float32Array.of(7));
    const draft = builder.model({ opset: 17 });
    const bytes = encodeModelBytes({ ...draft, graph: { ...draft.graph, outputs: [value('x'), value('w')] } });
    const { cutter, types } = await prepare(bytes);
    expect(chooseCuts({ nodes: 0, stages: 2, cuts: 'all', seed: 1 })).toEqual([]);
    const plan = cutter.cut([]);
    expect(plan.shards).toMatchObject([{ inputs: ['x'], outputs: ['x', 'w'], initializers: ['w'], nodes: [] }]);
    const shards = await loadPlan(plan, types);
    const x = { name: 'x', datatype: 'FP32' as const, shape: [1], data: new Uint8Array(Float32Array.of(3).buffer) };
    const outputs = await shards.run([x]);
    expect(outputs.map(({ data }) => new Float32Array(new Uint8Array(data).buffer)[0])).toEqual([3, 7]);
    await shards.release();
  });

  it('nodes that no output depends on are left out', () => {
    const nodes = [node('Relu', ['x'], ['a']), node('Neg', ['x'], ['dead']), node('Abs', ['dead'], ['deader'])];
    const graph = sorted({ name: 'dead', nodes, inputs: [value('x')], outputs: [value('a')], initializers: [] });
    expect(graph.nodes.map(({ operator }) => operator)).toEqual(['Relu']);
    expect(graph.deadNodes).toBe(2);
  });

  it('more stages than nodes have no cut', () => {
    expect(chooseCuts({ nodes: 3, stages: 4, cuts: 'all', seed: 1 })).toEqual([]);
    expect(chooseCuts({ nodes: 3, stages: 3, cuts: 'all', seed: 1 })).toEqual([[1, 2]]);
  });
});

describe('large models', () => {
  /** Nodes in a chain, each also reading the value ten before: eleven values cross every cut. */
  function longModel(nodes: number): Uint8Array {
    const builder = new GraphBuilder('long');
    const values = [builder.input('x', 'FP32', [4])];
    for (let index = 0; index < nodes; index += 1) {
      values.push(builder.node('Add', [values.at(-1) as string, values[Math.max(0, index - 10)] as string]));
    }
    builder.output(values.at(-1) as string, 'FP32', [4], 'end');
    return encodeModelBytes(builder.model({ opset: 17 }));
  }

  it('4,000 nodes are sorted, every cut is judged, and 64 shards are written', { timeout: 120_000 }, async () => {
    const { cutter, types } = await prepare(longModel(4_000));
    expect(cutter.graph.nodes.length).toBe(4_001);
    const candidates = cutCandidates(cutter, types);
    expect(candidates.length).toBe(4_000);
    expect(candidates.every(({ problem, boundaryBytes }) => problem === '' && (boundaryBytes ?? 0) > 0)).toBe(true);
    expect(candidates[2_000]?.boundaryBytes).toBe(11 * 16);
    const cuts = Array.from({ length: 63 }, (_, index) => (index + 1) * 62);
    const plan = cutter.cut(cuts);
    const nodes = plan.shards.map((shard) => readModel(join(encodeShard(plan, shard, types).parts)).graph.nodes.length);
    expect(nodes.reduce((sum, count) => sum + count, 0)).toBe(4_001);
  });

  it('a chain of 100,000 nodes is sorted and cut without deep recursion', () => {
    const cutter = new Cutter(readSplitGraph(readModel(longModel(100_000))));
    const plan = cutter.cut([50_000]);
    expect(plan.shards.map(({ nodes }) => nodes.length)).toEqual([50_000, 50_001]);
    expect(plan.crossings.length).toBe(11);
  });

  it('weights in a side file of more than 4 GiB stay where they are and are named by their shard only', () => {
    const bytes = 3 * 2 ** 30;
    const tensor = (name: string, offset: number): GraphDraft['initializers'][number] => ({
      name,
      dataType: 1,
      shape: [bytes / 4],
      data: new Uint8Array(0),
      external: { location: 'weights.bin', offset, length: bytes },
    });
    const graph: GraphDraft = {
      name: 'huge',
      nodes: [node('Add', ['x', 'a'], ['first']), node('Add', ['first', 'b'], ['second'])],
      inputs: [value('x')],
      outputs: [value('second')],
      initializers: [tensor('a', 0), tensor('b', bytes)],
    };
    const cutter = new Cutter(sorted(graph));
    const plan = cutter.cut([1]);
    const types = new Map(declaredTypes(cutter.graph)).set('first', { kind: 'tensor', dataType: 1, shape: undefined });
    for (const [index, shard] of plan.shards.entries()) {
      const encoded = encodeShard(plan, shard, types);
      expect(encoded).toMatchObject({ locations: ['weights.bin'], weightBytes: bytes });
      expect(readModel(join(encoded.parts)).graph.initializers).toMatchObject([
        { name: index === 0 ? 'a' : 'b', external: { location: 'weights.bin', offset: index * bytes, length: bytes } },
      ]);
    }
  });
});
