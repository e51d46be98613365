/**
 * The control limit of a solved queue: launch as soon as so many wait as the semi-Markov decision process of one queue with
 * Poisson arrivals says (smdp-limits.ts), for the arrival rate seen of late. Weighs the requests' time against the device's.
 *
 * Limits are solved once for each queue and rate, in steps of a quarter, at most one a second. It knows neither targets nor
 * the other models of the device; a head that would miss its target by waiting is not waited with.
 */
import type { BatchingPolicy, LaunchView } from './batching-policy.js';
import { solveSmdp } from './smdp-limits.js';

export interface SmdpBatchingOptions {
  /** Milliseconds of requests' waiting that a millisecond of the device is worth, 0 or more, default 4. */
  readonly runWeight?: number;
}

/** Longest batch that is solved for, items: the time to solve grows with its square. */
const itemsMax = 32;
const solveAgainMs = 1000;
const rateStep = 1.25;
/** Time over which the arrival rate is averaged, ms. */
const rateMs = 2000;

interface Known {
  /** Items per ms, recent mean. */
  perMs: number;
  queued: number;
  seenMs: number;
  launchedItems: number;
  /** Step of the rate that `limit` is for; NaN before the first. */
  step: number;
  limit: number;
  solvedMs: number;
  readonly limits: Map<number, number>;
  /** Arrival of the head, and when it is not kept waiting any more (ms). */
  headMs: number;
  giveUpMs: number;
}

export function smdpBatching({ runWeight = 4 }: SmdpBatchingOptions = {}): BatchingPolicy {
  const known = new WeakMap<LaunchView, Known>();

  function look(view: LaunchView, nowMs: number): Known {
    let about = known.get(view);
    if (about === undefined) {
      about = {
        ...{ perMs: 0, queued: 0, seenMs: nowMs, launchedItems: 0, step: Number.NaN, limit: 1, solvedMs: -Infinity },
        ...{ limits: new Map(), headMs: Number.NaN, giveUpMs: -Infinity },
      };
      known.set(view, about);
    }
    const arrived = Math.max(0, view.queuedItems - about.queued + about.launchedItems);
    const elapsedMs = nowMs - about.seenMs;
    if (elapsedMs > 0) {
      const left = Math.exp(-elapsedMs / rateMs);
      about.perMs = about.perMs * left + (arrived / elapsedMs) * (1 - left);
      about.seenMs = nowMs;
      about.queued = view.queuedItems;
      about.launchedItems = 0;
    }
    const step = Math.round(Math.log(about.perMs) / Math.log(rateStep));
    if (step !== about.step && step > -Infinity && view.runMs(1) > 0) {
      let limit = about.limits.get(step);
      if (limit === undefined && nowMs - about.solvedMs >= solveAgainMs) {
        limit = limitOf(view, rateStep ** step, runWeight);
        about.limits.set(step, limit);
        about.solvedMs = nowMs;
      }
      if (limit !== undefined) {
        about.limit = limit;
        about.step = step;
      }
    }
    return about;
  }

  return {
    name: `smdp:${runWeight}`,
    decidesAlone: true,
    choose(views, nowMs, choice): void {
      choice.queue = -1;
      choice.itemsMax = Infinity;
      choice.untilMs = Infinity;
      let bestArrivedMs = Infinity;
      for (let index = 0; index < views.length; index += 1) {
        const view = views[index] as LaunchView;
        const about = look(view, nowMs);
        if (about.headMs !== view.oldestArrivedMs) {
          about.headMs = view.oldestArrivedMs;
          about.giveUpMs = view.oldestArrivedMs + waitMsMax(about);
        }
        const latestMs = view.nearestTargetMs - view.runMs(Math.min(view.queuedItems, view.itemsMax));
        const untilMs = Math.min(latestMs, about.giveUpMs);
        if (view.queuedItems < about.limit && nowMs < untilMs) {
          choice.untilMs = Math.min(choice.untilMs, untilMs);
          continue;
        }
        if (view.oldestArrivedMs >= bestArrivedMs) continue;
        choice.queue = index;
        bestArrivedMs = view.oldestArrivedMs;
      }
      const view = views[choice.queue];
      const about = view === undefined ? undefined : known.get(view);
      if (view !== undefined && about !== undefined) {
        about.launchedItems += Math.min(view.queuedItems, view.itemsMax);
      }
    },
  };
}

/** Three times what the limit takes to come about: when arrivals cease, nobody waits for them for ever. */
function waitMsMax({ limit, perMs }: Known): number {
  return perMs > 0 ? (3 * limit) / perMs : 0;
}

function limitOf(view: LaunchView, perMs: number, runWeight: number): number {
  const runMs = Array.from({ length: Math.min(itemsMax, view.itemsMax) }, (_, at) => view.runMs(at + 1));
  const fullMs = runMs.at(-1) ?? 0;
  // Beyond what it can serve there is always a full batch, and no long run to solve for.
  if (perMs * fullMs >= 0.98 * runMs.length) return runMs.length;
  return solveSmdp({ runMs, perMs, runWeight }).limit;
}
