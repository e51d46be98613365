/**
 * Requests to stages of split models on this host's devices. When a stage has run here, its outputs go straight to a ready
 * holder of the next stage, wherever that is, chosen by this host's own routing table like any other request's; the answer
 * comes back the same way. The device is free as soon as its own run is over, so that several requests are in the pipe.
 *
 * Values that are only sent on stay where the device has put them: who has the next stage on this host reads them there.
 *
 * What the next stage was given is kept here until it has answered: when whoever had it is lost, it is sent to another
 * holder, and only the lost stage runs again. What is kept is bounded in bytes and in requests.
 *
 * When a host in the middle is lost, whoever comes after it has perhaps done its part: what it was asked by the lost one
 * goes on, and answers the one that asks for the same instead of the lost one.
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
import { candidatesOf, reserveOf } from '#core/routing-table.js';
import { stageReceipt } from '#core/receipt.js';
import type { PackedTensor } from '#core/split/activation-codec.js';
import { isOnlySentOn, lastOutputs, nextStage, stageInputs } from '#core/split/stage-chain.js';
import type { StageChain } from '#core/split/stage-route.js';
import { formatBytes, MiB } from '#core/units.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import type { Clock, Timer } from '#ports/clock.js';
import { noSpan } from '#ports/tracing.js';
import type { Delivery, ReplyTo } from '#runtime/actor.js';
import { AttemptDesk, type AttemptOptions } from './attempt-desk.js';
import { InferenceCall, type CallHost, type HopReply } from './inference-call.js';
import type { DeviceRef, Router } from './router.js';
import { lostSequence, sequenceKey, SequenceRoutes } from './sequence-routes.js';
import type { StageCounts } from './stage-counts.js';

export interface StageDeskOptions {
  readonly host: HostId;
  /** Random text of this process. */
  readonly process: string;
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

/** Sequences of which is known who keeps their states at the next stage, and which have failed on their way. */
const sequencesMax = 10_000;
/** What was asked by somebody who is gone waits so long for somebody else to ask for it, ms. */
const orphanMsMax = 5_000;
/** Numbers of requests that this desk sends on begin here: those of gateways and of the ingress never get so far. */
const requestIdMin = 2 ** 52;

