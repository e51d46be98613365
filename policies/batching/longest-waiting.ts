/** The most urgent queue, and of equally urgent ones that whose head has waited longest. */
import type { LaunchView } from './batching-policy.js';

export function longestWaiting(views: readonly LaunchView[]): number {
  let best = 0;
  let bestUrgency = Infinity;
  let bestArrivedMs = Infinity;
  for (let index = 0; index < views.length; index += 1) {
    const { urgency, oldestArrivedMs } = views[index] as LaunchView;
    if (urgency > bestUrgency || (urgency === bestUrgency && oldestArrivedMs >= bestArrivedMs)) continue;
    best = index;
    bestUrgency = urgency;
    bestArrivedMs = oldestArrivedMs;
  }
  return best;
}
