/**
 * A learned policy from its file, as it decides: network, shield and the rule that it falls back to.
 */
import { intarsiaError } from '#core/errors.js';
import { readPolicy, type PolicyArtifact } from '#core/scheduling/policy-file.js';
import { planFeatureCount } from '#core/scheduling/features.js';
import { inputsOf } from '#core/scheduling/network.js';
import { RatePlan } from '#core/scheduling/rate-plan.js';
import { SimdScorer } from '#core/scheduling/simd-scorer.js';
import { dispatchByName } from './dispatch-by-name.js';
import { LearnedDispatch, type LearnedDispatchOptions } from './dispatch-learned.js';

/** `clockMs` limits the time of scoring; leave it out where time stands still while a policy thinks. */
export type FromFileOptions = Pick<LearnedDispatchOptions, 'clockMs'>;

/**
 * @throws MODEL_INVALID for a file that cannot be trusted, INVALID_ARGUMENT for one that does not decide dispatch,
 * CONFIG_INVALID for a fallback that is no rule here.
 */
export function dispatchFromFile(bytes: Uint8Array, options: FromFileOptions = {}): LearnedDispatch {
  return dispatchOf(readPolicy(bytes), options);
}

/** The same of a file that was read already. Each call makes a policy of its own: they remember. */
export function dispatchOf(artifact: PolicyArtifact, options: FromFileOptions = {}): LearnedDispatch {
  const { name, decides, network, ranges, fallback } = artifact;
  if (decides !== 'dispatch') {
    throw intarsiaError('INVALID_ARGUMENT', `policy ${name} decides ${decides}; a dispatch policy is needed`, { name });
  }
  const plan = inputsOf(network) === planFeatureCount ? new RatePlan() : undefined;
  return new LearnedDispatch({
    ...options,
    name,
    scorer: new SimdScorer(network),
    ...(plan === undefined ? {} : { plan }),
    ranges,
    // A rule that plans must see all requests, not only those that are left to it.
    fallback: dispatchByName(fallback, plan),
  });
}
