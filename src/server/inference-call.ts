/**
 * One request on its way: the device's reply address and the transport's ticket in one object.
 *
 * It asks the picker, tells the device, and on a retryable failure tries another replica while deadline and attempts allow.
 * The client is answered exactly once; the request counts as in flight until the device has given it back.
 */
import type { ServedModel } from '#core/catalog.js';
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { InferenceOutcome, InferenceRequest, InferenceSuccess } from '#core/inference.js';
import {
  noParameters,
  type InferParameter,
  type InferRequestMessage,
  type InferResponseMessage,
  type InferTensor,
} from '#core/inference-message.js';
import type { Candidate } from '#core/picker.js';
import { beginOnReplica, candidatesOf, finishOnReplica, type RoutingTable } from '#core/routing-table.js';
import type { Tensor } from '#core/tensor.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { InferReply, InferTicket } from '#ports/inference-gateway.js';
import { noSpan, type Span } from '#ports/tracing.js';
import type { Delivery, ReplyTo } from '#runtime/actor.js';
import { classify } from './classification.js';
import { addReceipt } from './receipt-parameters.js';
import type { DeviceRef, Router } from './router.js';
import type { SequenceRoutes } from './sequence-routes.js';

/** What a call needs of the gateway it belongs to. */
export interface CallHost {
  readonly router: Router;
  readonly clock: Clock;
  readonly sequences: SequenceRoutes;
  readonly receipts: boolean;
  readonly attemptsMax: number;
  readonly onFinished: ((finished: Finished) => void) | undefined;
  begin(bytes: number): void;
  end(bytes: number): void;
}

export interface Finished {
  readonly request: InferenceRequest;
  readonly outcome: InferenceOutcome;
  /** Monotonic milliseconds. */
  readonly finishedMs: number;
}

const nobody: ReadonlySet<string> = new Set();

export function deadlinePassed(waitedMs: number): IntarsiaError {
  return intarsiaError(
    'DEADLINE_EXCEEDED',
    `the deadline passed before an answer was there, after ${waitedMs.toFixed(1)} ms`,
    {
      waitedMs,
    },
  );
}

export interface CallParts {
  readonly gateway: CallHost;
  readonly model: ServedModel;
  readonly message: InferRequestMessage;
  readonly request: InferenceRequest;
  /** The only device that may run it; empty for any. */
  readonly device: string;
  readonly classes: ReadonlyMap<string, number> | undefined;
  readonly bytes: number;
  readonly span: Span;
  readonly reply: InferReply;
}

/** One request under way: the device's reply address, and the transport's ticket. */
export class InferenceCall implements ReplyTo<InferenceOutcome>, InferTicket {
  readonly #parts: CallParts;
  #deadline: Timer | undefined;
  #candidate: Candidate | undefined;
  #device: DeviceRef | undefined;
  #failed: Set<string> | undefined;
  #attempts = 0;
  /** A sequence under way has its state on one device: nobody else can continue it. */
  readonly #attemptsMax: number;
  /** The client has its answer. */
  #answered = false;
  /** A device holds the request and owes an outcome. */
  #held = false;
  /** The device is being told: a failure it answers at once is kept in `#failedInTell` for the loop in `#send`. */
  #inTell = false;
  #failedInTell: IntarsiaError | undefined;

  constructor(parts: CallParts) {
    this.#parts = parts;
    const { sequence } = parts.request;
    this.#attemptsMax = sequence === undefined || sequence.start ? parts.gateway.attemptsMax : 1;
  }

  start(): void {
    const { gateway, bytes, request } = this.#parts;
    gateway.begin(bytes);
    if (request.deadlineMs !== Infinity) {
      this.#deadline = gateway.clock.schedule(request.deadlineMs - gateway.clock.nowMs(), () => this.#expire());
    }
    this.#send(undefined);
  }

