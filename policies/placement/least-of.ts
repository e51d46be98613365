/** The candidate with the least of something, the search that most dispatch rules are. */
import type { DispatchCandidate, DispatchRequest, FleetView } from '#core/scheduling/dispatch-view.js';
import { NONE } from '#core/scheduling/dispatch-view.js';

/** Less is better; Infinity is never chosen. */
export type Measure = (candidate: DispatchCandidate, request: DispatchRequest, fleet: FleetView) => number;

/**
 * Index of the unmasked candidate with the least measure; `NONE` when there is none. Among equals the first from `start` on,
 * so that equal replicas take turns when the caller moves the start.
 */
export function leastOf(
  candidates: readonly DispatchCandidate[],
  request: DispatchRequest,
  fleet: FleetView,
  start: number,
  measure: Measure,
): number {
  const count = candidates.length;
  let best = NONE;
  let least = Infinity;
  for (let step = 0; step < count; step += 1) {
    const index = (start + step) % count;
    const candidate = candidates[index] as DispatchCandidate;
    if (candidate.masked !== '') continue;
    const value = measure(candidate, request, fleet);
    if (value < least || (best === NONE && value === least)) {
      best = index;
      least = value;
    }
  }
  return best;
}

/** What is left of the target, ms; negative when it has passed. */
export function leftMs({ sloMs, nowMs, arrivedMs }: DispatchRequest): number {
  return sloMs - (nowMs - arrivedMs);
}
