/**
 * The decision a batching policy makes, each time a device has a free permit and a model has work.
 *
 * Observed: a `LaunchView` for every model queue that has work and a free instance: length in requests, items and bytes;
 *   moment of the oldest arrival, of the nearest deadline and of the nearest target (ms on the host's clock); urgency class;
 *   items of the largest batch; expected milliseconds of a run by its items, as measured on this device.
 * May be chosen: one of the queues with a cap on the batch's items, or to leave the permit free until a moment. What does
 *   not fit (a batch above the model's own limit, a request that has expired) is masked out below, never punished.
 * Rewarded (for policies that learn): answers within their deadline, less the cost of the run. Example: a run of 8 items and
 *   4 ms at 0.36 USD an hour costs 4e-7 USD, 5e-8 USD an item.
 * Comes from: the device's own queues and clock, nothing remote, nothing older than this turn.
 *
 * A policy is called on the hot path: synchronous, no allocation, no logging. It writes its choice into `choice`.
 */
import type { QueueView } from '#core/inference.js';

export interface LaunchView extends QueueView {
  /** Urgency between models, 0 (most) to 1: the upper half of a model's priority levels lies below 0.5, no levels are 0.5. */
  readonly urgency: number;
  /** Items of the largest batch the model takes. */
  readonly itemsMax: number;
  /**
   * Earliest moment (ms, monotonic) by which one of the first waiting requests hopes for its answer: its deadline, or its
   * arrival and its objective, whichever comes first; Infinity when none hopes for anything.
   */
  readonly nearestTargetMs: number;
  /** Milliseconds a run with so many items is expected to take on this device; 0 while nothing was measured. */
  runMs(items: number): number;
  /** Run times come from a table, not from the runs so far: small differences between sizes mean something. */
  readonly isProfiled: boolean;
}

/** Mutable, owned by the caller, reused from call to call. */
export interface LaunchChoice {
  /** Index of the queue whose batch is formed next; -1 leaves the permit free. */
  queue: number;
  /** Most items the batch may hold, beside the model's own limit. */
  itemsMax: number;
  /** With -1: when to ask again (ms). */
  untilMs: number;
}

export interface BatchingPolicy {
  /** Goes into the decision log. */
  readonly name: string;
  /** Whether it is asked when one queue alone has work: true for policies that wait or cap batches. */
  readonly decidesAlone: boolean;
  /** `views` holds at least one. */
  choose(views: readonly LaunchView[], nowMs: number, choice: LaunchChoice): void;
  /** Whether requests whose deadline would pass even in a run of their own, begun now, are refused rather than run. */
  readonly sheds?: boolean;
  /** A batch of the queue was answered: whether all of its requests were in time. For policies that learn from it. */
  ended?(view: LaunchView, items: number, inTime: boolean): void;
}