  /** The device's outcome. */
  tell(outcome: InferenceOutcome): Delivery {
    if (!this.#held) return 'stopped';
    this.#held = false;
    const { request } = this.#parts;
    const load = this.#candidate?.load;
    if (load !== undefined) {
      const receipt = outcome.ok ? outcome.receipt : undefined;
      const msPerItem =
        receipt === undefined || receipt.batchItems === 0
          ? undefined
          : (receipt.computeInputUs + receipt.computeInferUs + receipt.computeOutputUs + receipt.linkUs) /
            1000 /
            receipt.batchItems;
      finishOnReplica(load, request.items, msPerItem);
    }
    if (this.#answered) this.#release();
    else if (outcome.ok) this.#succeed(outcome);
    else if (outcome.error.retryable && !this.#inTell) this.#send(outcome.error);
    else if (outcome.error.retryable) this.#failedInTell = outcome.error;
    else this.#fail(outcome.error);
    return 'accepted';
  }

  cancel(): void {
    if (this.#answered) return;
    this.#giveUp(intarsiaError('CANCELLED', 'the client cancelled or went away'));
  }

  #expire(): void {
    if (this.#answered) return;
    const { gateway, request } = this.#parts;
    this.#giveUp(deadlinePassed(gateway.clock.nowMs() - request.arrivedMs));
  }

  /** Sends the request to the replica that the picker chooses, and to another when that one does not take it. */
  #send(lastError: IntarsiaError | undefined): void {
    const { gateway, model, request } = this.#parts;
    let error = lastError;
    for (;;) {
      if (error !== undefined) this.#excludeCurrent();
      if (this.#attempts >= this.#attemptsMax) break;
      const nowMs = gateway.clock.nowMs();
      if (nowMs >= request.deadlineMs) {
        error = deadlinePassed(nowMs - request.arrivedMs);
        break;
      }
      const table = gateway.router.current;
      const candidates = candidatesOf(table, model.name, model.version);
      const { sequence } = request;
      let index = sequence === undefined ? -1 : gateway.sequences.find(request, sequence, candidates);
      if (index < 0) index = this.#choose(table, candidates, nowMs);
      const candidate = candidates[index];
      if (candidate === undefined) {
        error ??= noReplica(model, candidates, this.#parts.device);
        break;
      }
      if (sequence !== undefined) gateway.sequences.follow(request, sequence, candidate);
      this.#attempts += 1;
      this.#candidate = candidate;
      this.#device = gateway.router.deviceOf(candidate);
      error = this.#tellDevice(candidate);
      if (error === undefined) return;
    }
    this.#fail(error ?? noReplica(model, [], ''));
  }

  /** Index of the picker's choice, or of the device the client insists on; -1 for none. */
  #choose(table: RoutingTable, candidates: readonly Candidate[], nowMs: number): number {
    const { request, device } = this.#parts;
    const failed = this.#failed ?? nobody;
    if (device === '') return table.picker.pick(request, candidates, nowMs, failed);
    return candidates.findIndex(
      ({ replica, load }) => replica.stages[0]?.device === device && load.ready && !failed.has(replica.id),
    );
  }

  /** Undefined when the device took the request, or has answered it for good already. */
  #tellDevice(candidate: Candidate): IntarsiaError | undefined {
    const device = this.#device;
    const [first] = candidate.replica.stages;
    const name = first?.device ?? 'unknown';
    if (device === undefined) return intarsiaError('DEVICE_UNAVAILABLE', `device ${name} is not there`);
    const { request } = this.#parts;
    const message: DeviceMessage = { type: 'infer', request, replyTo: this };
    beginOnReplica(candidate.load, request.items);
    this.#held = true;
    this.#inTell = true;
    const delivery = device.tell(message);
    this.#inTell = false;
    const error = this.#failedInTell;
    this.#failedInTell = undefined;
    if (delivery === 'accepted' || this.#toldOutcome()) return error;
    this.#held = false;
    finishOnReplica(candidate.load, request.items, undefined);
    return delivery === 'full'
      ? intarsiaError('QUEUE_FULL', `the mailbox of device ${name} is full`)
      : intarsiaError('DEVICE_UNAVAILABLE', `device ${name} has stopped`);
  }

  #toldOutcome(): boolean {
    return !this.#held;
  }

  #excludeCurrent(): void {
    if (this.#candidate === undefined) return;
    this.#failed ??= new Set();
    this.#failed.add(this.#candidate.replica.id);
  }

  #succeed(outcome: InferenceSuccess): void {
    let answer: InferResponseMessage;
    try {
      answer = this.#answerOf(outcome);
    } catch (error) {
      this.#fail(asIntarsiaError(error));
      return;
    }
    this.#answered = true;
    this.#parts.reply.succeed(answer);
    this.#finish(outcome);
    this.#release();
  }

  #fail(error: IntarsiaError): void {
    this.#answered = true;
    this.#parts.reply.fail(error);
    this.#finish({ ok: false, error });
    this.#release();
  }

  /** Answers now and tells the device; its outcome comes later and is dropped. */
  #giveUp(error: IntarsiaError): void {
    const { request, reply } = this.#parts;
    this.#answered = true;
    reply.fail(error);
    this.#finish({ ok: false, error });
    if (this.#held) {
      this.#device?.tell({ type: 'cancel', request: request.id, model: request.model, version: request.version });
    } else this.#release();
  }

