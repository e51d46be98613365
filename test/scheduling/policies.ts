/** Files of policies and reports about them, for tests. */
import { createHash } from 'node:crypto';
import { batchFeatureCount } from '#core/scheduling/batch-features.js';
import { dispatchSchema, featureCount } from '#core/scheduling/features.js';
import type { Network } from '#core/scheduling/network.js';
import { networkModel } from '#core/scheduling/network-onnx.js';
import { encodePolicy, type PolicyArtifact } from '#core/scheduling/policy-file.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { anyNetwork } from './networks.js';

const flat = (value: number): number[] => new Array<number>(featureCount).fill(value);
const ranges = { least: flat(-3), low: flat(-3), high: flat(3), greatest: flat(3) };

export function policyArtifact(name: string, network: Network = anyNetwork([featureCount, 8, 1], 11)): PolicyArtifact {
  return { name, decides: 'dispatch', network, ranges, fallback: 'cheapest-feasible', notes: { seed: '11' } };
}

/** A network of one layer that scores a row by the features that are given weights. */
export function linearNetwork(weightOf: Readonly<Record<number, number>>, inputs = featureCount): Network {
  const weights = new Float32Array(inputs);
  for (const [feature, weight] of Object.entries(weightOf)) weights[Number(feature)] = weight;
  return { layers: [{ in: inputs, out: 1, weights, bias: new Float32Array(1) }], activation: 'tanh' };
}

/** The bytes of a policy; with another schema, or with weights whose sums are no numbers. */
export function policyBytes(
  name: string,
  {
    schema,
    nan = false,
    network,
  }: { readonly schema?: string; readonly nan?: boolean; readonly network?: Network } = {},
): Uint8Array<ArrayBuffer> {
  const huge = Object.fromEntries(flat(0).map((_, feature) => [feature, feature % 2 === 0 ? 3e38 : -3e38]));
  const artifact = policyArtifact(name, nan ? linearNetwork(huge) : network);
  if (schema === undefined && !nan) return encodePolicy(artifact);
  return encodeModelBytes(
    networkModel(artifact.network, {
      'intarsia.name': name,
      'intarsia.schema': schema ?? dispatchSchema,
      'intarsia.ranges': JSON.stringify(ranges),
      'intarsia.fallback': artifact.fallback,
    }),
  );
}

/** The bytes of a policy that forms batches. */
export function batchingBytes(
  name: string,
  network: Network = anyNetwork([batchFeatureCount, 8, 1], 11),
): Uint8Array<ArrayBuffer> {
  const own = (value: number): number[] => new Array<number>(batchFeatureCount).fill(value);
  return encodePolicy({
    ...{ name, decides: 'batching', network, fallback: 'deadline-cap+shed' },
    ...{ ranges: { least: own(-3), low: own(-3), high: own(3), greatest: own(3) }, notes: {} },
  });
}

/** A report of `intarsia evaluate --log … --calibrate`, as gates read it. */
export function calibrationJson(ksDistance = 0.05): string {
  return JSON.stringify({ rows: [{ model: '', ksDistance, p50Error: 0.02, p99Error: -0.1 }] });
}

/** A report that passes every gate; `change` replaces figures over all cells. */
export function evaluationJson(
  bytes: Uint8Array,
  change: Readonly<Record<string, unknown>> = {},
  passed = true,
): string {
  const contender = 'run/policy.onnx';
  return JSON.stringify({
    isDone: true,
    files: [{ contender, sha256: createHash('sha256').update(bytes).digest('hex') }],
    cells: [{ cell: 'edge 0.7', comparisons: [{ contender, p99Change: -0.1 }] }],
    overall: [
      {
        ...{ contender, cells: 9, change: -0.08, changeLow: -0.1, changeHigh: -0.06, worstCell: 'edge 0.5' },
        ...{ worstChange: -0.01, worstMissChange: 0.001, fallbackRate: 0.01, maskViolations: 0, ...change },
      },
    ],
    verdicts: [{ contender, cell: 'device-loss', change: passed ? 0.01 : 0.2, maskViolations: 0, passed }],
  });
}
