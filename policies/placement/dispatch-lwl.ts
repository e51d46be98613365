/**
 * Least work left: the device that would be idle soonest, without this request. It sees speeds in what waits, but not how long
 * this request itself takes there.
 */
import { type DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { leastOf, type Measure } from './least-of.js';

export function leastWorkLeft(): DispatchPolicy {
  let turn = 0;
  return {
    name: 'lwl',
    choose: (request, candidates, fleet) => {
      turn = (turn + 1) % 65_536;
      return leastOf(candidates, request, fleet, turn, measure);
    },
  };
}

const measure: Measure = ({ netMs, workMs }) => netMs + workMs;
