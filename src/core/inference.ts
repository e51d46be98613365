/**
 * One inference request and what becomes of it, as every layer between the protocol and the executor sees it.
 */
import type { Billing } from './billing.js';
import type { IntarsiaError } from './errors.js';
import type { DeviceId, ModelName, ModelVersion, RequestId } from './ids.js';
import type { Receipt } from './receipt.js';
import type { SloClass } from './scheduling/slo-class.js';
import type { SequenceStep } from './sequence-step.js';
import type { StageChain } from './split/stage-route.js';
import type { Tensor } from './tensor.js';

export type { SequenceStep } from './sequence-step.js';

/** A validated request: names, types and shapes fit the model, and the bytes fit the shapes. */
export interface InferenceRequest {
  readonly id: RequestId;
  readonly model: ModelName;
  readonly version: ModelVersion;
  /** In the order of the model's inputs; optional inputs that were left out are absent. */
  readonly inputs: readonly Tensor[];
  /** Names wanted, in the order asked for; empty for all in the model's order. */
  readonly outputs: readonly string[];
  /** Items in the batch dimension; 1 where the model does not batch. Batches are counted in items, never in requests. */
  readonly items: number;
  /** Requests with the same key may share a batch: the shapes without the batch dimension, and the outputs wanted. */
  readonly batchKey: string;
  /** Bytes of all inputs, for the limits of queues. */
  readonly bytes: number;
  /** 0 for the model's default; 1 is the highest. */
  readonly priority: number;
  /** Microseconds the client lets it wait in the queue; 0 for the model's own policy. */
  readonly queueTimeoutUs: number;
  /** Moment on the host's monotonic clock (ms) after which nobody wants the answer; Infinity without one. */
  readonly deadlineMs: number;
  /** Milliseconds from arrival in which the client hopes for an answer; absent without a hope. Missing it fails nothing. */
  readonly sloMs?: number;
  /** How urgent it is, as far as anybody said; absent where nobody did. */
  readonly sloClass?: SloClass;
  readonly sequence?: SequenceStep;
  readonly billing: Billing;
  /** When the gateway had the whole request (ms, monotonic). */
  readonly arrivedMs: number;
  /** Of a request to one stage of a split model: what is to be done with its outputs. Devices do not look at it. */
  readonly then?: StageChain;
  /** Outputs may stay where the device has put them (held-bytes.ts): whoever asked sends them on. Never told to other hosts. */
  readonly leaveOutputs?: true;
}

/** What ran, where, and what it cost. */
/** Key of `InferenceSuccess`; a symbol, because what it names stays on this host when an outcome travels. */
export const releaseOutputs = Symbol('releaseOutputs');

export interface InferenceSuccess {
  readonly ok: true;
  readonly outputs: readonly Tensor[];
  /** May be called once, by whoever knows that nobody reads the outputs any more: their memory is used again. */
  readonly [releaseOutputs]?: (() => void) | undefined;
  readonly receipt: Receipt;
}
export interface InferenceFailure {
  readonly ok: false;
  readonly error: IntarsiaError;
  /** It failed behind the stage that was asked, after all that could be tried there: the stage itself did its part. */
  readonly downstream?: true;
}
/** Each request gets exactly one of the two. */
export type InferenceOutcome = InferenceSuccess | InferenceFailure;

/** Why a batch left its queue; a label of `intarsia_batch_released_total`. */
export type ReleaseReason = 'full' | 'preferred' | 'delay' | 'immediate' | 'deadline' | 'shape' | 'sequence' | 'flush';

/** What a device tells about one of its model queues; input of batching policies and of placement. */
export interface QueueView {
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly device: DeviceId;
  readonly queuedRequests: number;
  readonly queuedItems: number;
  readonly queuedBytes: number;
  /** When the oldest waiting request arrived (ms, monotonic); Infinity when empty. */
  readonly oldestArrivedMs: number;
  /** Earliest deadline among the waiting (ms, monotonic); Infinity when none. */
  readonly nearestDeadlineMs: number;
}
