/** Round robin: ready replicas take turns, whatever they can do. A baseline, and right for replicas that are all alike. */
import type { InferenceRequest } from '#core/inference.js';
import type { Candidate, Picker } from '#core/picker.js';
import { mayTake } from './placement-least-work.js';

export function roundRobinPicker(): Picker {
  let turn = 0;
  return {
    policy: 'round-robin',
    pick(
      _request: InferenceRequest,
      candidates: readonly Candidate[],
      nowMs: number,
      exclude: ReadonlySet<string>,
    ): number {
      for (let step = 0; step < candidates.length; step += 1) {
        const index = (turn + step) % candidates.length;
        if (!mayTake(candidates[index] as Candidate, exclude, nowMs)) continue;
        turn = index + 1;
        return index;
      }
      return -1;
    },
  };
}
