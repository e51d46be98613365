/**
 * How long one attempt may take before another replica is tried: from what such attempts take, not from the deadline, so
 * that a host that stands still costs a request little of the time it has.
 */
import type { Candidate } from '../picker.js';
import { linkCostMs, queueLeftMs } from './standing.js';

export interface AttemptRules {
  /** Predicted time × factor is the limit. 1 to 100. */
  readonly factor: number;
  /** Least limit towards another host, ms: pauses of processes and networks are no failures. */
  readonly floorMs: number;
  /** Least limit towards this host's own devices, ms: their executors are watched already. */
  readonly localFloorMs: number;
  readonly ceilMs: number;
  /** Limit while nothing was measured, ms. */
  readonly unmeasuredMs: number;
}

export const defaultAttemptRules: AttemptRules = {
  factor: 4,
  floorMs: 250,
  localFloorMs: 1000,
  ceilMs: 60_000,
  unmeasuredMs: 1000,
};

/** Milliseconds until the replica would have answered a request of so many items, by what is known; 0 when nothing is. */
export function predictedMs(candidate: Candidate, items: number, nowMs: number): number {
  const { load, standing } = candidate;
  if (standing === undefined) return (load.itemsInFlight + items) * load.msPerItem;
  const ownMs = load.itemsInFlight * load.msPerItem;
  return linkCostMs(standing.host, nowMs) + Math.max(ownMs, queueLeftMs(standing, nowMs)) + items * load.msPerItem;
}

/**
 * Milliseconds an attempt may take, counted from now; Infinity for as long as the request itself. With a deadline the
 * attempt leaves half the time to another one, unless it needs more by what is known.
 */
export function attemptLimitMs(
  rules: AttemptRules,
  candidate: Candidate,
  request: { readonly items: number; readonly deadlineMs: number },
  nowMs: number,
): number {
  const { standing } = candidate;
  if (standing === undefined) return Infinity;
  const likelyMs = Math.max(predictedMs(candidate, request.items, nowMs), standing.attemptMs);
  const floorMs = standing.host.local ? rules.localFloorMs : rules.floorMs;
  const wantedMs =
    standing.attemptMs === 0
      ? rules.unmeasuredMs
      : Math.max(likelyMs * rules.factor, standing.attemptMs + 4 * standing.deviationMs);
  const limitMs = Math.min(rules.ceilMs, Math.max(floorMs, wantedMs));
  const remainingMs = request.deadlineMs - nowMs;
  if (limitMs <= remainingMs / 2) return limitMs;
  // A second attempt makes sense only if both fit in the time that is left.
  return likelyMs * 2 <= remainingMs / 2 ? remainingMs / 2 : Infinity;
}