  #finish(outcome: InferenceOutcome): void {
    const { gateway, request, span } = this.#parts;
    this.#deadline?.cancel();
    if (span.recording) {
      span.set({
        'intarsia.model': request.model,
        'intarsia.items': request.items,
        'intarsia.attempts': this.#attempts,
      });
      if (outcome.ok) {
        const { device, queueUs, batchItems } = outcome.receipt;
        span.set({ 'intarsia.device': device, 'intarsia.queue_us': queueUs, 'intarsia.batch_items': batchItems });
      }
    }
    if (span !== noSpan) span.end(outcome.ok ? undefined : outcome.error.code);
    gateway.onFinished?.({ request, outcome, finishedMs: gateway.clock.nowMs() });
  }

  #release(): void {
    this.#parts.gateway.end(this.#parts.bytes);
  }

  #answerOf(outcome: InferenceSuccess): InferResponseMessage {
    const { gateway, message, model, classes } = this.#parts;
    const outputs: InferTensor[] = [];
    for (const tensor of outcome.outputs) {
      const { name, datatype, shape, data } = classes === undefined ? tensor : this.#classified(tensor, classes);
      outputs.push({ name, datatype, shape, parameters: noParameters, data });
    }
    let parameters = noParameters;
    if (gateway.receipts) {
      const receipt = new Map<string, InferParameter>();
      addReceipt(receipt, outcome.receipt);
      parameters = receipt;
    }
    return {
      modelName: model.name,
      modelVersion: model.version,
      id: message.id,
      parameters,
      outputs,
      rawContents: message.rawContents,
    };
  }

  #classified(tensor: Tensor, classes: ReadonlyMap<string, number>): Tensor {
    const count = classes.get(tensor.name) ?? 0;
    if (count === 0) return tensor;
    const { model } = this.#parts;
    return classify(tensor, {
      count,
      batches: model.config.maxBatchSize > 0,
      labels: model.labels.get(tensor.name) ?? [],
    });
  }
}

function noReplica(model: ServedModel, candidates: readonly Candidate[], device: string): IntarsiaError {
  if (device !== '' && !model.devices.some((id) => id === device)) {
    return intarsiaError(
      'INVALID_ARGUMENT',
      `parameter 'intarsia_device' is '${device}'; model '${model.name}' is on ${model.devices.join(', ')}`,
      { device },
    );
  }
  return candidates.length === 0
    ? intarsiaError('UNAVAILABLE', `no device serves model '${model.name}' version ${model.version} now`)
    : intarsiaError(
        'DEVICE_UNAVAILABLE',
        `none of the ${candidates.length} devices of model '${model.name}' can take a request now`,
      );
}
