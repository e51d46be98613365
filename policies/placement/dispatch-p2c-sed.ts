/** The better of two random candidates by expected time to the answer: as robust as by length, and it sees speeds. */
import { expectedMs, type DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { betterOfTwo } from './better-of-two.js';

export function powerOfTwoDelays(): DispatchPolicy {
  return betterOfTwo('p2c-sed', expectedMs);
}
