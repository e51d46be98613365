/**
 * Power of two choices on expected time: of two replicas drawn by chance, the one that would be done sooner. Cheaper than
 * looking at all, and senders with stale figures do not all run to the same replica.
 *
 * With unlike devices the queue length alone would be wrong, hence the expected time.
 */
import type { InferenceRequest } from '#core/inference.js';
import type { Candidate, Picker } from '#core/picker.js';
import type { Random } from '#ports/random.js';
import { expectedMs, fastestMsPerItem, mayTake } from './placement-least-work.js';

export function powerOfTwoPicker(random: Random): Picker {
  return {
    policy: 'power-of-two',
    pick(
      request: InferenceRequest,
      candidates: readonly Candidate[],
      nowMs: number,
      exclude: ReadonlySet<string>,
    ): number {
      let able = 0;
      for (let index = 0; index < candidates.length; index += 1) {
        if (mayTake(candidates[index] as Candidate, exclude, nowMs)) able += 1;
      }
      if (able === 0) return -1;
      const first = nthAble(candidates, exclude, nowMs, random.below(able));
      if (able === 1) return first;
      // The second draw leaves out the first, so that the two differ.
      const drawn = random.below(able - 1);
      let second = nthAble(candidates, exclude, nowMs, drawn);
      if (second >= first) second = nthAble(candidates, exclude, nowMs, drawn + 1);
      const fastest = fastestMsPerItem(candidates);
      const firstMs = expectedMs(candidates[first] as Candidate, request.items, fastest);
      const secondMs = expectedMs(candidates[second] as Candidate, request.items, fastest);
      return secondMs < firstMs ? second : first;
    },
  };
}

/** Index of the n-th candidate (from 0) that may take the request. */
function nthAble(candidates: readonly Candidate[], exclude: ReadonlySet<string>, nowMs: number, nth: number): number {
  let seen = 0;
  for (let index = 0; index < candidates.length; index += 1) {
    if (!mayTake(candidates[index] as Candidate, exclude, nowMs)) continue;
    if (seen === nth) return index;
    seen += 1;
  }
  return -1;
}
