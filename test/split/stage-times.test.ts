import { describe, expect, it } from 'vitest';
import { int } from '#core/onnx/attribute.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { readModel } from '#core/onnx/model-reader.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { declaredTypes } from '#core/split/boundary-type.js';
import { readSplitGraph } from '#core/split/graph.js';
import { nodeWeights, nodeWork } from '#core/split/node-work.js';
import { PlanTables, sumDeviation } from '#core/split/plan-tables.js';
import { StageTimes, type ChainWork, type MeasuredShard, type Silicon } from '#core/split/stage-times.js';

const nodes = 20;
const up = (each: number): Float64Array => Float64Array.from({ length: nodes + 1 }, (_, index) => index * each);
const work: ChainWork = {
  nodes,
  flops: up(6e6),
  activationBytes: up(10),
  operators: up(1),
  weightBytes: (from, to) => (to - from) * 100,
};
/** 6e6 operations at 0.6 × 1e9 a second: 10 ms a node. */
const silicon: Silicon = { flopsPerSecond: 1e9, bytesPerSecond: 1e12, operatorMs: 0, deviation: Math.log(2) };
const measured = (from: number, to: number, ms: number, batch = 1): MeasuredShard => ({
  from,
  to,
  ms,
  batch,
  relativeError: 0.01,
});

describe('times of stages', () => {
  it('without measurements are the roofline, as sure as the silicon is known and shapes are alike', () => {
    const known = new StageTimes(work, silicon, 1, []).known(0, 5);
    expect(known.ms).toBeCloseTo(50, 3);
    expect(known.source).toBe('estimated');
    expect(known.deviation).toBeCloseTo(Math.hypot(Math.log(2), Math.log(1.25)), 9);
  });

  it('that were measured count as they are, surer than any estimate and never surer than 2 %', () => {
    const times = new StageTimes(work, silicon, 1, [measured(0, 5, 77)]);
    expect(times.known(0, 5)).toEqual({ ms: 77, source: 'measured', deviation: 0.02 });
    expect(times.ms(0, 5)).toBe(77);
  });

  it('have error bars that shrink with every measurement, and estimates that follow what was measured', () => {
    let before = new StageTimes(work, silicon, 1, []).known(12, 17).deviation;
    for (let count = 1; count <= 6; count += 1) {
      // Shards that leave the rest unmeasured, on a device three times slower than its figures say.
      const shards = Array.from({ length: count }, (_, index) => measured(index, index + 3, 90));
      const { ms, deviation, source } = new StageTimes(work, silicon, 1, shards).known(12, 17);
      const [s, w] = [Math.log(2), Math.log(1.25)];
      expect(deviation).toBeCloseTo(Math.sqrt(1 / (1 / s ** 2 + count / w ** 2) + w ** 2), 9);
      expect(deviation).toBeLessThan(before);
      expect(source).toBe('estimated');
      expect(ms).toBeCloseTo(50 * Math.exp((count * Math.log(3)) / (count + w ** 2 / s ** 2)), 2);
      before = deviation;
    }
  });

  it('are the same in whole rows as one by one, measured, of pieces and estimated', () => {
    const pieces = [measured(0, 8, 70), measured(8, 15, 90), measured(15, 20, 45), measured(0, 20, 190)];
    const positions = [0, 1, 3, 8, 9, 12, 15, 16, 20];
    for (const shards of [[], [measured(3, 9, 5)], pieces, [...pieces, measured(3, 9, 5), measured(8, 16, 1)]]) {
      const times = new StageTimes(work, silicon, 1, shards);
      for (const [from, begin] of positions.entries()) {
        for (let last = from + 1; last < positions.length; last += 1) {
          const row = new Float64Array(positions.length);
          times.fill(positions, { from, last, into: row });
          const wanted = positions.map((end, at) => (at > from && at <= last ? times.ms(begin, end) : 0));
          expect([...row]).toEqual(wanted);
        }
      }
    }
  });

  it('of unmeasured shards come from measured pieces side by side, less what their boundaries cost', () => {
    const pieces = [measured(0, 10, 110), measured(10, 20, 210)];
    const whole = measured(0, 20, 300);
    const times = new StageTimes(work, silicon, 1, [...pieces, whole]);
    // Half of the first piece; half of each with one boundary inside, which costs the 20 ms the pieces have too many.
    expect(times.known(0, 5)).toMatchObject({ source: 'pieces', deviation: 0.1 });
    expect(times.ms(0, 5)).toBeCloseTo(55, 6);
    expect(times.ms(5, 15)).toBeCloseTo(55 + 105 - 20, 6);
  });

  it('are spread over the nodes of a piece as times of nodes have them, and such times alone are better than a roofline', () => {
    const nodeMs = Array.from({ length: nodes }, (_, node) => (node === 3 ? 81 : 1));
    const whole = new StageTimes(work, silicon, 1, [measured(0, nodes, 200)], { nodeMs });
    expect(whole.known(0, 4)).toMatchObject({ ms: 168, source: 'pieces' });
    expect(whole.ms(4, 20)).toBeCloseTo(32, 9);
    const alone = new StageTimes(work, silicon, 1, [], { nodeMs });
    expect(alone.known(0, 4)).toEqual({ ms: 84, source: 'pieces', deviation: 0.1 });
  });

  it('of other batch sizes stretch the pieces as the whole model grows', () => {
    const shards = [measured(0, 10, 100), measured(10, 20, 200), measured(0, 20, 300), measured(0, 20, 900, 4)];
    expect(new StageTimes(work, silicon, 4, shards).ms(0, 10)).toBeCloseTo(300, 6);
    // On the line between 300 ms for one and 900 ms for four.
    expect(new StageTimes(work, silicon, 2, shards).ms(0, 10)).toBeCloseTo(500 / 3, 6);
  });

  it('are infinite for a shard that the device does not run, and for it alone', () => {
    const times = new StageTimes(work, silicon, 1, [{ ...measured(0, 5, 0), ms: Infinity }]);
    expect(times.ms(0, 5)).toBe(Infinity);
    expect(times.ms(0, 6)).toBeCloseTo(60, 3);
  });

  it('that are independent have a sum that is surer than its parts', () => {
    const part = { ms: 10, deviation: 0.1 };
    expect(sumDeviation([part])).toBeCloseTo(0.1, 9);
    expect(sumDeviation([part, part, part, part])).toBeCloseTo(0.05, 9);
    expect(sumDeviation([])).toBe(0);
  });
});

