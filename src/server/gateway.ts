/**
 * The hot path of a host: from a decoded request to one answer or one typed error, whatever the transport.
 *
 * It finds the model in the current catalogue, checks everything, asks the current picker for a replica, tells the device
 * and waits as a callback: no promise, no lock, no log line per request. A retryable failure is tried on another replica
 * while the deadline allows. What bytes meant before and become after is the codecs' business; queues are the devices'.
 */
import type { CatalogEntry, ServedModel } from '#core/catalog.js';
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { ModelName, ModelVersion, RequestId } from '#core/ids.js';
import type { InferenceOutcome, InferenceRequest, InferenceSuccess } from '#core/inference.js';
import {
  noParameters,
  type InferParameter,
  type InferRequestMessage,
  type InferResponseMessage,
  type InferTensor,
} from '#core/inference-message.js';
import type { Candidate } from '#core/picker.js';
import { beginOnReplica, candidatesOf, finishOnReplica } from '#core/routing-table.js';
import type { Tensor } from '#core/tensor.js';
import { formatBytes } from '#core/units.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import type { Clock } from '#ports/clock.js';
import type { InferCall, InferGateway, InferReply, InferTicket } from '#ports/inference-gateway.js';
import { noSpan, noTracing, type Span, type Tracing } from '#ports/tracing.js';
import type { Delivery, ReplyTo } from '#runtime/actor.js';
import { classCount, classify } from './classification.js';
import { DeadlineWheel } from './deadline-wheel.js';
import { ModelCheck } from './model-check.js';
import { addReceipt } from './receipt-parameters.js';
import { readParameters } from './request-parameters.js';
import { SequenceRoutes } from './sequence-routes.js';
import type { DeviceRef, Router } from './router.js';

export interface GatewayOptions {
  readonly router: Router;
  readonly clock: Clock;
  /** Bytes of all requests in flight; beyond it requests are refused with RESOURCE_EXHAUSTED. */
  readonly bytesInFlightMax: number;
  /** Whether answers carry a receipt in `intarsia_*` parameters. */
  readonly receipts: boolean;
  /** Replicas one request may try, the first included. 1 to 10, default 3. */
  readonly attemptsMax?: number;
  /** Sequences whose device is remembered. Default 10,000; when full, the one silent for longest is forgotten. */
  readonly sequencesMax?: number;
  readonly tracing?: Tracing;
  /** Called once a request that passed validation, after its answer is on its way. Must not throw. */
  readonly onFinished?: (finished: Finished) => void;
}

export interface Finished {
  readonly request: InferenceRequest;
  readonly outcome: InferenceOutcome;
  /** Monotonic milliseconds. */
  readonly finishedMs: number;
}

export interface Gateway extends InferGateway {
  /** Requests sent to devices and not yet given back. */
  readonly requestsInFlight: number;
  readonly bytesInFlight: number;
  /** Refuses new requests from now on with UNAVAILABLE. */
  stopAccepting(): void;
  /** Calls back once nothing is in flight; at once when nothing is. */
  whenIdle(listener: () => void): void;
}

const attemptsMaxDefault = 3;
const sequencesMaxDefault = 10_000;
/** Deadlines further away than a timer reaches (about 24 days) are none. */
const deadlineInMsMax = 2 ** 31 - 1;
const nobody: ReadonlySet<string> = new Set();
const nothingToCancel: InferTicket = { cancel: () => {} };

export function createGateway(options: GatewayOptions): Gateway {
  return new HostGateway(options);
}

class HostGateway implements Gateway {
  readonly router: Router;
  readonly clock: Clock;
  readonly deadlines: DeadlineWheel;
  readonly sequences: SequenceRoutes;
  readonly receipts: boolean;
  readonly attemptsMax: number;
  readonly onFinished: ((finished: Finished) => void) | undefined;
  requestsInFlight = 0;
  bytesInFlight = 0;
  readonly #bytesInFlightMax: number;
  readonly #tracing: Tracing;
  readonly #checks = new WeakMap<ServedModel, ModelCheck>();
  #nextRequest = 1;
  #accepting = true;
  #idleListeners: (() => void)[] = [];

  constructor(options: GatewayOptions) {
    this.router = options.router;
    this.clock = options.clock;
    this.deadlines = new DeadlineWheel(options.clock);
    this.sequences = new SequenceRoutes(options.sequencesMax ?? sequencesMaxDefault);
    this.receipts = options.receipts;
    this.attemptsMax = Math.min(10, Math.max(1, options.attemptsMax ?? attemptsMaxDefault));
    this.onFinished = options.onFinished;
    this.#bytesInFlightMax = options.bytesInFlightMax;
    this.#tracing = options.tracing ?? noTracing;
  }

