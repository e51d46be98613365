/**
 * The least marginal cost, whatever the delay: shows what ignoring load costs. Not for use.
 */
import { marginalUsd, type DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { leastOf, type Measure } from './least-of.js';

export function cheapest(): DispatchPolicy {
  let turn = 0;
  return {
    name: 'cheap',
    choose: (request, candidates, fleet) => {
      turn = (turn + 1) % 65_536;
      return leastOf(candidates, request, fleet, turn, measure);
    },
  };
}

const measure: Measure = (candidate, _request, fleet) => marginalUsd(candidate, fleet);
