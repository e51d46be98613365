/**
 * Proteus's rule: wait for companions as long as the head can wait. A queue is due when it holds a full batch, or when a run
 * of all that wait would end just before the head's target; what came too late to be in it stays for the next one.
 *
 * It does not know of the device's other models: where several share a device, waiting costs those that wait behind.
 */
import type { BatchingPolicy, LaunchView } from './batching-policy.js';

/** A run is begun this long (ms) before it must: timers are never early. */
const marginMs = 0.5;

export function proteusBatching(): BatchingPolicy {
  return {
    name: 'proteus',
    decidesAlone: true,
    choose(views, nowMs, choice): void {
      choice.queue = -1;
      choice.itemsMax = Infinity;
      choice.untilMs = Infinity;
      let bestTargetMs = Infinity;
      for (let index = 0; index < views.length; index += 1) {
        const view = views[index] as LaunchView;
        const targetMs = view.nearestTargetMs;
        const items = Math.min(view.queuedItems, view.itemsMax);
        const latestMs = targetMs - view.runMs(items) - marginMs;
        // Without a target nothing says how long to wait; without a measured run nothing says when to begin.
        const waits = items < view.itemsMax && nowMs < latestMs && targetMs < Infinity && view.runMs(1) > 0;
        if (waits) {
          choice.untilMs = Math.min(choice.untilMs, latestMs);
          continue;
        }
        if (choice.queue >= 0 && targetMs >= bestTargetMs) continue;
        choice.queue = index;
        bestTargetMs = targetMs;
        // The newest made the run too long: without it the head is in time.
        const isTooLong = nowMs > latestMs + marginMs && nowMs <= targetMs - view.runMs(items - 1);
        choice.itemsMax = isTooLong && items > 1 ? items - 1 : items;
      }
    },
  };
}
