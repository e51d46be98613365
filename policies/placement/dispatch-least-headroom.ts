/**
 * Best fit: of the candidates that are in time the one with the least to spare, so that fast ones stay free for urgent requests.
 * When none is in time, the soonest. What llm-d does by default with its latency predictor.
 */
import { expectedMs, NONE, type DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { leastOf, leftMs, type Measure } from './least-of.js';

export function leastHeadroom(): DispatchPolicy {
  let turn = 0;
  return {
    name: 'least-headroom',
    choose: (request, candidates, fleet) => {
      turn = (turn + 1) % 65_536;
      const fitting = leastOf(candidates, request, fleet, turn, headroom);
      if (fitting === NONE || expectedMs(candidates[fitting] as (typeof candidates)[number]) <= leftMs(request)) {
        return fitting;
      }
      return leastOf(candidates, request, fleet, turn, expectedMs);
    },
  };
}

const headroom: Measure = (candidate, request) => {
  const spareMs = leftMs(request) - expectedMs(candidate);
  return spareMs >= 0 ? spareMs : Infinity;
};
