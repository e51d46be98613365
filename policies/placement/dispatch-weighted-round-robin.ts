/**
 * Candidates in turn, each as often as its speed with full batches says: items of the largest batch over its time. Smooth, as
 * nginx does it: every candidate earns its weight, the richest is chosen and pays the sum.
 */
import { NONE, type DispatchCandidate, type DispatchPolicy } from '#core/scheduling/dispatch-view.js';

export function weightedRoundRobin(): DispatchPolicy {
  /** Credit by model and device. */
  const credits = new Map<string, Float64Array>();
  return {
    name: 'wrr',
    choose: ({ model }, candidates) => {
      let credit = credits.get(model);
      let most = 0;
      for (let index = 0; index < candidates.length; index += 1) {
        most = Math.max(most, (candidates[index] as DispatchCandidate).device);
      }
      if (credit === undefined || credit.length <= most) {
        const grown = new Float64Array(2 * most + 8);
        if (credit !== undefined) grown.set(credit);
        credits.set(model, (credit = grown));
      }
      let best = NONE;
      let sum = 0;
      let richest = -Infinity;
      for (let index = 0; index < candidates.length; index += 1) {
        const { masked, device, itemsMax, fullMs } = candidates[index] as DispatchCandidate;
        if (masked !== '') continue;
        const weight = fullMs > 0 ? itemsMax / fullMs : 1;
        const own = (credit[device] as number) + weight;
        credit[device] = own;
        sum += weight;
        if (own > richest) {
          best = index;
          richest = own;
        }
      }
      if (best !== NONE) {
        const { device } = candidates[best] as DispatchCandidate;
        credit[device] = (credit[device] as number) - sum;
      }
      return best;
    },
  };
}
