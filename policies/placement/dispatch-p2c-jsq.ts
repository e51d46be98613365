/** The better of two random candidates by items under way: robust where figures are stale, poor on unlike devices. */
import type { DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { betterOfTwo } from './better-of-two.js';

export function powerOfTwoQueues(): DispatchPolicy {
  return betterOfTwo('p2c-jsq', ({ deviceItems }) => deviceItems);
}
