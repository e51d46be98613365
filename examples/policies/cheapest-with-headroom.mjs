/**
 * A dispatch policy in one file: the cheapest candidate that leaves some of the target as headroom, more of it where run times
 * spread; the soonest where none does. Compare it with the rules:
 *
 *     npx intarsia evaluate --policies ./examples/policies/cheapest-with-headroom.mjs --fleets four --seeds 5
 *
 * The default export makes a policy: it is called once for each run, so that a policy may remember within a run and never
 * beyond it. What `choose` is given is told in src/core/scheduling/dispatch-view.ts and in policies/README.md; the objects are
 * reused for the next decision. Chance comes from `random` alone: then the same seed gives the same run.
 */
const headroom = 0.2;

export default function cheapestWithHeadroom() {
  return {
    name: 'cheapest-with-headroom',
    choose(request, candidates, _fleet, _random) {
      const leftMs = request.arrivedMs + request.sloMs - request.nowMs;
      let cheapest = -1;
      let leastUsd = Infinity;
      let soonest = -1;
      let leastMs = Infinity;
      for (const [index, candidate] of candidates.entries()) {
        // Never a masked one: the mask is the grid's, not the policy's.
        if (candidate.masked !== '') continue;
        const { netMs, runningMs, queuedAheadMs, serviceMs, spread, marginalMs, usdPerHour } = candidate;
        const answerMs = netMs + runningMs + queuedAheadMs + serviceMs * (1 + spread);
        if (answerMs < leastMs) {
          leastMs = answerMs;
          soonest = index;
        }
        const usd = marginalMs * usdPerHour;
        if (answerMs <= (1 - headroom) * leftMs && usd < leastUsd) {
          leastUsd = usd;
          cheapest = index;
        }
      }
      if (cheapest >= 0) return cheapest;
      // -1 refuses, where the request's class allows it; -2 says that everything is masked.
      if (soonest >= 0 && request.mayShed && leastMs > leftMs) return -1;
      return soonest >= 0 ? soonest : -2;
    },
  };
}
