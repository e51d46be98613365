/**
 * The hot path of a host: from a decoded request to one answer or one typed error, whatever the transport.
 *
 * It finds the model in the current catalogue, checks everything, asks the current picker for a replica, tells the device
 * and waits as a callback: no promise, no lock, no log line per request. A retryable failure is tried on another replica
 * while the deadline allows. What bytes meant before and become after is the codecs' business; queues are the devices'.
 */
import type { ServedModel } from '#core/catalog.js';
import { asIntarsiaError, intarsiaError } from '#core/errors.js';
import type { ModelName, RequestId } from '#core/ids.js';
import type { InferenceRequest } from '#core/inference.js';
import type { InferRequestMessage } from '#core/inference-message.js';
import type { AttemptCounts } from '#core/grid/attempt-counts.js';
import type { AttemptObserver } from '#core/picker.js';
import { isSpreadSooner } from '#core/split/chunk-book.js';
import { firstStage } from '#core/split/stage-chain.js';
import { formatBytes } from '#core/units.js';
import type { Clock } from '#ports/clock.js';
import type { InferCall, InferGateway, InferReply, InferTicket } from '#ports/inference-gateway.js';
import { noTracing, type Tracing } from '#ports/tracing.js';
import { AttemptDesk, type AttemptOptions } from './attempt-desk.js';
import { classCount } from './classification.js';
import { findServedModel, modelForbidden } from './find-model.js';
import { deadlinePassed, InferenceCall, type CallHost, type Finished } from './inference-call.js';
import { ModelCheck } from './model-check.js';
import { readParameters } from './request-parameters.js';
import { SequenceRoutes } from './sequence-routes.js';
import type { Router } from './router.js';
import { speedOf, spreadCandidates, SpreadCall } from './spread-call.js';

export type { Finished } from './inference-call.js';

export interface GatewayOptions {
  readonly router: Router;
  readonly clock: Clock;
  /** Bytes of all requests in flight; beyond it requests are refused with RESOURCE_EXHAUSTED. */
  readonly bytesInFlightMax: number;
  /** Whether answers carry a receipt in `intarsia_*` parameters. */
  readonly receipts: boolean;
  /**
   * False while it is not known yet which models there are: requests are refused with UNAVAILABLE, which another host or a
   * later try may help, and not with MODEL_NOT_FOUND. Default: always true.
   */
  readonly isOpen?: () => boolean;
  /** Replicas one request may try, the first included. 1 to 10, default 3. */
  readonly attemptsMax?: number;
  /** Limits, budgets and bans of attempts; what is left out has its default. */
  readonly attempts?: AttemptOptions;
  /** Sequences whose device is remembered. Default 10,000; when full, the one silent for longest is forgotten. */
  readonly sequencesMax?: number;
  readonly tracing?: Tracing;
  /** Told of every attempt: the reckoning of whoever picks replicas. */
  readonly attemptObserver?: AttemptObserver;
  /** Called once a request that passed validation, after its answer is on its way. Must not throw. */
  readonly onFinished?: (finished: Finished) => void;
}

export interface Gateway extends InferGateway {
  /** Requests sent to devices and not yet given back. */
  readonly requestsInFlight: number;
  readonly bytesInFlight: number;
  /** Attempts, retries, hedges and bans since the start. */
  readonly attemptCounts: Readonly<AttemptCounts>;
  /** Refuses new requests from now on with UNAVAILABLE. */
  stopAccepting(): void;
  /** Calls back once nothing is in flight; at once when nothing is. */
  whenIdle(listener: () => void): void;
}

const attemptsMaxDefault = 3;
const sequencesMaxDefault = 10_000;
const nothingToCancel: InferTicket = { cancel: () => {} };

export function createGateway(options: GatewayOptions): Gateway {
  return new HostGateway(options);
}

class HostGateway implements Gateway, CallHost {
  readonly router: Router;
  readonly clock: Clock;
  readonly sequences: SequenceRoutes;
  readonly receipts: boolean;
  readonly attemptsMax: number;
  readonly desk: AttemptDesk;
  readonly attemptObserver: AttemptObserver | undefined;
  readonly onFinished: ((finished: Finished) => void) | undefined;
  requestsInFlight = 0;
  bytesInFlight = 0;
  readonly #bytesInFlightMax: number;
  readonly #tracing: Tracing;
  readonly #checks = new WeakMap<ServedModel, ModelCheck>();
  #nextRequest = 1;
  readonly #isOpen: () => boolean;
  #accepting = true;
  #idleListeners: (() => void)[] = [];

