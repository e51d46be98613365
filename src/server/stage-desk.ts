/**
 * Requests to stages of split models on this host's devices. When a stage has run here, its outputs go straight to a ready
 * holder of the next stage, wherever that is, chosen by this host's own routing table like any other request's; the answer
 * comes back the same way. The device is free as soon as its own run is over, so that several requests are in the pipe.
 *
 * What the next stage was given is kept here until it has answered: when whoever had it is lost, it is sent to another
 * holder, and only the lost stage runs again. What is kept is bounded in bytes and in requests.
 *
 * Cancelling and deadlines go all the way: a request that nobody wants any more is taken back from whoever has it now.
 */
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { HostId, RequestId } from '#core/ids.js';
import {
  releaseOutputs,
  type InferenceOutcome,
  type InferenceRequest,
  type InferenceSuccess,
} from '#core/inference.js';
import { stageReceipt } from '#core/receipt.js';
import type { PackedTensor } from '#core/split/activation-codec.js';
import { lastOutputs, nextStage, stageInputs, type StageChain } from '#core/split/stage-chain.js';
import { formatBytes, MiB } from '#core/units.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import type { Clock } from '#ports/clock.js';
import { noSpan } from '#ports/tracing.js';
import type { Delivery, ReplyTo } from '#runtime/actor.js';
import { AttemptDesk, type AttemptOptions } from './attempt-desk.js';
import { InferenceCall, type CallHost, type HopReply } from './inference-call.js';
import type { DeviceRef, Router } from './router.js';
import { SequenceRoutes } from './sequence-routes.js';
import type { StageCounts } from './stage-counts.js';

export interface StageDeskOptions {
  readonly host: HostId;
  readonly router: Router;
  readonly clock: Clock;
  readonly counts: StageCounts;
  /** Bytes of values that are kept for next stages, default 512 MiB; a single larger request passes when nothing is kept. */
  readonly bytesMax?: number;
  /** Requests that may be on their way to next stages, default 10,000. */
  readonly requestsMax?: number;
  /** Holders that one request may try at one stage, 1 to 10, default 4. */
  readonly attemptsMax?: number;
  readonly attempts?: AttemptOptions;
}

/** Numbers of requests that this desk sends on begin here: those of gateways and of the ingress never get so far. */
const requestIdMin = 2 ** 52;

export class StageDesk implements CallHost {
  readonly router: Router;
  readonly clock: Clock;
  readonly sequences = new SequenceRoutes(1);
  readonly receipts = false;
  readonly attemptsMax: number;
  readonly desk: AttemptDesk;
  readonly attemptObserver = undefined;
  readonly onFinished = undefined;
  readonly counts: StageCounts;
  readonly host: HostId;
  readonly #options: StageDeskOptions;
  #requests = 0;
  #bytes = 0;
  #nextId = requestIdMin;

  constructor(options: StageDeskOptions) {
    this.#options = options;
    this.host = options.host;
    this.router = options.router;
    this.clock = options.clock;
    this.counts = options.counts;
    this.attemptsMax = options.attemptsMax ?? 4;
    this.desk = new AttemptDesk(options.attempts);
  }

  /** Bytes that are kept for next stages. */
  get bytesKept(): number {
    return this.#bytes;
  }

  /** Requests that are at a later stage. */
  get requestsKept(): number {
    return this.#requests;
  }

  /** The device as those see it who send requests to this host: what is for a stage passes through here. */
  device(device: DeviceRef): DeviceRef {
    return new StageDevice(this, device);
  }

  begin(bytes: number): void {
    this.#requests += 1;
    this.#bytes += bytes;
    this.counts.keptBytes = this.#bytes;
  }

  end(bytes: number): void {
    this.#requests -= 1;
    this.#bytes -= bytes;
    this.counts.keptBytes = this.#bytes;
  }

  nextId(): RequestId {
    const id = this.#nextId as RequestId;
    this.#nextId += 1;
    return id;
  }

