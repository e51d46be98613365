/** A learned batching policy from its file: network, shield and the rule that it falls back to. */
import { intarsiaError } from '#core/errors.js';
import { readPolicy } from '#core/scheduling/policy-file.js';
import { SimdScorer } from '#core/scheduling/simd-scorer.js';
import { batchingByName } from './batching-by-name.js';
import { LearnedBatching } from './batching-learned.js';

/**
 * Makes a policy of its own for each device: they remember.
 * @throws MODEL_INVALID for a file that cannot be trusted, INVALID_ARGUMENT for one that does not decide batching,
 * CONFIG_INVALID for a fallback that is no rule here.
 */
export function batchingFromFile(bytes: Uint8Array): () => LearnedBatching {
  const { name, decides, network, ranges, fallback } = readPolicy(bytes);
  if (decides !== 'batching') {
    throw intarsiaError('INVALID_ARGUMENT', `policy ${name} decides ${decides}; a batching policy is needed`, { name });
  }
  batchingByName(fallback);
  return () =>
    new LearnedBatching({ name, scorer: new SimdScorer(network), ranges, fallback: batchingByName(fallback) });
}
