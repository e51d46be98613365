/**
 * Deadline-capped batches: the queue whose head must begin soonest is launched, with as many items as can run without the
 * head missing its target, and without the head of the most urgent other queue having to begin later than it can. Where run
 * times are known from a table, of the sizes that fit the smallest that is about as efficient as any: where batches gain
 * nothing, nobody waits for one. Measured times of a few runs say too little for that: there the largest that fits.
 *
 * Never waits. What is late anyway is not held against anybody: it takes part in the most efficient batch. Queues without
 * any target go behind those with one, in the order that the default rule (batching-triton.ts) has, and in its batches.
 */
import type { BatchingPolicy, LaunchView } from './batching-policy.js';

/** Milliseconds after which urgency no longer counts between queues that must begin equally soon. */
const agingMs = 1000;
/** A size this close to the least time per item counts as efficient. */
const efficientWithin = 1.02;

export function deadlineCapBatching(): BatchingPolicy {
  return {
    name: 'deadline-cap',
    decidesAlone: true,
    choose(views, nowMs, choice): void {
      let best = 0;
      let bestMs = Infinity;
      let bestUrgency = Infinity;
      let bestArrivedMs = Infinity;
      for (let index = 0; index < views.length; index += 1) {
        const view = views[index] as LaunchView;
        // Who is late already is as urgent as who must begin now, or those behind him would become late, too.
        const beginMs = Math.max(nowMs, latestBeginMs(view));
        if (beginMs > bestMs) continue;
        const arrivedMs = view.oldestArrivedMs;
        const urgency = nowMs - arrivedMs > agingMs ? 0 : view.urgency;
        const isBehind = urgency > bestUrgency || (urgency === bestUrgency && arrivedMs >= bestArrivedMs);
        if (beginMs === bestMs && isBehind) continue;
        best = index;
        bestMs = beginMs;
        bestUrgency = urgency;
        bestArrivedMs = arrivedMs;
      }
      let otherMs = Infinity;
      for (let index = 0; index < views.length; index += 1) {
        if (index === best) continue;
        const latestMs = latestBeginMs(views[index] as LaunchView);
        if (latestMs >= nowMs && latestMs < otherMs) otherMs = latestMs;
      }
      choice.queue = best;
      choice.untilMs = Infinity;
      choice.itemsMax = itemsOf(views[best] as LaunchView, nowMs, otherMs);
    },
  };
}

/** When a run of the head alone must begin for it to be in time. */
function latestBeginMs(view: LaunchView): number {
  return view.nearestTargetMs - view.runMs(1);
}

function itemsOf(view: LaunchView, nowMs: number, otherMs: number): number {
  const soloMs = view.runMs(1);
  if (soloMs === 0) return Infinity;
  const ownMs = view.nearestTargetMs - nowMs;
  if (ownMs === Infinity && otherMs === Infinity) return Infinity;
  const limitMs = Math.min(ownMs < soloMs ? Infinity : ownMs, otherMs - nowMs);
  const count = Math.min(view.queuedItems, view.itemsMax);
  let items = 1;
  let leastMs = soloMs;
  for (let size = 2; size <= count; size += 1) {
    const ms = view.runMs(size);
    if (ms > limitMs) break;
    if (view.isProfiled && ms / size > leastMs / efficientWithin) continue;
    items = size;
    leastMs = ms / size;
  }
  return items;
}
