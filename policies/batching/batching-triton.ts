/**
 * Who launches next: the most urgent class first, then the queue whose head has waited longest. Each model's own batch
 * former says how many leave and whether waiting pays; this policy never waits by itself.
 *
 * A head that has waited for longer than `agingMs` counts as most urgent, so that a stream of urgent requests to one model
 * does not starve another.
 */
import type { BatchingPolicy, LaunchChoice, LaunchView } from './batching-policy.js';

export interface TritonBatchingOptions {
  /**
   * Milliseconds after which urgency no longer counts between models, above 0, default 1,000. Lower: fairer between models;
   * higher: urgent classes keep their lead for longer under overload.
   */
  readonly agingMs?: number;
}

export function tritonBatching(options: TritonBatchingOptions = {}): BatchingPolicy {
  const agingMs = options.agingMs ?? 1000;
  return {
    name: 'triton',
    decidesAlone: false,
    choose(views: readonly LaunchView[], nowMs: number, choice: LaunchChoice): void {
      let best = 0;
      let bestUrgency = Infinity;
      let bestArrivedMs = Infinity;
      for (let index = 0; index < views.length; index += 1) {
        const view = views[index] as LaunchView;
        const urgency = nowMs - view.oldestArrivedMs > agingMs ? 0 : view.urgency;
        if (urgency > bestUrgency || (urgency === bestUrgency && view.oldestArrivedMs >= bestArrivedMs)) continue;
        best = index;
        bestUrgency = urgency;
        bestArrivedMs = view.oldestArrivedMs;
      }
      choice.queue = best;
      choice.itemsMax = Infinity;
      choice.untilMs = Infinity;
    },
  };
}