describe('the work of nodes', () => {
  it('is counted from shapes: operations, activations, weights once, what is alive', () => {
    const builder = new GraphBuilder('work');
    const x = builder.input('x', 'FP32', [1, 3, 8, 8]);
    const kernel = builder.constant('k', [4, 3, 3, 3], new Float32Array(108));
    const convolved = builder.node('Conv', [x, kernel], { output: 'c', attributes: {} });
    const relu = builder.node('Relu', [convolved], { output: 'r' });
    const flat = builder.node('Flatten', [relu], { output: 'f', attributes: { axis: int(1) } });
    const weights = builder.constant('w', [144, 10], new Float32Array(1440));
    builder.output(builder.node('MatMul', [flat, weights], { output: 'y' }), 'FP32', [1, 10]);
    const graph = readSplitGraph(readModel(encodeModelBytes(builder.model({ opset: 17 }))));
    const types = declaredTypes(graph);
    const float = { kind: 'tensor', dataType: 1, shape: undefined } as const;
    for (const name of ['c', 'r', 'f']) types.set(name, float);
    const shapes = new Map([
      ['c', [1, 4, 6, 6]],
      ['r', [1, 4, 6, 6]],
      ['f', [1, 144]],
    ]);
    const found = nodeWork(graph, types, shapes);
    expect(found.map(({ flops }) => flops)).toEqual([2 * 144 * 27, 144, 0, 2 * 1440]);
    // 192 floats in, 144 out; renaming moves nothing.
    expect(found.map(({ activationBytes }) => activationBytes)).toEqual([4 * 336, 4 * 288, 0, 4 * 154]);
    expect(found[0]?.liveBytes).toBe(4 * 336);
    expect(nodeWeights(graph).map((held) => held.map(([, bytes]) => bytes))).toEqual([[432], [], [], [5760]]);
  });

  it('weights that several nodes use count once in a shard, and in each shard that uses them', () => {
    const device = { id: 'a', type: 'a', memoryBytes: 1e9, usdPerHour: 0 };
    const node = { flops: 1, activationBytes: 1, liveBytes: 8, isRepeating: false };
    const tables = new PlanTables({
      cuts: [1, 2],
      cutBytes: [4, 4],
      work: [node, node, { ...node, liveBytes: 20 }],
      weights: [[['shared', 100]], [['shared', 100]], [['own', 7]]],
      devices: [device],
      silicon: () => silicon,
      measured: () => [measured(0, 2, 77, 2)],
      link: () => ({ fixedMs: 1, msPerByte: 0.5, source: 'estimated', deviation: 1 }),
    });
    expect(tables.shardBytes(0, 2, 1)).toBe(108);
    expect(tables.shardBytes(0, 3, 2)).toBe(107 + 40);
    expect(tables.shardBytes(0, 1, 1) + tables.shardBytes(1, 2, 1)).toBe(216);
    const problem = tables.problem(2, { replicates: false });
    expect(problem.transferMs(device, device, 1)).toBe(1 + 0.5 * 8);
    // Rows and single cells say the same, also where memory is short.
    const short = { ...device, memoryBytes: 120 };
    const row = new Float64Array(4);
    problem.fillStages?.(short, 0, 3, row);
    expect([...row.slice(1)]).toEqual([problem.stageMs(short, 0, 1), 77, Infinity]);
    expect(problem.stageMs(short, 0, 2)).toBe(77);
  });
});
