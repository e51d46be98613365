/**
 * Fine-tunes a learned dispatch policy on decisions that were really made: advantage-weighted regression on the earlier part of
 * a log, and off-policy estimates of the policy before and after on the later part, which nothing was learned from.
 *
 * The estimates need a log that explores: where one policy decided alone and drew nothing, no weight speaks for another
 * choice, and the report says so instead of a figure.
 */
import { asIntarsiaError, intarsiaError } from '#core/errors.js';
import { inputsOf, type Layer } from '#core/scheduling/network.js';
import { defaultObjective } from '#core/scheduling/objective.js';
import type { PolicyArtifact, TrainedRanges } from '#core/scheduling/policy-file.js';
import { SimdScorer } from '#core/scheduling/simd-scorer.js';
import type { Tensorflow } from '#adapters/tfjs/tensorflow.js';
import type { Random } from '#ports/random.js';
import { awrDefaults, regressOnAdvantages, type AwrOptions } from './awr.js';
import { featureRanges, joinRanges } from './feature-ranges.js';
import { estimateFromLog } from './log-estimate.js';
import { returnsOfEpisodes, splitEpisodes, type LoggedEpisode } from './logged-decisions.js';
import type { OffPolicyEstimate } from './off-policy.js';

export interface LogTuningOptions extends AwrOptions {
  readonly seed: number;
  /** Time after which a reward counts half for the decision before it, ms. */
  readonly halfLifeMs: number;
  /** Share of the log, its end, that judges. */
  readonly heldOutShare: number;
}

export const logTuningDefaults: LogTuningOptions = {
  ...awrDefaults,
  seed: 1,
  halfLifeMs: 3000,
  heldOutShare: 0.2,
};

/** An estimate, or why there is none. */
export type HeldOutEstimate = OffPolicyEstimate | { readonly reason: string };

export interface TunedPolicy {
  readonly layers: readonly Layer[];
  readonly ranges: TrainedRanges;
  /** Decisions that were learned from, and how many of them the result really rests on. */
  readonly decisions: number;
  readonly effectiveDecisions: number;
  /** Share of the returns' variance that could be foretold. */
  readonly explained: number;
  /** Share of decisions that were drawn, not certain. */
  readonly explored: number;
  readonly before: HeldOutEstimate;
  readonly after: HeldOutEstimate;
}

/** Fewer decisions teach nothing that a network could keep. */
const decisionsMin = 200;

/** @throws FAILED_PRECONDITION (the log says too little), INVALID_ARGUMENT (no dispatch policy, figures that are none). */
export function tuneFromLog(
  tools: { readonly tf: Tensorflow; readonly random: Random },
  policy: PolicyArtifact,
  episodes: readonly LoggedEpisode[],
  options: LogTuningOptions,
  onEpoch: (epoch: { readonly epoch: number; readonly loss: number }) => void,
): TunedPolicy {
  if (policy.decides !== 'dispatch') {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `policy ${policy.name} decides about ${policy.decides}; a log holds dispatch`,
    );
  }
  const { earlier, later } = splitEpisodes(episodes, 1 - options.heldOutShare);
  const logged = returnsOfEpisodes(earlier, {
    multipliers: defaultObjective.missWeight,
    latenessWeight: defaultObjective.lateWeight,
    energyWeight: defaultObjective.energyWeight,
    halfLifeMs: options.halfLifeMs,
  });
  const decisions = logged.choices.length;
  if (decisions < decisionsMin) {
    throw intarsiaError(
      'FAILED_PRECONDITION',
      `the log has ${decisions} decisions to learn from; at least ${decisionsMin} are needed`,
      { decisions },
    );
  }
  const result = regressOnAdvantages(tools, policy.network.layers, logged, options, onEpoch);
  const estimate = (layers: readonly Layer[]): HeldOutEstimate => {
    try {
      return estimateFromLog(later, new SimdScorer({ layers, activation: 'tanh' }));
    } catch (error) {
      const { code, message } = asIntarsiaError(error);
      if (code !== 'FAILED_PRECONDITION') throw error;
      return { reason: message };
    }
  };
  return {
    layers: result.layers,
    ranges: joinRanges(policy.ranges, featureRanges(logged, inputsOf(policy.network))),
    decisions,
    effectiveDecisions: result.effectiveDecisions,
    explained: result.explained,
    explored: logged.propensities.filter((chance) => chance < 1).length / decisions,
    before: estimate(policy.network.layers),
    after: estimate(result.layers),
  };
}
