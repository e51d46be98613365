/**
 * The first gate of a policy: its file is whole and of this host's schema, and the kernel that runs on the hot path scores as plain
 * arithmetic does, on decisions drawn from the ranges of its training. A file that forms batches is held against the same.
 */
import { intarsiaError } from '../errors.js';
import { outputsOf, type Network } from './network.js';
import { readPolicy, type PolicyArtifact, type TrainedRanges } from './policy-file.js';
import type { GateFinding } from './promotion-gates.js';
import { SimdScorer } from './simd-scorer.js';

/** Few enough for a host that serves meanwhile: about 50 ms. */
const decisions = 1_000;
const candidates = 8;
/** Largest difference of a score, as a share of the largest score of its decision where that is above 1: scores are of 32 bits. */
const differenceMax = 1e-5;
/** Decisions scored in one call. */
const chunk = 500;

/**
 * @throws MODEL_INVALID for a file that is damaged, of another schema, gives no numbers, is scored otherwise by the kernel, or
 * decides about something else.
 */
export function checkArtifact(
  bytes: Uint8Array,
  decides: PolicyArtifact['decides'] = 'dispatch',
): { readonly policy: PolicyArtifact; readonly gate: GateFinding } {
  const policy = readPolicy(bytes);
  if (policy.decides !== decides) {
    throw intarsiaError(
      'MODEL_INVALID',
      `policy ${policy.name} decides about ${policy.decides}; a file about ${decides} is needed here`,
      {},
    );
  }
  const { largest, otherwise } = parity(policy.network, policy.ranges);
  const text = `${decisions} decisions: largest difference of the kernel ${largest.toExponential(1)}, best row otherwise ${otherwise} times`;
  if (largest >= differenceMax || otherwise > 0) {
    throw intarsiaError('MODEL_INVALID', `policy ${policy.name} is not scored as its file says: ${text}`, {});
  }
  return { policy, gate: { gate: 'artefact', passed: true, text: decides === 'dispatch' ? text : `batches: ${text}` } };
}

function parity(network: Network, ranges: TrainedRanges): { readonly largest: number; readonly otherwise: number } {
  const outputs = outputsOf(network);
  const scorer = new SimdScorer(network);
  const inputs = network.layers[0]?.in ?? 0;
  const rows = new Float32Array(chunk * candidates * inputs);
  const scores = new Float32Array(chunk * candidates * outputs);
  const random = lehmer(1);
  let largest = 0;
  let otherwise = 0;
  for (let from = 0; from < decisions; from += chunk) {
    for (let at = 0; at < rows.length; at += 1) {
      const feature = at % inputs;
      const low = ranges.least[feature] ?? 0;
      rows[at] = low + random() * ((ranges.greatest[feature] ?? 0) - low);
    }
    scorer.score(rows, chunk * candidates, scores);
    const plain = plainScores(network, rows, chunk * candidates);
    for (let decision = 0; decision < chunk; decision += 1) {
      largest = Math.max(largest, differenceOf(scores, plain, decision * candidates * outputs, candidates * outputs));
      if (!isSameBest(scores, plain, decision, outputs)) otherwise += 1;
    }
  }
  return { largest, otherwise };
}

/** The largest difference of the scores of one decision, relative to the largest of them, or to 1 when all are smaller. */
function differenceOf(scores: Float32Array, plain: Float64Array, from: number, count: number): number {
  let difference = 0;
  let scale = 1;
  for (let at = from; at < from + count; at += 1) {
    difference = Math.max(difference, Math.abs((scores[at] as number) - (plain[at] as number)));
    scale = Math.max(scale, Math.abs(plain[at] as number));
  }
  return difference / scale;
}

/** In 64 bits, layer by layer: what the file says, without any tuning. */
function plainScores(network: Network, rows: Float32Array, count: number): Float64Array {
  let values = Float64Array.from(rows);
  const last = network.layers.length - 1;
  for (const [index, { in: inputs, out, weights, bias }] of network.layers.entries()) {
    const next = new Float64Array(count * out);
    for (let row = 0; row < count; row += 1) {
      for (let to = 0; to < out; to += 1) {
        let sum = bias[to] as number;
        for (let input = 0; input < inputs; input += 1) {
          sum += (values[row * inputs + input] as number) * (weights[input * out + to] as number);
        }
        next[row * out + to] = index === last ? sum : Math.tanh(sum);
      }
    }
    values = next;
  }
  return values;
}

/** Rows that are closer than what may differ count as the same. */
function isSameBest(scores: Float32Array, plain: Float64Array, decision: number, outputs: number): boolean {
  const best = bestRow(scores, decision, outputs);
  const expected = bestRow(plain, decision, outputs);
  if (best === expected) return true;
  return Math.abs(meanOf(plain, decision, best, outputs) - meanOf(plain, decision, expected, outputs)) < differenceMax;
}

function bestRow(scores: ArrayLike<number>, decision: number, outputs: number): number {
  let best = 0;
  for (let row = 1; row < candidates; row += 1) {
    if (meanOf(scores, decision, row, outputs) > meanOf(scores, decision, best, outputs)) best = row;
  }
  return best;
}

function meanOf(scores: ArrayLike<number>, decision: number, row: number, outputs: number): number {
  let sum = 0;
  for (let head = 0; head < outputs; head += 1) sum += scores[(decision * candidates + row) * outputs + head] as number;
  return sum / outputs;
}

/** The minimal standard generator: the same rows on every host. */
function lehmer(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}
