/**
 * Waits a fixed time for companions: a queue is launched when it holds a full batch, or its head has waited that long.
 * Among several that are due, the most urgent, then the one that has waited longest.
 */
import { intarsiaError } from '#core/errors.js';
import type { BatchingPolicy, LaunchView } from './batching-policy.js';

export interface DelayBatchingOptions {
  /** Milliseconds from the head's arrival, 0 or more, default 5. Longer: fuller batches, cheaper and later answers. */
  readonly delayMs?: number;
}

export function delayBatching(options: DelayBatchingOptions = {}): BatchingPolicy {
  const delayMs = options.delayMs ?? 5;
  if (!(delayMs >= 0)) throw intarsiaError('CONFIG_INVALID', `a batching delay must be 0 ms or more; it is ${delayMs}`);
  return {
    name: `delay:${delayMs}`,
    decidesAlone: true,
    choose(views, nowMs, choice): void {
      choice.queue = -1;
      choice.itemsMax = Infinity;
      choice.untilMs = Infinity;
      let bestUrgency = Infinity;
      let bestArrivedMs = Infinity;
      for (let index = 0; index < views.length; index += 1) {
        const view = views[index] as LaunchView;
        const arrivedMs = view.oldestArrivedMs;
        if (view.queuedItems < view.itemsMax && nowMs < arrivedMs + delayMs) {
          choice.untilMs = Math.min(choice.untilMs, arrivedMs + delayMs);
          continue;
        }
        if (view.urgency > bestUrgency || (view.urgency === bestUrgency && arrivedMs >= bestArrivedMs)) continue;
        choice.queue = index;
        bestUrgency = view.urgency;
        bestArrivedMs = arrivedMs;
      }
    },
  };
}
