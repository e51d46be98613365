/**
 * Clipper's rule: the cap of a model's batches grows by one with every batch that was full to the cap and in time, and
 * shrinks to a share when one was late. Takes what waits up to the cap, without delay.
 */
import type { BatchingPolicy, LaunchView } from './batching-policy.js';
import { longestWaiting } from './longest-waiting.js';

export interface AimdBatchingOptions {
  /** What a late batch leaves of the cap, above 0, below 1, default 0.9. */
  readonly shrink?: number;
}

export function aimdBatching({ shrink = 0.9 }: AimdBatchingOptions = {}): BatchingPolicy {
  const caps = new WeakMap<LaunchView, number>();
  return {
    name: 'aimd',
    decidesAlone: true,
    choose(views, _nowMs, choice): void {
      choice.queue = longestWaiting(views);
      choice.untilMs = Infinity;
      choice.itemsMax = Math.floor(caps.get(views[choice.queue] as LaunchView) ?? 1);
    },
    ended(view, items, inTime): void {
      const cap = caps.get(view) ?? 1;
      if (!inTime) caps.set(view, Math.max(1, cap * shrink));
      else if (items >= Math.floor(cap)) caps.set(view, Math.min(view.itemsMax, cap + 1));
    },
  };
}
