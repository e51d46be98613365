/**
 * Max-weight: the least backlog of the request's own model, in the time a device needs for it in full batches. Keeps every queue
 * that can be kept stable, and gets better against the shortest expected delay the nearer the load is to capacity.
 */
import { type DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { leastOf, type Measure } from './least-of.js';

export function maxWeight(): DispatchPolicy {
  let turn = 0;
  return {
    name: 'max-weight',
    choose: (request, candidates, fleet) => {
      turn = (turn + 1) % 65_536;
      return leastOf(candidates, request, fleet, turn, measure);
    },
  };
}

const measure: Measure = ({ queueItems, fullMs, itemsMax }, { items }) => ((queueItems + items) * fullMs) / itemsMax;
