/**
 * What another policy would have been paid on decisions that were logged: estimates of one step each. They do not see that
 * sending a request somewhere loads that queue for others, and so they come second to simulation.
 *
 * SNIPS (self-normalised inverse propensity): Σ w r ÷ Σ w, with w = π_new ÷ π_log clipped. It trusts the log alone.
 * DR (doubly robust): mean of q̂ under π_new, plus w (r − q̂) of what was taken: right when either the propensities or the
 * model of rewards are.
 *
 * How much of the log speaks for the new policy is the effective sample size, (Σ w)² ÷ Σ w²; under 1,000 there is no verdict.
 */
import { intarsiaError } from '#core/errors.js';

/** Columns over decisions. */
export interface OffPolicyRows {
  /** Reward of the decision's request: the negative of what the objective counts. */
  readonly rewards: Float64Array;
  /** Chance with which the choice was made, above 0. */
  readonly propensities: Float64Array;
  /** Chance with which the policy in question would have made the same choice. */
  readonly chances: Float64Array;
  /** The model's reward of the choice that was made, and its mean over the choices of the policy in question. */
  readonly modelTaken: Float64Array;
  readonly modelWanted: Float64Array;
}

export interface Estimate {
  readonly value: number;
  /** 95 % interval from the standard error. */
  readonly low: number;
  readonly high: number;
}

export interface OffPolicyEstimate {
  readonly decisions: number;
  readonly effectiveDecisions: number;
  /** Share of decisions whose weight was cut. */
  readonly clipped: number;
  /** Of the policy that wrote the log. */
  readonly logged: Estimate;
  readonly snips: Estimate;
  readonly doublyRobust: Estimate;
}

export const weightMax = 20;
export const effectiveDecisionsMin = 1_000;
const normal95 = 1.96;

/**
 * @throws FAILED_PRECONDITION when the effective sample size is under 1,000; INVALID_ARGUMENT for columns of unlike length or a
 * propensity that is no chance.
 */
export function estimateOffPolicy(rows: OffPolicyRows): OffPolicyEstimate {
  const { rewards, propensities, chances, modelTaken, modelWanted } = rows;
  const count = rewards.length;
  for (const [name, column] of Object.entries(rows) as [string, Float64Array][]) {
    if (column.length !== count) {
      throw intarsiaError('INVALID_ARGUMENT', `${name} has ${column.length} values; there are ${count} rewards`);
    }
  }
  const weights = new Float64Array(count);
  let clipped = 0;
  let sum = 0;
  let squares = 0;
  for (let index = 0; index < count; index += 1) {
    const propensity = propensities[index] as number;
    if (!(propensity > 0 && propensity <= 1)) {
      throw intarsiaError('INVALID_ARGUMENT', `propensity of decision ${index} is ${propensity}, which is no chance`);
    }
    const weight = (chances[index] as number) / propensity;
    if (weight > weightMax) clipped += 1;
    const cut = Math.min(weightMax, weight);
    weights[index] = cut;
    sum += cut;
    squares += cut ** 2;
  }
  const effectiveDecisions = squares === 0 ? 0 : (sum * sum) / squares;
  if (effectiveDecisions < effectiveDecisionsMin) {
    throw intarsiaError(
      'FAILED_PRECONDITION',
      `the log speaks for ${effectiveDecisions.toFixed(0)} decisions of this policy (effective sample size); ${effectiveDecisionsMin} are needed: log more, or let the policy in use explore`,
      { effectiveDecisions, decisions: count },
    );
  }
  const snips = rewards.reduce((total, reward, index) => total + (weights[index] as number) * reward, 0) / sum;
  let spread = 0;
  for (let index = 0; index < count; index += 1) {
    spread += ((weights[index] as number) * ((rewards[index] as number) - snips)) ** 2;
  }
  const robust = rewards.map(
    (reward, index) =>
      (modelWanted[index] as number) + (weights[index] as number) * (reward - (modelTaken[index] as number)),
  );
  return {
    decisions: count,
    effectiveDecisions,
    clipped: clipped / count,
    logged: meanOf(rewards),
    snips: around(snips, Math.sqrt(spread) / sum),
    doublyRobust: meanOf(robust),
  };
}

function meanOf(values: Float64Array): Estimate {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return around(mean, Math.sqrt(squares / Math.max(1, values.length - 1) / values.length));
}

function around(value: number, error: number): Estimate {
  return { value, low: value - normal95 * error, high: value + normal95 * error };
}