  nowMs(): number {
    return this.clock.nowMs();
  }

  admits(bytes: number): boolean {
    return this.bytesInFlight + bytes <= this.#bytesInFlightMax;
  }

  stopAccepting(): void {
    this.#accepting = false;
  }

  whenIdle(listener: () => void): void {
    if (this.requestsInFlight === 0) listener();
    else this.#idleListeners.push(listener);
  }

  infer(message: InferRequestMessage, call: InferCall, reply: InferReply): InferTicket {
    let prepared: InferenceCall;
    try {
      prepared = this.#prepare(message, call, reply);
    } catch (error) {
      reply.fail(asIntarsiaError(error));
      return nothingToCancel;
    }
    prepared.start();
    return prepared;
  }

  /** @throws every reason to refuse the request before a device hears of it. */
  #prepare(message: InferRequestMessage, call: InferCall, reply: InferReply): InferenceCall {
    const arrivedMs = this.clock.nowMs();
    if (!this.#accepting) throw intarsiaError('UNAVAILABLE', 'the host is stopping and takes no new requests');
    if (!call.caller.mayUse(message.modelName)) throw modelForbidden(message.modelName);
    const model = findModel(this.router.current.catalog.models.get(message.modelName as ModelName), message);
    const parameters = readParameters(message.parameters, call);
    let check = this.#checks.get(model);
    if (check === undefined) {
      check = new ModelCheck(model);
      this.#checks.set(model, check);
    }
    const tensors = check.check(message);
    const classes = message.outputs.length === 0 ? undefined : wantedClasses(message);
    if (parameters.sequence === undefined && model.config.sequenceBatching !== undefined) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `inference request to model '${model.name}' must specify a non-zero or non-empty correlation ID`,
      );
    }
    let deadlineMs = Math.min(call.deadlineMs, arrivedMs + parameters.deadlineInMs);
    if (deadlineMs - arrivedMs > deadlineInMsMax) deadlineMs = Infinity;
    if (deadlineMs <= arrivedMs) throw deadlinePassed(0);
    const bytes = Math.max(call.messageBytes, tensors.bytes);
    if (!this.admits(bytes)) {
      throw intarsiaError(
        'RESOURCE_EXHAUSTED',
        `the host holds ${formatBytes(this.bytesInFlight)} of requests and may hold ${formatBytes(this.#bytesInFlightMax)}; this one has ${formatBytes(bytes)}`,
        { bytesInFlight: this.bytesInFlight, limitBytes: this.#bytesInFlightMax, requestBytes: bytes },
      );
    }
    const id = this.#nextRequest as RequestId;
    this.#nextRequest += 1;
    const request: InferenceRequest = {
      id,
      model: model.name,
      version: model.version,
      inputs: tensors.inputs,
      outputs: tensors.outputs,
      items: tensors.items,
      batchKey: tensors.batchKey,
      bytes: tensors.bytes,
      priority: parameters.priority,
      queueTimeoutUs: parameters.queueTimeoutUs,
      deadlineMs,
      ...(parameters.sequence === undefined ? {} : { sequence: parameters.sequence }),
      ...(parameters.sloMs === 0 ? {} : { sloMs: parameters.sloMs }),
      billing: parameters.billing,
      arrivedMs,
    };
    const span = this.#tracing.start('infer', call.traceparent);
    return new InferenceCall({ gateway: this, model, message, request, classes, bytes, span, reply });
  }

  begin(bytes: number): void {
    this.requestsInFlight += 1;
    this.bytesInFlight += bytes;
  }

  end(bytes: number): void {
    this.requestsInFlight -= 1;
    this.bytesInFlight -= bytes;
    if (this.requestsInFlight > 0 || this.#idleListeners.length === 0) return;
    const listeners = this.#idleListeners;
    this.#idleListeners = [];
    for (const listener of listeners) listener();
  }
}

