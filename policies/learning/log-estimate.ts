/**
 * A decision log as an off-policy estimator takes it: what each decision's request was paid, and what a learned policy would
 * have chosen among the rows that were allowed. The policy takes its best score, so that its chances are 0 and 1; its shield
 * is left out, because what it looks at besides rows is not of one moment.
 */
import { intarsiaError } from '#core/errors.js';
import { defaultObjective } from '#core/scheduling/objective.js';
import type { Scorer } from '#ports/scorer.js';
import type { LoggedEpisode } from './logged-decisions.js';
import { estimateOffPolicy, type OffPolicyEstimate } from './off-policy.js';
import { rewardsOf } from './returns.js';
import { fitRewards, predictRewards } from './reward-model.js';

/** Weights of the objective, as rewards take them. */
const rewardOptions = {
  multipliers: defaultObjective.missWeight,
  latenessWeight: defaultObjective.lateWeight,
  energyWeight: defaultObjective.energyWeight,
  halfLifeMs: Infinity,
};

/** `scorer` takes the rows of the episodes' schema. @throws FAILED_PRECONDITION when the log says too little of the policy, or nothing at all. */
export function estimateFromLog(episodes: readonly LoggedEpisode[], scorer: Scorer): OffPolicyEstimate {
  const taken: number[] = [];
  const wanted: number[] = [];
  const rewards: number[] = [];
  const propensities: number[] = [];
  const chances: number[] = [];
  const { inputs: width } = scorer;
  for (const { decisions, outcomes, outcomeOf, propensities: logged } of episodes) {
    const paid = rewardsOf(outcomes, rewardOptions);
    const { rows, rowStarts, choices } = decisions;
    let scores = new Float32Array(0);
    for (const [index, choice] of choices.entries()) {
      const outcome = outcomeOf[index] ?? -1;
      // Requests under way when the log was read were paid nothing yet.
      if (outcome < 0) continue;
      const first = rowStarts[index] ?? 0;
      const count = (rowStarts[index + 1] ?? 0) - first;
      if (scores.length < count * scorer.outputs) scores = new Float32Array(count * scorer.outputs);
      const own = rows.subarray(first * width, (first + count) * width);
      scorer.score(own, count, scores);
      const best = bestRow(scores, count, scorer.outputs);
      for (const value of own.subarray(choice * width, (choice + 1) * width)) taken.push(value);
      for (const value of own.subarray(best * width, (best + 1) * width)) wanted.push(value);
      rewards.push(paid[outcome] ?? 0);
      propensities.push(logged[index] ?? 0);
      chances.push(best === choice ? 1 : 0);
    }
  }
  if (rewards.length === 0) throw intarsiaError('FAILED_PRECONDITION', 'the log has no decision with an outcome');
  const takenRows = Float32Array.from(taken);
  const model = fitRewards(takenRows, Float64Array.from(rewards), width);
  return estimateOffPolicy({
    rewards: Float64Array.from(rewards),
    propensities: Float64Array.from(propensities),
    chances: Float64Array.from(chances),
    modelTaken: predictRewards(model, takenRows),
    modelWanted: predictRewards(model, Float32Array.from(wanted)),
  });
}

/** The row with the highest mean of all heads. */
function bestRow(scores: Float32Array, count: number, outputs: number): number {
  let best = 0;
  let most = -Infinity;
  for (let row = 0; row < count; row += 1) {
    let sum = 0;
    for (let head = 0; head < outputs; head += 1) sum += scores[row * outputs + head] as number;
    if (sum > most) {
      most = sum;
      best = row;
    }
  }
  return best;
}
