import { InferenceSession, Tensor } from 'onnxruntime-node';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IntarsiaError } from '#core/errors.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { int } from '#core/onnx/attribute.js';
import { readModel } from '#core/onnx/model-reader.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { checkArtifact } from '#core/scheduling/artifact-check.js';
import { featureCount, planFeatureCount } from '#core/scheduling/features.js';
import { networkModel, networkOfModel } from '#core/scheduling/network-onnx.js';
import { encodePolicy, readPolicy, schemaOf, type PolicyArtifact } from '#core/scheduling/policy-file.js';
import { SimdScorer } from '#core/scheduling/simd-scorer.js';
import { dispatchFromFile, dispatchOf } from '#policies/placement/dispatch-from-file.js';
import { seededRandom } from '#sim/random.js';
import { anyNetwork } from './networks.js';

const flat = (value: number): number[] => new Array<number>(featureCount).fill(value);

const policy: PolicyArtifact = {
  name: 'quick-1',
  decides: 'dispatch',
  network: anyNetwork([featureCount, 32, 32, 3], 11),
  ranges: { least: flat(-3), low: flat(-2), high: flat(2), greatest: flat(3) },
  fallback: 'cheapest-feasible:0.6',
  notes: { seed: '11' },
};

describe('policy file', () => {
  it('holds the same policy after writing and reading, and the same policy gives the same bytes', () => {
    const bytes = encodePolicy(policy);
    expect(readPolicy(bytes)).toEqual(policy);
    expect(encodePolicy(readPolicy(bytes))).toEqual(bytes);
  });

  it('is of schema dispatch-2 where its network sees the plan too, and policies of dispatch-1 are read as before', () => {
    const wide = (value: number): number[] => new Array<number>(planFeatureCount).fill(value);
    const network = anyNetwork([planFeatureCount, 8, 1], 3);
    const ranges = { least: wide(-3), low: wide(-2), high: wide(2), greatest: wide(3) };
    const planned = { ...policy, network, ranges };
    const bytes = encodePolicy(planned);
    expect(schemaOf(readPolicy(bytes))).toBe('dispatch-2');
    expect(readPolicy(bytes)).toEqual(planned);
    expect(checkArtifact(bytes).gate.passed).toBe(true);
    expect(schemaOf(readPolicy(encodePolicy(policy)))).toBe('dispatch-1');
    expect(() => encodePolicy({ ...planned, network: anyNetwork([34, 8, 1], 3) })).toThrow(/takes 34 features/);
  });

  it('becomes a policy of its own each time, and none when it decides about batching', () => {
    expect(dispatchOf(policy)).not.toBe(dispatchOf(policy));
    expect(dispatchFromFile(encodePolicy(policy)).name).toBe('quick-1');
    expect(() => dispatchOf({ ...policy, decides: 'batching' })).toThrow(
      'policy quick-1 decides batching; a dispatch policy is needed',
    );
  });

  it('scores as ONNX Runtime does: within 1e-5 and with the same best row, on 10,000 random decisions', async () => {
    const bytes = encodePolicy(policy);
    const session = await InferenceSession.create(bytes, { intraOpNumThreads: 1 });
    const scorer = new SimdScorer(policy.network);
    const random = seededRandom(5);
    const decisions = 10_000;
    const candidates = 8;
    const count = decisions * candidates;
    const rows = Float32Array.from({ length: count * featureCount }, () => random.next() * 6 - 3);
    const ours = new Float32Array(count * 3);
    for (let decision = 0; decision < decisions; decision += 1) {
      const from = decision * candidates;
      const out = new Float32Array(candidates * 3);
      scorer.score(rows.subarray(from * featureCount, (from + candidates) * featureCount), candidates, out);
      ours.set(out, from * 3);
    }
    const { scores } = await session.run({ rows: new Tensor('float32', rows, [count, featureCount]) });
    const theirs = scores?.data as Float32Array;
    let largest = 0;
    ours.forEach((score, index) => {
      largest = Math.max(largest, Math.abs(score - (theirs[index] as number)));
    });
    expect(largest).toBeLessThan(1e-5);
    const best = (values: Float32Array, decision: number): number => {
      let at = 0;
      for (let row = 1; row < candidates; row += 1) {
        const sum = (each: number): number => {
          const start = (decision * candidates + each) * 3;
          return (values[start] as number) + (values[start + 1] as number) + (values[start + 2] as number);
        };
        if (sum(row) > sum(at)) at = row;
      }
      return at;
    };
    let different = 0;
    for (let decision = 0; decision < decisions; decision += 1) {
      if (best(ours, decision) !== best(theirs, decision)) different += 1;
    }
    expect(different).toBe(0);
    await session.release();
  }, 60_000);

  it('reads transposed weights, as other exporters write them', () => {
    const graph = new GraphBuilder('other');
    const rows = graph.input('x', 'FP32', ['n', 2]);
    const weights = graph.constant('w', [3, 2], Float32Array.of(1, 2, 3, 4, 5, 6));
    const bias = graph.constant('b', [3], new Float32Array(3));
    graph.output(graph.node('Gemm', [rows, weights, bias], { attributes: { transB: int(1) } }), 'FP32', ['n', 3]);
    const network = networkOfModel(readModel(encodeModelBytes(graph.model({ opset: 17 }))));
    expect([...(network.layers[0]?.weights ?? [])]).toEqual([1, 3, 5, 2, 4, 6]);
  });

  const withMetadata = (metadata: Record<string, string>, network = policy.network): Uint8Array =>
    encodeModelBytes(networkModel(network, metadata));
  const metadata = {
    'intarsia.name': 'x',
    'intarsia.schema': 'dispatch-1',
    'intarsia.ranges': JSON.stringify(policy.ranges),
    'intarsia.fallback': 'sed',
  };

  it('is refused with the reason when it is damaged, of another schema or does not give numbers', () => {
    const huge = anyNetwork([featureCount, 4, 1], 1);
    huge.layers[1]?.weights.fill(3e38);
    huge.layers[1]?.bias.fill(3e38);
    huge.layers[0]?.bias.fill(100);
    const disordered = { ...policy.ranges, low: flat(2.5) };
    const refusals: [Uint8Array, RegExp][] = [
      [Uint8Array.of(1, 2, 3), /not a readable ONNX model|MODEL/u],
      [encodePolicy(policy).subarray(0, 4000), /./u],
      [
        withMetadata({ ...metadata, 'intarsia.schema': 'dispatch-0' }),
        /schema 'dispatch-0'; this host has dispatch-1/u,
      ],
      [withMetadata({ ...metadata, 'intarsia.name': '../x' }), /name '..\/x'/u],
      [withMetadata({}), /no 'intarsia.schema'/u],
      [withMetadata({ ...metadata, 'intarsia.ranges': '{' }), /ranges are not JSON/u],
      [withMetadata({ ...metadata, 'intarsia.ranges': '{"least":[1]}' }), /no 32 numbers for 'least'/u],
      [withMetadata({ ...metadata, 'intarsia.ranges': JSON.stringify(disordered) }), /feature 0 is out of order/u],
      [withMetadata(metadata, anyNetwork([8, 1], 1)), /takes 8 features; schema dispatch-1 has 32/u],
      [withMetadata(metadata, huge), /scores that are not finite/u],
      [new Uint8Array(17 * 1024 * 1024), /may have 16777216/u],
    ];
    for (const [bytes, reason] of refusals) {
      expect(() => readPolicy(bytes)).toThrow(IntarsiaError);
      expect(() => readPolicy(bytes)).toThrow(reason);
    }
  });

  it('refuses models that are no chain of Gemm and Tanh', () => {
    const graph = new GraphBuilder('other');
    const rows = graph.input('x', 'FP32', ['n', 2]);
    graph.output(graph.node('Relu', [rows]), 'FP32', ['n', 2]);
    const model = readModel(encodeModelBytes(graph.model({ opset: 17 })));
    expect(() => networkOfModel(model)).toThrow(/Relu where Gemm belongs/u);
  });

  it('is read or refused with a reason, never anything else, whatever bytes are flipped', () => {
    const good = encodePolicy(policy);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat({ max: good.length - 1 }), fc.nat({ max: 255 })), { minLength: 1, maxLength: 4 }),
        (flips) => {
          const bytes = good.slice();
          for (const [at, value] of flips) bytes[at] = value;
          try {
            const read = readPolicy(bytes);
            expect(read.network.layers.every(({ weights }) => weights.every(Number.isFinite))).toBe(true);
          } catch (error) {
            expect(error).toBeInstanceOf(IntarsiaError);
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});