function findModel(entry: CatalogEntry | undefined, message: InferRequestMessage): ServedModel {
  const { modelName, modelVersion } = message;
  if (entry === undefined) throw unknownModel(modelName);
  const version = modelVersion === '' ? entry.defaultVersion : (modelVersion as ModelVersion);
  const served = version === undefined ? undefined : entry.served.get(version);
  if (served !== undefined) return served;
  if (version === undefined) {
    const reason =
      entry.reason || entry.versions.find(({ reason: why }) => why !== '')?.reason || 'no version is ready';
    throw intarsiaError(
      'MODEL_NOT_READY',
      `Request for unknown model: '${modelName}' has no available versions: ${reason}`,
    );
  }
  const status = entry.versions.find((known) => known.version === version);
  if (status === undefined || status.state === 'READY') {
    throw intarsiaError(
      'MODEL_NOT_FOUND',
      `Request for unknown model: '${modelName}' version ${version.slice(0, 80)} is not found`,
    );
  }
  throw intarsiaError(
    'MODEL_NOT_READY',
    `'${modelName}' version ${version} is not at ready state: ${status.state.toLowerCase()}${status.reason === '' ? '' : `, ${status.reason}`}`,
  );
}

/** A model that nobody knows. */
export function unknownModel(name: string): IntarsiaError {
  return intarsiaError('MODEL_NOT_FOUND', `Request for unknown model: '${name.slice(0, 255)}' is not found`);
}

/** A model that the caller's token does not cover. */
export function modelForbidden(name: string): IntarsiaError {
  return intarsiaError('PERMISSION_DENIED', `the token may not use model '${name.slice(0, 255)}'`);
}

function wantedClasses(message: InferRequestMessage): ReadonlyMap<string, number> | undefined {
  let classes: Map<string, number> | undefined;
  for (const { name, parameters } of message.outputs) {
    if (parameters.size === 0) continue;
    const count = classCount(name, parameters);
    if (count > 0) (classes ??= new Map<string, number>()).set(name, count);
  }
  return classes;
}

function deadlinePassed(waitedMs: number): IntarsiaError {
  return intarsiaError(
    'DEADLINE_EXCEEDED',
    `the deadline passed before an answer was there, after ${waitedMs.toFixed(1)} ms`,
    {
      waitedMs,
    },
  );
}

interface CallParts {
  readonly gateway: HostGateway;
  readonly model: ServedModel;
  readonly message: InferRequestMessage;
  readonly request: InferenceRequest;
  readonly classes: ReadonlyMap<string, number> | undefined;
  readonly bytes: number;
  readonly span: Span;
  readonly reply: InferReply;
}

/** One request under way: the device's reply address, and the transport's ticket. */
class InferenceCall implements ReplyTo<InferenceOutcome>, InferTicket {
  readonly deadlineMs: number;
  readonly #parts: CallParts;
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
    const { deadlineMs, sequence } = parts.request;
    this.deadlineMs = deadlineMs;
    this.#attemptsMax = sequence === undefined || sequence.start ? parts.gateway.attemptsMax : 1;
  }

  start(): void {
    const { gateway, bytes, request } = this.#parts;
    gateway.begin(bytes);
    if (request.deadlineMs !== Infinity) gateway.deadlines.add(this);
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

  /** The deadline has passed. */
  expire(): void {
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
      if (index < 0) index = table.picker.pick(request, candidates, nowMs, this.#failed ?? nobody);
      const candidate = candidates[index];
      if (candidate === undefined) {
        error ??= noReplica(model, candidates);
        break;
      }
      if (sequence !== undefined) gateway.sequences.follow(request, sequence, candidate);
      this.#attempts += 1;
      this.#candidate = candidate;
      this.#device = gateway.router.deviceOf(candidate);
      error = this.#tellDevice(candidate);
      if (error === undefined) return;
    }
    this.#fail(error ?? noReplica(model, []));
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
    if (delivery === 'accepted' || !this.#held) return error;
    this.#held = false;
    finishOnReplica(candidate.load, request.items, undefined);
    return delivery === 'full'
      ? intarsiaError('QUEUE_FULL', `the mailbox of device ${name} is full`)
      : intarsiaError('DEVICE_UNAVAILABLE', `device ${name} has stopped`);
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
    if (request.deadlineMs !== Infinity) gateway.deadlines.remove(this);
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

function noReplica(model: ServedModel, candidates: readonly Candidate[]): IntarsiaError {
  return candidates.length === 0
    ? intarsiaError('UNAVAILABLE', `no device serves model '${model.name}' version ${model.version} now`)
    : intarsiaError(
        'DEVICE_UNAVAILABLE',
        `none of the ${candidates.length} devices of model '${model.name}' can take a request now`,
      );
}
