/**
 * Shortest expected delay, earliest finish: the candidate that would answer soonest, its own service included. What every rule
 * here falls back to when no candidate is in time.
 */
import { expectedMs, type DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { leastOf, type Measure } from './least-of.js';

export function shortestExpectedDelay(): DispatchPolicy {
  let turn = 0;
  return {
    name: 'sed',
    choose: (request, candidates, fleet) => {
      turn = (turn + 1) % 65_536;
      return leastOf(candidates, request, fleet, turn, measure);
    },
  };
}

const measure: Measure = expectedMs;
