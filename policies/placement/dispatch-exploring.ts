/**
 * Explores: a small share of decisions goes to a candidate drawn evenly from those that are safe, so that logs can tell what
 * other choices would have come to. Its propensity goes with every choice.
 *
 * Safe is what is unmasked and would be in time; for an interactive request, with at least 30 % of the target to spare. Of more
 * safe candidates than can each get a useful chance the soonest are drawn from.
 */
import {
  expectedMs,
  type ChoiceTrace,
  type DispatchCandidate,
  type DispatchPolicy,
  type DispatchRequest,
} from '#core/scheduling/dispatch-view.js';
import { leftMs } from './least-of.js';

export interface ExploringOptions {
  /** Share of decisions, 0 (never) to 0.1, default 0.01. */
  readonly share?: number;
}

/** Least slack of an interactive request's candidate, share of the target. */
const interactiveSlackMin = 0.3;
/** Least chance of a choice that is worth logging. */
const propensityMin = 0.002;

export function exploring(policy: DispatchPolicy, options: ExploringOptions = {}): DispatchPolicy {
  const share = options.share ?? 0.01;
  const inner = policy.trace;
  const trace: ChoiceTrace = {
    propensity: 1,
    fallback: '',
    ...(inner?.scoreOf === undefined ? {} : { scoreOf: (choice: number) => inner.scoreOf?.(choice) ?? Number.NaN }),
    ...(inner?.writePlan === undefined ? {} : { writePlan: inner.writePlan.bind(inner) }),
  };
  return {
    name: policy.name,
    trace,
    choose: (request, candidates, fleet, random) => {
      const best = policy.choose(request, candidates, fleet, random);
      trace.fallback = policy.trace?.fallback ?? '';
      trace.propensity = 1;
      if (best < 0) return best;
      let safe = 0;
      for (let index = 0; index < candidates.length; index += 1) {
        if (isSafe(candidates[index] as DispatchCandidate, request)) safe += 1;
      }
      const drawn = Math.min(safe, Math.floor(share / propensityMin));
      if (drawn === 0) return best;
      const each = share / drawn;
      if (random.next() >= share) {
        trace.propensity = 1 - share + (rankOf(best, candidates, request) < drawn ? each : 0);
        return best;
      }
      const wanted = random.below(drawn);
      let chosen = 0;
      while (rankOf(chosen, candidates, request) !== wanted) chosen += 1;
      trace.propensity = each + (chosen === best ? 1 - share : 0);
      return chosen;
    },
    finished: (model, sloClass, late, nowMs) => policy.finished?.(model, sloClass, late, nowMs),
  };
}

function isSafe(candidate: DispatchCandidate, request: DispatchRequest): boolean {
  if (candidate.masked !== '') return false;
  const spareMs = leftMs(request) - expectedMs(candidate);
  return spareMs >= (request.class === 'interactive' ? interactiveSlackMin * request.sloMs : 0);
}

/** How many safe candidates are sooner; Infinity for one that is not safe. No two safe ones have the same rank. */
function rankOf(index: number, candidates: readonly DispatchCandidate[], request: DispatchRequest): number {
  const candidate = candidates[index] as DispatchCandidate;
  if (!isSafe(candidate, request)) return Infinity;
  const ms = expectedMs(candidate);
  let rank = 0;
  for (let other = 0; other < candidates.length; other += 1) {
    const each = candidates[other] as DispatchCandidate;
    if (other === index || !isSafe(each, request)) continue;
    const otherMs = expectedMs(each);
    if (otherMs < ms || (otherMs === ms && other < index)) rank += 1;
  }
  return rank;
}