  /** Why nothing more may be kept; undefined when it may. */
  refusal(bytes: number): IntarsiaError | undefined {
    const { bytesMax = 512 * MiB, requestsMax = 10_000 } = this.#options;
    if (this.#requests === 0) return undefined;
    if (this.#requests < requestsMax && this.#bytes + bytes <= bytesMax) return undefined;
    return intarsiaError(
      'RESOURCE_EXHAUSTED',
      `host ${this.host} keeps ${formatBytes(this.#bytes)} of ${this.#requests} requests for next stages and may keep ${formatBytes(bytesMax)} of ${requestsMax}; this one has ${formatBytes(bytes)}`,
      { bytesKept: this.#bytes, limitBytes: bytesMax, requestBytes: bytes },
    );
  }
}

/** A device of this host, with what happens behind its stages. */
class StageDevice {
  readonly #desk: StageDesk;
  readonly #device: DeviceRef;
  readonly #calls = new Map<RequestId, StageCall>();

  constructor(desk: StageDesk, device: DeviceRef) {
    this.#desk = desk;
    this.#device = device;
  }

  tell(message: DeviceMessage): Delivery {
    if (message.type === 'cancel') {
      const call = this.#calls.get(message.request);
      if (call === undefined) return this.#device.tell(message);
      call.cancel();
      return 'accepted';
    }
    if (message.type !== 'infer' || message.request.then === undefined) return this.#device.tell(message);
    const { request, replyTo } = message;
    const { then } = message.request;
    let inputs: InferenceRequest['inputs'];
    try {
      inputs = stageInputs(request.inputs);
    } catch (error) {
      replyTo.tell({ ok: false, error: asIntarsiaError(error) });
      return 'accepted';
    }
    const { then: _, ...own } = request;
    const call = new StageCall({
      desk: this.#desk,
      device: this.#device,
      request,
      chain: then,
      replyTo,
      onEnd: () => void this.#calls.delete(request.id),
    });
    this.#calls.set(request.id, call);
    const delivery = this.#device.tell({ type: 'infer', request: { ...own, inputs }, replyTo: call });
    if (delivery !== 'accepted') call.dropped();
    return delivery;
  }
}

interface StageCallParts {
  readonly desk: StageDesk;
  readonly device: DeviceRef;
  readonly request: InferenceRequest;
  readonly chain: StageChain;
  readonly replyTo: ReplyTo<InferenceOutcome>;
  readonly onEnd: () => void;
}

/** One request at a stage of this host, and behind it: the device's reply address, and the next stage's. */
class StageCall implements ReplyTo<InferenceOutcome>, HopReply {
  readonly #parts: StageCallParts;
  /** What this stage's device answered. */
  #own: InferenceSuccess | undefined;
  #next: InferenceCall | undefined;
  #isOver = false;

  constructor(parts: StageCallParts) {
    this.#parts = parts;
  }

  /** The device's outcome. */
  tell(outcome: InferenceOutcome): Delivery {
    if (this.#isOver || this.#own !== undefined) return 'stopped';
    if (!outcome.ok) {
      this.#end(outcome);
      return 'accepted';
    }
    const { chain, desk } = this.#parts;
    this.#own = outcome;
    desk.counts.runs += 1;
    try {
      if (chain.stages.length === 0) this.#end(this.#finished(outcome));
      else this.#sendOn(outcome);
    } catch (error) {
      this.#end({ ok: false, error: asIntarsiaError(error), downstream: true });
    }
    return 'accepted';
  }

  succeed(rest: InferenceSuccess): void {
    const { desk, chain } = this.#parts;
    const own = this.#own;
    if (own === undefined || this.#isOver) return;
    this.#end({ ...rest, receipt: stageReceipt(own.receipt, desk.host, chain.items, rest.receipt) });
    // What an earlier stage gave to the client may still be read.
    if (chain.outputs.every((name) => !own.outputs.some((tensor) => tensor.name === name))) own[releaseOutputs]?.();
  }

  fail(error: IntarsiaError): void {
    this.#end({ ok: false, error, downstream: true });
  }

  sentAgain(): void {
    const { chain, desk } = this.#parts;
    desk.counts.reran(chain.stage + 1);
  }

  /** Nobody wants the answer any more. */
  cancel(): void {
    if (this.#isOver) return;
    const { device, request } = this.#parts;
    if (this.#next === undefined) {
      const { id, model, version } = request;
      device.tell({ type: 'cancel', request: id, model, version });
    } else this.#next.cancel();
  }

  /** The device did not take it: whoever sent it is told so by what `tell` returned. */
  dropped(): void {
    this.#isOver = true;
    this.#parts.onEnd();
  }

  #finished(outcome: InferenceSuccess): InferenceSuccess {
    const { chain, desk } = this.#parts;
    const receipt = stageReceipt(outcome.receipt, desk.host, chain.items, undefined);
    return { ...outcome, outputs: lastOutputs(chain, outcome.outputs), receipt };
  }

  #sendOn(outcome: InferenceSuccess): void {
    const { chain, desk, request } = this.#parts;
    const { counts } = desk;
    const next = nextStage(chain, outcome.outputs, (packed: PackedTensor) => counts.packed(packed));
    const refusal = desk.refusal(next.bytes);
    if (refusal !== undefined) throw refusal;
    const nowMs = desk.clock.nowMs();
    const { queueTimeoutUs: _, ...rest } = request;
    const sent: InferenceRequest = { ...rest, ...next, queueTimeoutUs: 0, id: desk.nextId(), arrivedMs: nowMs };
    const model = { name: next.model, version: request.version, devices: [] };
    const { bytes } = next;
    counts.sent += 1;
    this.#next = new InferenceCall({ gateway: desk, model, request: sent, device: '', bytes, span: noSpan, hop: this });
    this.#next.start();
  }

  #end(outcome: InferenceOutcome): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#parts.onEnd();
    this.#parts.replyTo.tell(outcome);
  }
}
