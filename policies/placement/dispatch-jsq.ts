/**
 * Join the shortest queue: fewest items sent to the device and not answered, whatever their model and the device's speed. The
 * classic for equal servers; on unlike ones it overloads the slow.
 */
import { type DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { leastOf, type Measure } from './least-of.js';

export function joinShortestQueue(): DispatchPolicy {
  let turn = 0;
  return {
    name: 'jsq',
    choose: (request, candidates, fleet) => {
      turn = (turn + 1) % 65_536;
      return leastOf(candidates, request, fleet, turn, measure);
    },
  };
}

const measure: Measure = ({ deviceItems }) => deviceItems;
