/**
 * What the device needs of a model's queue, whichever scheduler fills it: `BatchQueue` (dynamic batching, or one request
 * at a time) and `SequenceScheduler` (stateful models). Both are pure: time is an argument, and what should happen comes
 * back as a value.
 *
 * A `Waiter` is whatever the owner wants back with a request; the queue never looks at it.
 */
import type { Datatype } from './datatype.js';
import type { IntarsiaError } from './errors.js';
import type { RequestId } from './ids.js';
import type { InferenceRequest, ReleaseReason } from './inference.js';
import type { Shape, Tensor } from './tensor.js';

/** A request that waits, or that left with a batch. */
export interface QueuedRequest<Waiter> {
  readonly request: InferenceRequest;
  readonly waiter: Waiter;
  /** When the queue took it (ms, monotonic). */
  readonly enqueuedMs: number;
}

/** A tensor that the server adds to a run; `chunks` hold one piece a request, in the order of the batch. */
export interface AddedInput {
  readonly name: string;
  readonly datatype: Datatype;
  readonly shape: Shape;
  readonly chunks: readonly Uint8Array[];
}

/** Requests that run together. The owner runs it, then hands it back to `complete`, whatever came of it. */
export interface Batch<Waiter> {
  readonly kind: 'batch';
  readonly entries: readonly QueuedRequest<Waiter>[];
  /** Items of all requests together. */
  readonly items: number;
  readonly reason: ReleaseReason;
  /** Controls and states of a sequence model; empty otherwise. */
  readonly addedInputs: readonly AddedInput[];
}

/** What `form` found: a batch, a moment (ms, monotonic) before which waiting pays, or nothing to do. */
export type Formed<Waiter> =
  Batch<Waiter> | { readonly kind: 'wait'; readonly untilMs: number } | { readonly kind: 'empty' };

export const nothingToForm: { readonly kind: 'empty' } = { kind: 'empty' };

export interface FormOptions {
  /** Milliseconds a run is expected to take; a deadline ends the wait that long before it passes. */
  readonly serviceMs: number;
  /** Most items, beside the model's own limit. A single request may be larger. */
  readonly itemsMax: number;
  /** Take what is there, whatever the delay: the queue is being emptied. */
  readonly flush: boolean;
}

/** A request that left without an answer, and what to tell it. */
export interface Dropped<Waiter> {
  readonly entry: QueuedRequest<Waiter>;
  readonly error: IntarsiaError;
}

export interface ModelQueue<Waiter> {
  readonly queuedRequests: number;
  readonly queuedItems: number;
  readonly queuedBytes: number;
  /** Most urgent priority level that waits, 1 the highest; 0 when the model has no levels or nothing waits. */
  readonly topLevel: number;
  /** When the oldest waiting request arrived (ms); Infinity when empty. */
  oldestArrivedMs(): number;
  /** Earliest deadline among the first waiting requests, up to 64 of them (ms); Infinity when none. */
  nearestDeadlineMs(): number;
  /**
   * Earliest moment by which one of the first waiting requests of each level hopes for its answer (ms): its deadline, or its
   * arrival and its objective; Infinity when none does.
   */
  nearestTargetMs(): number;
  /** Nothing earlier than this needs `expire` (ms); Infinity when nothing ever will. */
  readonly nextExpiryMs: number;
  /** Takes a request, or says why not. The queue keeps nothing of a refused one. */
  offer(request: InferenceRequest, waiter: Waiter, nowMs: number): IntarsiaError | undefined;
  /** Takes a waiting request out, and with it what cannot run without it. Empty when it does not wait here. */
  cancel(id: RequestId, nowMs: number): readonly Dropped<Waiter>[];
  /** Takes out everything whose timeout or deadline is at or before `nowMs`. Call before `form`. */
  expire(nowMs: number): readonly Dropped<Waiter>[];
  /** Takes out what would pass its deadline even if a run of `leadMs` began now. Sequences are never cut short. */
  shed(nowMs: number, leadMs: number): readonly Dropped<Waiter>[];
  form(nowMs: number, options: FormOptions): Formed<Waiter>;
  /**
   * A batch is over. `states[i]` are the state outputs of request i, named by output; undefined when the run failed.
   * Only sequence models care.
   */
  complete(batch: Batch<Waiter>, states: readonly (readonly Tensor[])[] | undefined, nowMs: number): void;
  /** Takes everything out, for an owner that gives up. */
  clear(): readonly QueuedRequest<Waiter>[];
}