  constructor(options: GatewayOptions) {
    this.router = options.router;
    this.clock = options.clock;
    this.sequences = new SequenceRoutes(options.sequencesMax ?? sequencesMaxDefault);
    this.receipts = options.receipts;
    this.#isOpen = options.isOpen ?? (() => true);
    this.attemptsMax = Math.min(10, Math.max(1, options.attemptsMax ?? attemptsMaxDefault));
    this.desk = new AttemptDesk(options.attempts);
    this.attemptObserver = options.attemptObserver;
    this.onFinished = options.onFinished;
    this.#bytesInFlightMax = options.bytesInFlightMax;
    this.#tracing = options.tracing ?? noTracing;
  }

  get attemptCounts(): Readonly<AttemptCounts> {
    return this.desk.counts;
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
    let prepared: InferenceCall | SpreadCall;
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
  #prepare(message: InferRequestMessage, call: InferCall, reply: InferReply): InferenceCall | SpreadCall {
    const arrivedMs = this.clock.nowMs();
    if (!this.#accepting) throw intarsiaError('UNAVAILABLE', 'the host is stopping and takes no new requests');
    if (!this.#isOpen()) throw intarsiaError('UNAVAILABLE', 'the host is starting and does not know its models yet');
    if (!call.caller.mayUse(message.modelName)) throw modelForbidden(message.modelName);
    const model = this.#find(message);
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
    const deadlineMs = Math.min(call.deadlineMs, arrivedMs + parameters.deadlineInMs);
    if (deadlineMs <= arrivedMs) throw deadlinePassed(0);
    const bytes = Math.max(call.messageBytes, tensors.bytes);
    if (!this.admits(bytes)) {
      throw intarsiaError(
        'RESOURCE_EXHAUSTED',
        `the host holds ${formatBytes(this.bytesInFlight)} of requests and may hold ${formatBytes(this.#bytesInFlightMax)}; this one has ${formatBytes(bytes)}`,
        { bytesInFlight: this.bytesInFlight, limitBytes: this.#bytesInFlightMax, requestBytes: bytes },
      );
    }
    // The tenant's word goes before the model's; a request that names a class of its own does not take either's target.
    const usual = call.caller.slo ?? check;
    const sloMs = parameters.sloMs === 0 && parameters.sloClass === undefined ? usual.sloMs : parameters.sloMs;
    const sloClass = parameters.sloClass ?? usual.sloClass;
    // Fields that are not always there are set afterwards: spreading them in costs more than all the rest of a request.
    const request: { -readonly [Key in keyof InferenceRequest]: InferenceRequest[Key] } = {
      id: this.#nextId(),
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
      billing: parameters.billing,
      arrivedMs,
    };
    if (parameters.sequence !== undefined) request.sequence = parameters.sequence;
    if (sloMs !== 0) request.sloMs = sloMs;
    if (sloClass !== undefined) request.sloClass = sloClass;
    const { split } = model;
    const first = split === undefined ? request : firstStage(request, split, outputNames(model));
    const span = this.#tracing.start('infer', call.traceparent);
    const { device } = parameters;
    if (!this.#isSpread(check, first, device)) {
      return new InferenceCall({ gateway: this, model, message, request: first, device, classes, bytes, span, reply });
    }
    const common = { gateway: this, model, message, classes, bytes, span, reply };
    return new SpreadCall({ ...common, request, routed: routedTo(model), nextId: () => this.#nextId() });
  }

  #nextId(): RequestId {
    const id = this.#nextRequest as RequestId;
    this.#nextRequest += 1;
    return id;
  }

  /** Whether the request goes to several devices in pieces. @throws INVALID_ARGUMENT when it has to and names one device. */
  #isSpread({ spread, model }: ModelCheck, request: InferenceRequest, device: string): boolean {
    if (spread === undefined) return false;
    const items = request.then?.items ?? request.items;
    const isTooLarge = items > model.config.maxBatchSize;
    if (device !== '' && isTooLarge) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `a request of ${items} items to model '${model.name}' is spread over its devices; with 'intarsia_device' it may have ${model.config.maxBatchSize}`,
        { items, limitItems: model.config.maxBatchSize },
      );
    }
    if (isTooLarge) return true;
    if (items < spread.itemsMin || device !== '' || request.sequence !== undefined) return false;
    const speeds = [...spreadCandidates(this, request).values()].map(speedOf);
    return speeds.length > 1 && (spread.strategy === 'data' || isSpreadSooner(speeds));
  }

  #find({ modelName, modelVersion }: InferRequestMessage): ServedModel {
    return findServedModel(this.router.current.catalog.models.get(modelName as ModelName), modelName, modelVersion);
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

/** How a request is addressed: to the model, or to its first stage. */
function routedTo(model: ServedModel): (request: InferenceRequest) => InferenceRequest {
  const { split } = model;
  if (split === undefined) return (request) => request;
  return (request) => firstStage(request, split, outputNames(model));
}

function outputNames({ outputs }: ServedModel): readonly string[] {
  return outputs.map(({ name }) => name);
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
