/**
 * Rate matching (as Mélange, Proteus and Helix do it): the strongest of the rules that think slowly. Every few seconds a fluid
 * programme is solved for the rates seen since, and requests follow its shares by smooth weighted round robin. It knows
 * nothing of queues between two solutions.
 */
import { expectedMs, NONE, type DispatchCandidate, type DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { RatePlan } from '#core/scheduling/rate-plan.js';
import { leastOf } from './least-of.js';

/** Keeps a plan of its own, which fills devices to 90 % unless told otherwise: the rest is for what rates do not show. */
export function rateMatching(busyShare = 0.9): DispatchPolicy {
  const plan = new RatePlan(busyShare);
  const follower = followingPlan(plan);
  return {
    name: follower.name,
    choose: (request, candidates, fleet, random) => {
      plan.observe(request, candidates, fleet);
      const chosen = follower.choose(request, candidates, fleet, random);
      if (chosen >= 0) plan.chose(candidates[chosen] as DispatchCandidate);
      return chosen;
    },
  };
}

/** Follows a plan that somebody else tells of requests and choices. */
export function followingPlan(plan: RatePlan): DispatchPolicy {
  let turn = 0;
  return {
    name: 'milp-rate',
    choose: (request, candidates, fleet) => {
      turn = (turn + 1) % 65_536;
      let best = NONE;
      let richest = 0;
      for (let index = 0; index < candidates.length; index += 1) {
        const candidate = candidates[index] as DispatchCandidate;
        if (candidate.masked !== '' || plan.share(candidate) <= 0) continue;
        const own = plan.credit(candidate);
        if (best === NONE || own > richest) {
          best = index;
          richest = own;
        }
      }
      // Before the first solution, and where the plan drops the model.
      return best === NONE ? leastOf(candidates, request, fleet, turn, expectedMs) : best;
    },
  };
}
