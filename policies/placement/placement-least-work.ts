/**
 * Capability-normalised least work: the replica on which the request would be done soonest, counting what is ahead of it in
 * that replica's own milliseconds per item. A slow device gets work only when the fast ones are that much busier.
 *
 * A replica that was never measured counts as fast as the fastest known one, so that it is tried. Equal replicas take turns.
 */
import { isIn } from '#core/grid/standing.js';
import type { InferenceRequest } from '#core/inference.js';
import type { Candidate, Picker } from '#core/picker.js';

export function leastWorkPicker(): Picker {
  let turn = 0;
  return {
    policy: 'least-work',
    pick(
      request: InferenceRequest,
      candidates: readonly Candidate[],
      nowMs: number,
      exclude: ReadonlySet<string>,
    ): number {
      const count = candidates.length;
      if (count === 1) return mayTake(candidates[0] as Candidate, exclude, nowMs) ? 0 : -1;
      const fastest = fastestMsPerItem(candidates);
      turn = turn + 1 < count ? turn + 1 : 0;
      let best = -1;
      let bestMs = Infinity;
      for (let step = 0; step < count; step += 1) {
        const index = (turn + step) % count;
        const candidate = candidates[index] as Candidate;
        if (!mayTake(candidate, exclude, nowMs)) continue;
        const workMs = expectedMs(candidate, request.items, fastest);
        if (workMs < bestMs) {
          best = index;
          bestMs = workMs;
        }
      }
      return best;
    },
  };
}

/** Whether the replica is ready, not banned, and has not failed this request already. */
export function mayTake(candidate: Candidate, exclude: ReadonlySet<string>, nowMs: number): boolean {
  const { load, standing } = candidate;
  if (!load.ready || (standing !== undefined && !isIn(standing, nowMs))) return false;
  return exclude.size === 0 || !exclude.has(candidate.replica.id);
}

/** Smallest milliseconds per item among those measured; 1 when none was. */
export function fastestMsPerItem(candidates: readonly Candidate[]): number {
  let fastest = Infinity;
  for (let index = 0; index < candidates.length; index += 1) {
    const { msPerItem } = (candidates[index] as Candidate).load;
    if (msPerItem > 0 && msPerItem < fastest) fastest = msPerItem;
  }
  return fastest === Infinity ? 1 : fastest;
}

/** Milliseconds until the replica would have done what it has and this request as well. */
export function expectedMs(candidate: Candidate, items: number, fastest: number): number {
  const { load } = candidate;
  return (load.itemsInFlight + items) * (load.msPerItem > 0 ? load.msPerItem : fastest);
}
