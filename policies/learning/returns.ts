/**
 * Rewards of requests, what a decision brought from its moment on, and what that moment brought to others on the same
 * arrivals.
 *
 * Reward of a request: −(cost + λ of its class × missed + lateness weight × λ × lateness, 0 to 2 + energy weight × energy).
 * It falls due when the request is done or its target has passed, whichever comes first. Were it due at the end only, fading
 * would make it pay to put bad outcomes off: policies then learn to bury requests in the longest queue.
 * Rewards fade with time, not with the number of decisions: after one half-life they count half.
 *
 * Luck of arrivals is most of what returns vary by. Rollouts of one sequence share it, so the mean of the others at the
 * same moment is subtracted (input-dependent baseline, Mao et al., 2019); it depends on arrivals alone and adds no bias.
 */
import type { EpisodeRecord, Outcomes } from './environment.js';

export interface RewardOptions {
  /** λ by class. */
  readonly multipliers: readonly number[];
  readonly latenessWeight: number;
  readonly energyWeight: number;
  /** Time after which a reward counts half, ms. */
  readonly halfLifeMs: number;
}

/** Reward of each request. */
export function rewardsOf(outcomes: Outcomes, options: RewardOptions): Float64Array {
  return Float64Array.from(outcomes.cost, (cost, index) => {
    const multiplier = options.multipliers[outcomes.sloClass[index] ?? 0] ?? 0;
    const late = Math.min(2, Math.max(0, outcomes.lateness[index] ?? 0));
    const energy = outcomes.energy[index] ?? 0;
    const missed = outcomes.missed[index] ?? 0;
    return -(cost + multiplier * (missed + options.latenessWeight * late) + options.energyWeight * energy);
  });
}

/** What an episode paid, by time: asked for the sum of faded rewards from given moments on. */
export class RewardLine {
  readonly #dueMs: Float64Array;
  readonly #rewards: Float64Array;
  readonly #fadePerMs: number;

  constructor(outcomes: Outcomes, options: RewardOptions) {
    const rewards = rewardsOf(outcomes, options);
    const dueMs = outcomes.doneMs.map((doneMs, index) => {
      const arrivedMs = outcomes.arrivedMs[index] ?? 0;
      return arrivedMs + (doneMs - arrivedMs) / (1 + Math.max(0, outcomes.lateness[index] ?? 0));
    });
    const order = Uint32Array.from(rewards, (_, index) => index);
    order.sort((left, right) => (dueMs[left] ?? 0) - (dueMs[right] ?? 0) || left - right);
    this.#dueMs = Float64Array.from(order, (index) => dueMs[index] ?? 0);
    this.#rewards = Float64Array.from(order, (index) => rewards[index] ?? 0);
    this.#fadePerMs = Math.LN2 / options.halfLifeMs;
  }

  /** Sums at moments that do not fall. */
  returnsAt(moments: Float64Array): Float64Array {
    const returns = new Float64Array(moments.length);
    let event = this.#dueMs.length - 1;
    let sum = 0;
    let atMs = Infinity;
    for (let index = moments.length - 1; index >= 0; index -= 1) {
      const moment = moments[index] ?? 0;
      for (; event >= 0 && (this.#dueMs[event] ?? 0) >= moment; event -= 1) {
        const dueMs = this.#dueMs[event] ?? 0;
        sum = (atMs === Infinity ? 0 : sum * Math.exp((dueMs - atMs) * this.#fadePerMs)) + (this.#rewards[event] ?? 0);
        atMs = dueMs;
      }
      if (atMs !== Infinity) {
        sum *= Math.exp((moment - atMs) * this.#fadePerMs);
        atMs = moment;
      }
      returns[index] = sum;
    }
    return returns;
  }
}

/**
 * Advantage of each decision in each of several rollouts of one arrival sequence: its return less the mean return of the
 * other rollouts at the same moment, scaled to deviation 1 over all of them.
 */
export function advantagesOnSameArrivals(records: readonly EpisodeRecord[], options: RewardOptions): Float64Array[] {
  const lines = records.map(({ outcomes }) => new RewardLine(outcomes, options));
  const advantages = records.map(({ decisions }, own) => {
    const moments = decisions?.atMs ?? new Float64Array(0);
    const returns = lines.map((line) => line.returnsAt(moments));
    return moments.map((_, index) => {
      let others = 0;
      for (const [number, line] of returns.entries()) if (number !== own) others += line[index] ?? 0;
      return (returns[own]?.[index] ?? 0) - others / Math.max(1, lines.length - 1);
    });
  });
  let count = 0;
  let squares = 0;
  for (const values of advantages) {
    for (const value of values) squares += value * value;
    count += values.length;
  }
  const deviation = Math.sqrt(squares / Math.max(1, count));
  return advantages.map((values) => values.map((value) => (deviation > 0 ? value / deviation : 0)));
}

/** Requests and misses by class over several episodes. */
export function missesByClass(
  records: readonly EpisodeRecord[],
  classes: number,
): { readonly requests: number[]; readonly missed: number[] } {
  const requests = Array.from({ length: classes }, () => 0);
  const missed = Array.from({ length: classes }, () => 0);
  for (const { outcomes } of records) {
    for (const [index, sloClass] of outcomes.sloClass.entries()) {
      requests[sloClass] = (requests[sloClass] ?? 0) + 1;
      missed[sloClass] = (missed[sloClass] ?? 0) + (outcomes.missed[index] ?? 0);
    }
  }
  return { requests, missed };
}
