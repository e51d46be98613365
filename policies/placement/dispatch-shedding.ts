/**
 * Refuses what will be late anyway: a rule's choice stands while any candidate would be in time; when none would, the request is
 * shed where its class says so. Overload then costs those that cannot be helped, and not everybody behind them.
 */
import { expectedMs, SHED, type DispatchCandidate, type DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { leftMs } from './least-of.js';

export function shedding(rule: DispatchPolicy): DispatchPolicy {
  return {
    name: `${rule.name}+shed`,
    choose: (request, candidates, fleet, random) => {
      const index = rule.choose(request, candidates, fleet, random);
      if (index < 0 || !request.mayShed) return index;
      const limitMs = leftMs(request);
      for (let other = 0; other < candidates.length; other += 1) {
        const candidate = candidates[other] as DispatchCandidate;
        if (candidate.masked === '' && expectedMs(candidate) <= limitMs) return index;
      }
      return SHED;
    },
  };
}
