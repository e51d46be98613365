/**
 * Cheapest feasible by risk: the cheapest of the candidates whose chance to be late is at most ε, by the spread of their run
 * times. Instead of one share of the target for all, an even device may be used nearly to its limit and an uneven one not.
 */
import {
  busyUsd,
  expectedMs,
  marginalUsd,
  NONE,
  type DispatchCandidate,
  type DispatchPolicy,
} from '#core/scheduling/dispatch-view.js';
import { leftMs } from './least-of.js';

export interface RiskOptions {
  /** Chance to be late that is accepted, above 0 and below 0.5, default 0.02. */
  readonly lateShare?: number;
}

/** p95 of a normal distribution, in standard deviations. */
const p95 = 1.6449;

export function cheapestByRisk(options: RiskOptions = {}): DispatchPolicy {
  const lateShare = options.lateShare ?? 0.02;
  const deviations = normalQuantile(1 - lateShare);
  let turn = 0;
  return {
    name: `cf-risk:${lateShare}`,
    choose: (request, candidates, fleet) => {
      turn = (turn + 1) % 65_536;
      const count = candidates.length;
      const limitMs = leftMs(request);
      let cheapest = NONE;
      let leastUsd = Infinity;
      let soonest = NONE;
      let leastMs = Infinity;
      let pricesKnown = true;
      for (let step = 0; step < count; step += 1) {
        const index = (turn + step) % count;
        const candidate = candidates[index] as DispatchCandidate;
        if (candidate.masked !== '') continue;
        const ms = expectedMs(candidate);
        if (ms < leastMs || soonest === NONE) {
          soonest = index;
          leastMs = ms;
        }
        if (busyUsd(candidate, 1, fleet) <= 0) pricesKnown = false;
        if (ms + deviations * deviationMs(candidate) > limitMs) continue;
        const usd = marginalUsd(candidate, fleet);
        if (usd < leastUsd) {
          cheapest = index;
          leastUsd = usd;
        }
      }
      return cheapest === NONE || !pricesKnown ? soonest : cheapest;
    },
  };
}

/** Standard deviation of the time to the answer: runs vary independently, each by its spread. */
function deviationMs({ spread, runningMs, queuedAheadMs, serviceMs, fullMs }: DispatchCandidate): number {
  // What waits is about queuedAhead / full runs of full length.
  const variance = runningMs * runningMs + serviceMs * serviceMs + queuedAheadMs * fullMs;
  return (spread / p95) * Math.sqrt(variance);
}

/** The z with P(N(0, 1) ≤ z) = p, for 0.5 ≤ p < 1: Abramowitz and Stegun 26.2.23, error below 4.5e-4. */
export function normalQuantile(p: number): number {
  const t = Math.sqrt(-2 * Math.log(1 - p));
  return t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
}
