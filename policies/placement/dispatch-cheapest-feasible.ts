/**
 * Cheapest feasible, CF(φ): of the candidates that would answer within the share φ of the target, the one to whose device the
 * request adds the least cost; of equally cheap ones the soonest. When none would, the soonest of all.
 *
 * The best of the simple rules wherever it was measured, and therefore the default and what learned policies fall back to.
 * Where a candidate's price is not known costs cannot be compared: then it is the shortest expected delay.
 */
import {
  busyUsd,
  expectedMs,
  marginalUsd,
  NONE,
  type DispatchCandidate,
  type DispatchPolicy,
} from '#core/scheduling/dispatch-view.js';
import { leftMs } from './least-of.js';

export interface CheapestFeasibleOptions {
  /**
   * Share of the target that predictions may use up, above 0, default 0.6. Lower: earlier on fast and dear devices, fewer
   * misses when predictions err; higher: cheaper.
   */
  readonly share?: number;
}

export const feasibleShareDefault = 0.6;

export function cheapestFeasible(options: CheapestFeasibleOptions = {}): DispatchPolicy {
  const share = options.share ?? feasibleShareDefault;
  let turn = 0;
  return {
    name: `cheapest-feasible:${share}`,
    choose: (request, candidates, fleet) => {
      turn = (turn + 1) % 65_536;
      const count = candidates.length;
      const spentMs = request.nowMs - request.arrivedMs;
      const limitMs = share * request.sloMs - spentMs;
      let cheapest = NONE;
      let leastUsd = Infinity;
      let cheapestMs = Infinity;
      let soonest = NONE;
      let leastMs = Infinity;
      let pricesKnown = true;
      for (let step = 0; step < count; step += 1) {
        const index = (turn + step) % count;
        const candidate = candidates[index] as DispatchCandidate;
        if (candidate.masked !== '') continue;
        const ms = expectedMs(candidate);
        if (ms < leastMs || soonest === NONE) {
          soonest = index;
          leastMs = ms;
        }
        if (busyUsd(candidate, 1, fleet) <= 0) pricesKnown = false;
        if (ms > limitMs) continue;
        const usd = marginalUsd(candidate, fleet);
        if (usd < leastUsd || (usd === leastUsd && ms < cheapestMs)) {
          cheapest = index;
          leastUsd = usd;
          cheapestMs = ms;
        }
      }
      return cheapest === NONE || !pricesKnown || leftMs(request) <= 0 ? soonest : cheapest;
    },
  };
}