export class StageDesk implements CallHost {
  readonly router: Router;
  readonly clock: Clock;
  readonly sequences = new SequenceRoutes(sequencesMax);
  readonly receipts = false;
  readonly attemptsMax: number;
  readonly desk: AttemptDesk;
  readonly attemptObserver = undefined;
  readonly onFinished = undefined;
  readonly counts: StageCounts;
  readonly host: HostId;
  readonly #options: StageDeskOptions;
  /** By the number under which whoever asked has them. */
  readonly #calls = new Map<RequestId, StageCall>();
  /** By what tells requests apart on all hosts. */
  readonly #byKey = new Map<string, StageCall>();
  /** Sequences whose stages no longer have states of the same request, the oldest first. */
  readonly #parted = new Set<string>();
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
    return { tell: (message) => this.#tell(device, message) };
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

  /** The request was asked under that number, and is not any more. */
  forget(id: RequestId): void {
    this.#calls.delete(id);
  }

  /** What tells the request apart from all others, for the stages behind this one. */
  keyOf({ key }: StageChain, id: RequestId): string {
    return key ?? `${this.host} ${this.#options.process} ${id}`;
  }

  /** One stage of the sequence has gone on and another has not: nothing can be added to it any more. */
  part(request: InferenceRequest): void {
    const { sequence } = request;
    if (sequence === undefined || sequence.end) return;
    const key = sequenceKey(request, sequence);
    this.#parted.delete(key);
    this.#parted.add(key);
    const [oldest] = this.#parted;
    if (this.#parted.size > sequencesMax && oldest !== undefined) this.#parted.delete(oldest);
  }

  /** Why a request of a sequence cannot be run; undefined when it can. */
  #whyParted(request: InferenceRequest): IntarsiaError | undefined {
    const { sequence } = request;
    if (sequence === undefined) return undefined;
    const key = sequenceKey(request, sequence);
    if (sequence.start) this.#parted.delete(key);
    if (!this.#parted.has(key)) return undefined;
    if (sequence.end) this.#parted.delete(key);
    return lostSequence(request, sequence, 'an earlier request of it failed between two stages');
  }

  close(call: StageCall): void {
    if (this.#byKey.get(call.key) === call) this.#byKey.delete(call.key);
  }

  #tell(device: DeviceRef, message: DeviceMessage): Delivery {
    if (message.type === 'cancel') {
      const call = this.#calls.get(message.request);
      if (call === undefined) return device.tell(message);
      call.cancel(message.request, message.lost === true);
      return 'accepted';
    }
    if (message.type !== 'infer') return device.tell(message);
    const { request, replyTo } = message;
    const { then, ...own } = request;
    if (then === undefined) return device.tell(message);
    const known = then.key === undefined ? undefined : this.#byKey.get(`${then.key} ${then.stage}`);
    if (known !== undefined) {
      this.counts.joined += 1;
      this.#calls.set(request.id, known);
      known.join(request.id, replyTo);
      return 'accepted';
    }
    const parted = this.#whyParted(request);
    if (parted !== undefined) {
      replyTo.tell({ ok: false, error: parted });
      return 'accepted';
    }
    let inputs: InferenceRequest['inputs'];
    try {
      inputs = stageInputs(request.inputs);
    } catch (error) {
      replyTo.tell({ ok: false, error: asIntarsiaError(error) });
      return 'accepted';
    }
    const call = new StageCall({ desk: this, device, request, chain: then }, replyTo);
    this.#calls.set(request.id, call);
    if (call.key !== '') this.#byKey.set(call.key, call);
    const asked = isOnlySentOn(then) ? { ...own, inputs, leaveOutputs: true as const } : { ...own, inputs };
    const delivery = device.tell({ type: 'infer', request: asked, replyTo: call });
    if (delivery !== 'accepted') call.dropped();
    return delivery;
  }
}

interface StageCallParts {
  readonly desk: StageDesk;
  readonly device: DeviceRef;
  readonly request: InferenceRequest;
  readonly chain: StageChain;
}

/** One request at a stage of this host, and behind it: the device's reply address, and the next stage's. */
class StageCall implements ReplyTo<InferenceOutcome>, HopReply {
  /** Empty at the first stage: nobody asks for that twice. */
  readonly key: string;
  readonly #parts: StageCallParts;
  /** Who wants to know, by the number under which they asked. */
  readonly #askers = new Map<RequestId, ReplyTo<InferenceOutcome>>();
  /** What this stage's device answered. */
  #own: InferenceSuccess | undefined;
  #next: InferenceCall | undefined;
  /** What it came to, kept while nobody is there to be told. */
  #outcome: InferenceOutcome | undefined;
  #orphaned: { readonly timer: Timer; readonly bytes: number } | undefined;
  #isOver = false;

  constructor(parts: StageCallParts, replyTo: ReplyTo<InferenceOutcome>) {
    const { chain, request } = parts;
    this.#parts = parts;
    this.key = chain.key === undefined ? '' : `${chain.key} ${chain.stage}`;
    this.#askers.set(request.id, replyTo);
  }

  /** Somebody asks for the same. */
  join(id: RequestId, replyTo: ReplyTo<InferenceOutcome>): void {
    this.#askers.set(id, replyTo);
    this.#adopted();
    if (this.#outcome !== undefined) this.#tellAskers(this.#outcome);
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
    const { device, computeInputUs, computeInferUs, computeOutputUs, batchItems } = outcome.receipt;
    // As plans count it: with the way into the engine and out of it.
    const ms = (computeInputUs + computeInferUs + computeOutputUs) / 1000;
    desk.counts.ran(this.#parts.request.model, device, ms / Math.max(1, batchItems));
    try {
      if (chain.stages.length === 0) this.#end(this.#finished(outcome));
      else this.#sendOn(outcome);
    } catch (error) {
      desk.part(this.#parts.request);
      this.#end({ ok: false, error: asIntarsiaError(error), downstream: true });
    }
    return 'accepted';
  }

  succeed(rest: InferenceSuccess): void {
    const { desk, chain } = this.#parts;
    const own = this.#own;
    if (own === undefined || this.#isOver) return;
    this.#end({ ...rest, receipt: stageReceipt(own.receipt, desk.host, chain.items, rest.receipt) });
  }

  fail(error: IntarsiaError): void {
    const { desk, request } = this.#parts;
    // What ran here has kept its new state.
    desk.part(request);
    this.#end({ ok: false, error, downstream: true });
  }

  /** Nobody behind this stage reads its values any more, unless it is the client. */
  isBack(): void {
    const { chain } = this.#parts;
    const own = this.#own;
    if (own === undefined || chain.outputs.some((name) => own.outputs.some((tensor) => tensor.name === name))) return;
    own[releaseOutputs]?.();
  }

  sentAgain(): void {
    const { chain, desk } = this.#parts;
    desk.counts.reran(chain.stage + 1);
  }

  /** One of those who asked does not want the answer any more, or is `lost`. */
  cancel(id: RequestId, lost: boolean): void {
    const replyTo = this.#askers.get(id);
    if (replyTo === undefined || this.#isOver) return;
    const isLast = this.#askers.size === 1;
    if (isLast && !(lost && this.key !== '' && this.#orphan())) {
      this.#stop();
      return;
    }
    this.#askers.delete(id);
    this.#parts.desk.forget(id);
    replyTo.tell({ ok: false, error: intarsiaError('CANCELLED', 'the request was cancelled') });
  }

  /** The device did not take it: whoever sent it is told so by what `tell` returned. */
  dropped(): void {
    this.#isOver = true;
    this.#forgetAskers();
    this.#parts.desk.close(this);
  }

  /** Takes it back from whoever has it: the outcome of that is told to those who asked. */
  #stop(): void {
    const { device, request } = this.#parts;
    const { id, model, version } = request;
    if (this.#next === undefined) device.tell({ type: 'cancel', request: id, model, version });
    else this.#next.cancel();
  }

  /** Goes on without anybody who asked. False when too much does. */
  #orphan(): boolean {
    const { desk, request } = this.#parts;
    const { bytes } = request;
    if (desk.refusal(bytes) !== undefined) return false;
    desk.begin(bytes);
    const timer = desk.clock.schedule(orphanMsMax, () => {
      this.#adopted();
      if (this.#outcome === undefined) this.#stop();
      else desk.close(this);
    });
    this.#orphaned = { timer, bytes };
    return true;
  }

  #adopted(): void {
    if (this.#orphaned === undefined) return;
    this.#orphaned.timer.cancel();
    this.#parts.desk.end(this.#orphaned.bytes);
    this.#orphaned = undefined;
  }

  #finished(outcome: InferenceSuccess): InferenceSuccess {
    const { chain, desk } = this.#parts;
    const receipt = stageReceipt(outcome.receipt, desk.host, chain.items, undefined);
    return { ...outcome, outputs: lastOutputs(chain, outcome.outputs), receipt };
  }

  #sendOn(outcome: InferenceSuccess): void {
    const { chain, desk, request } = this.#parts;
    const { counts } = desk;
    const keyed = { ...chain, key: desk.keyOf(chain, request.id) };
    const next = nextStage(keyed, outcome.outputs, (packed: PackedTensor) => counts.packed(packed));
    const refusal = desk.refusal(next.bytes);
    if (refusal !== undefined) throw refusal;
    const { queueTimeoutUs: _, sequence: _sequence, ...rest } = request;
    const arrivedMs = desk.clock.nowMs();
    const sent: InferenceRequest = { ...rest, ...next, queueTimeoutUs: 0, id: desk.nextId(), arrivedMs };
    const model = { name: next.model, version: request.version, devices: [] };
    const { bytes } = next;
    this.#mustBeKnown(sent);
    this.#next = new InferenceCall({ gateway: desk, model, request: sent, device: '', bytes, span: noSpan, hop: this });
    this.#next.start();
  }

  /** @throws UNAVAILABLE for a sequence under way of which nobody is there who had it before. */
  #mustBeKnown(sent: InferenceRequest): void {
    const { sequence, model, version } = sent;
    if (sequence === undefined || sequence.start) return;
    const { desk } = this.#parts;
    const table = desk.router.current;
    const [candidates, reserve] = [candidatesOf(table, model, version), reserveOf(table, model, version)];
    if (desk.sequences.find(sent, sequence, candidates, reserve) !== undefined) return;
    throw lostSequence(sent, sequence, `whoever kept it at stage ${this.#parts.chain.stage + 2} is gone`);
  }

  #end(outcome: InferenceOutcome): void {
    if (this.#isOver) return;
    this.#isOver = true;
    if (this.#askers.size > 0) this.#tellAskers(outcome);
    else if (this.#orphaned === undefined) this.#parts.desk.close(this);
    else this.#outcome = outcome;
  }

  #tellAskers(outcome: InferenceOutcome): void {
    const askers = [...this.#askers.values()];
    this.#forgetAskers();
    this.#parts.desk.close(this);
    // What several read is let go of by none of them.
    const told = askers.length > 1 && outcome.ok ? { ...outcome, [releaseOutputs]: undefined } : outcome;
    for (const replyTo of askers) replyTo.tell(told);
  }

  #forgetAskers(): void {
    for (const id of this.#askers.keys()) this.#parts.desk.forget(id);
    this.#askers.clear();
  }
}
