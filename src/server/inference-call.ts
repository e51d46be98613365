/**
 * One request on its way: the device's reply address and the transport's ticket in one object.
 *
 * It asks the picker, tells the device, and on a retryable failure tries another replica while deadline, attempts and the
 * gateway's budget allow. In a grid an attempt that takes longer than such attempts do is not waited for: another replica
 * is tried beside it and the first answer counts; inference may be repeated. Requests of sequences may not and are not.
 *
 * The client is answered exactly once; the request counts as in flight until this host's devices have given it back.
 */
import type { ServedModel } from '#core/catalog.js';
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { InferenceOutcome, InferenceRequest, InferenceSuccess } from '#core/inference.js';
import type { InferRequestMessage, InferResponseMessage } from '#core/inference-message.js';
import { shedPick, type AttemptObserver, type Candidate, type Picker } from '#core/picker.js';
import { beginOnReplica, candidatesOf, finishOnReplica, reserveOf, type RoutingTable } from '#core/routing-table.js';
import { probe } from '#core/grid/standing.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { InferReply, InferTicket } from '#ports/inference-gateway.js';
import { noSpan, type Span } from '#ports/tracing.js';
import type { Delivery } from '#runtime/actor.js';
import { Attempt } from './attempt.js';
import type { AttemptDesk } from './attempt-desk.js';
import { answerOf } from './infer-answer.js';
import { isOn, noReplica, shedError, type RoutedModel } from './no-replica.js';
import type { Router } from './router.js';
import { lostSequence, type SequenceRoutes } from './sequence-routes.js';

/** What a call needs of the gateway it belongs to. */
export interface CallHost {
  readonly router: Router;
  readonly clock: Clock;
  readonly sequences: SequenceRoutes;
  readonly receipts: boolean;
  readonly attemptsMax: number;
  /** Limits, budgets and bans of attempts. */
  readonly desk: AttemptDesk;
  readonly attemptObserver: AttemptObserver | undefined;
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

interface CommonParts {
  readonly gateway: CallHost;
  readonly request: InferenceRequest;
  /** The only device that may run it; empty for any. */
  readonly device: string;
  readonly bytes: number;
  readonly span: Span;
}

/** A client's request. */
interface ClientParts extends CommonParts {
  readonly model: ServedModel;
  readonly message: InferRequestMessage;
  readonly classes: ReadonlyMap<string, number> | undefined;
  readonly reply: InferReply;
  readonly hop?: undefined;
}

/** A request from one stage of a split model to the next: see stage-desk.ts. */
interface HopParts extends CommonParts {
  readonly model: RoutedModel;
  readonly hop: HopReply;
}

export type CallParts = ClientParts | HopParts;

/** Whoever sent a request on to the next stage; gets exactly one of the first two. */
export interface HopReply {
  succeed(outcome: InferenceSuccess): void;
  fail(error: IntarsiaError): void;
  /** The request is sent again: whoever had it is lost, failed or too slow. */
  sentAgain(): void;
  /** After its answer: no device of this host has the request any more. */
  isBack?(): void;
}

/** One request under way: the address of its first attempt's reply, and the transport's ticket. */
export class InferenceCall extends Attempt implements InferTicket {
  readonly #parts: CallParts;
  #timer: Timer | undefined;
  /** When the timer fires. */
  #wakeMs = Infinity;
  /** When the newest attempt counts as overdue, and when a second one may run beside it. */
  #limitMs = Infinity;
  #hedgeMs = Infinity;
  /** Where it has failed or is overdue. */
  #failed: Set<string> | undefined;
  /** Attempts beside the first one. */
  #extras: ExtraAttempt[] | undefined;
  #attempts = 0;
  /** A sequence under way has its state on one device: nobody else can continue it. */
  readonly #attemptsMax: number;
  /** The client has its answer. */
  #answered = false;
  #released = false;
  #wasLate = false;
  /** A device is being told: a failure it answers at once is kept in `#failedInTell` for the loop in `#send`. */
  #inTell = false;
  #failedInTell: IntarsiaError | undefined;
  /** The picker refused the request. */
  #shed: IntarsiaError | undefined;

  constructor(parts: CallParts) {
    super();
    this.#parts = parts;
    const { sequence } = parts.request;
    this.#attemptsMax = sequence === undefined || sequence.start ? parts.gateway.attemptsMax : 1;
  }

  start(): void {
    const { gateway, bytes } = this.#parts;
    gateway.begin(bytes);
    gateway.desk.begin();
    this.#send(undefined);
    this.#arm();
  }

  cancel(): void {
    if (this.#answered) return;
    this.#fail(intarsiaError('CANCELLED', 'the client cancelled or went away'));
  }

  /** A device's outcome, of this attempt or an extra one. */
  protected override settled(outcome: InferenceOutcome): Delivery {
    return this.outcomeOf(this, outcome);
  }

  /** What an attempt came to. */
  outcomeOf(attempt: Attempt, outcome: InferenceOutcome): Delivery {
    if (!attempt.held) return 'stopped';
    attempt.held = false;
    const { gateway, request } = this.#parts;
    const { candidate } = attempt;
    if (candidate !== undefined) {
      const receipt = outcome.ok ? outcome.receipt : undefined;
      const computeMs =
        receipt === undefined
          ? 0
          : (receipt.computeInputUs + receipt.computeInferUs + receipt.computeOutputUs + receipt.linkUs) / 1000;
      const measured = receipt !== undefined && receipt.batchItems > 0;
      finishOnReplica(candidate.load, request.items, measured ? computeMs / receipt.batchItems : undefined);
      gateway.attemptObserver?.ended(candidate, request, gateway.clock.nowMs(), outcome);
      // What failed behind the stage says nothing of the stage.
      if (candidate.standing !== undefined && (outcome.ok || outcome.downstream !== true)) {
        const nowMs = gateway.clock.nowMs();
        const queueMs = receipt === undefined ? 0 : receipt.queueUs / 1000;
        gateway.desk.judge(candidate.standing, outcome, {
          nowMs,
          sentMs: attempt.sentMs,
          queueMs,
          computeMs,
          overdue: attempt.overdue,
        });
      }
    }
    if (this.#answered) {
      if (outcome.ok) gateway.desk.counts.late += 1;
      this.#releaseWhenBack();
    } else if (outcome.ok) this.#succeed(outcome, attempt);
    else if (!outcome.error.retryable || outcome.downstream === true) this.#fail(outcome.error);
    else if (this.#inTell) this.#failedInTell = outcome.error;
    else {
      this.#exclude(attempt);
      // Another attempt that is in its time may still answer; one that is overdue is not waited for.
      if (!this.#anyInTime()) this.#send(outcome.error);
      this.#arm();
    }
    return 'accepted';
  }

  #wake(): void {
    this.#timer = undefined;
    if (this.#answered) return;
    const { gateway, request } = this.#parts;
    const nowMs = gateway.clock.nowMs();
    const lateMs = nowMs - this.#wakeMs;
    this.#wakeMs = Infinity;
    if (nowMs >= request.deadlineMs) {
      this.#fail(deadlinePassed(nowMs - request.arrivedMs));
      return;
    }
    if (nowMs >= this.#limitMs) {
      // This host stood still itself: what has arrived meanwhile is read first. Once, or a slow host would wait for ever.
      if (lateMs > gateway.desk.lateMsMax && !this.#wasLate) {
        this.#wasLate = true;
        this.#limitMs = nowMs + gateway.desk.lateMsMax;
      } else this.#overdue(nowMs);
    } else if (nowMs >= this.#hedgeMs) {
      this.#hedgeMs = Infinity;
      if (gateway.desk.takeHedge()) {
        this.#eachHeld((attempt) => this.#exclude(attempt));
        this.#send(undefined);
      }
    }
    this.#arm();
  }

  /** Sets the timer to whatever comes next. */
  #arm(): void {
    if (this.#answered) return;
    const { gateway, request } = this.#parts;
    const nextMs = Math.min(request.deadlineMs, this.#limitMs, this.#hedgeMs);
    if (nextMs === this.#wakeMs) return;
    this.#timer?.cancel();
    this.#wakeMs = nextMs;
    this.#timer = nextMs === Infinity ? undefined : gateway.clock.scheduleAt(nextMs, () => this.#wake());
  }

  /** The newest attempt took longer than it should have: it may still answer, and another replica is asked. */
  #overdue(nowMs: number): void {
    this.#limitMs = Infinity;
    this.#hedgeMs = Infinity;
    const { desk } = this.#parts.gateway;
    this.#eachHeld((attempt) => {
      if (attempt.overdue) return;
      attempt.overdue = true;
      this.#exclude(attempt);
      const standing = attempt.candidate?.standing;
      if (standing !== undefined) desk.overdue(standing, nowMs);
    });
    if (this.#attempts < this.#attemptsMax && desk.takeRetry('overdue')) this.#send(undefined);
  }

  /**
   * Sends the request to the replica that the picker chooses, and to another when that one does not take it. With an error
   * it is a retry of an attempt that failed.
   */
  #send(lastError: IntarsiaError | undefined): void {
    const { gateway, model, request } = this.#parts;
    let error = lastError;
    for (;;) {
      if (this.#attempts >= this.#attemptsMax) break;
      if (error !== undefined && this.#attempts > 0 && !gateway.desk.takeRetry('failed')) break;
      const nowMs = gateway.clock.nowMs();
      if (nowMs >= request.deadlineMs) {
        error = deadlinePassed(nowMs - request.arrivedMs);
        break;
      }
      const table = gateway.router.current;
      const candidates = candidatesOf(table, request.model, request.version);
      const { sequence } = request;
      let candidate: Candidate | undefined;
      if (sequence !== undefined) {
        // Its state stays where it is, also on a device or host that others are led away from.
        const reserve = reserveOf(table, request.model, request.version);
        candidate = gateway.sequences.find(request, sequence, candidates, reserve);
        if (candidate === undefined && gateway.sequences.isUnderWay(request, sequence)) {
          error = lostSequence(request, sequence, 'whoever kept it is gone');
          break;
        }
      }
      candidate ??= this.#choose(table, candidates, nowMs);
      if (candidate === undefined) {
        error = this.#shed ?? error;
        error ??= noReplica(
          model,
          [...candidates, ...reserveOf(table, request.model, request.version)],
          this.#parts.device,
        );
        break;
      }
      if (sequence !== undefined) gateway.sequences.follow(request, sequence, candidate);
      this.#attempts += 1;
      if (this.#attempts > 1) this.#parts.hop?.sentAgain();
      const attempt = this.#freeAttempt();
      attempt.candidate = candidate;
      attempt.device = gateway.router.deviceOf(candidate);
      attempt.sentMs = nowMs;
      attempt.overdue = false;
      error = this.#tellDevice(attempt, candidate);
      if (error === undefined) {
        if (candidate.standing !== undefined && !this.#answered) this.#limit(candidate, table, nowMs);
        return;
      }
      this.#exclude(attempt);
    }
    // Whoever still has the request may answer it.
    if (this.#anyHeld()) return;
    this.#fail(error ?? noReplica(model, [], ''));
  }

  /** When the attempt that just began is overdue, and when a hedge may follow. */
  #limit(candidate: Candidate, table: RoutingTable, nowMs: number): void {
    const { gateway, request, device } = this.#parts;
    const { standing } = candidate;
    if (standing === undefined) return;
    this.#limitMs = Infinity;
    this.#hedgeMs = Infinity;
    const limitMs = gateway.desk.limitMs(candidate, request, nowMs);
    if (standing.device.failuresInRow > 0 || standing.host.failuresInRow > 0) {
      probe(standing, nowMs + Math.min(limitMs, gateway.desk.probeMsMax));
    }
    const others =
      candidatesOf(table, request.model, request.version).length +
      reserveOf(table, request.model, request.version).length;
    if (others < 2 || request.sequence !== undefined || device !== '' || this.#attempts >= this.#attemptsMax) return;
    this.#limitMs = nowMs + limitMs;
    if (this.#attempts === 1) this.#hedgeMs = nowMs + gateway.desk.hedgeAfterMs(standing);
  }

  /** The picker's choice, or the device the client insists on. */
  #choose(table: RoutingTable, candidates: readonly Candidate[], nowMs: number): Candidate | undefined {
    const { request, device } = this.#parts;
    const failed = this.#failed ?? nobody;
    if (device !== '') {
      const wanted = ({ replica, load }: Candidate): boolean =>
        load.ready && !failed.has(replica.id) && isOn(replica.stages[0], device);
      return candidates.find(wanted) ?? reserveOf(table, request.model, request.version).find(wanted);
    }
    const { picker } = table;
    const chosen = this.#pick(picker, candidates, nowMs, failed);
    if (chosen !== undefined || table.reserve === undefined || this.#shed !== undefined) return chosen;
    const reserve = reserveOf(table, request.model, request.version);
    // Rather somebody who failed a moment ago than nobody at all.
    return (
      this.#pick(picker, reserve, nowMs, failed) ??
      this.#pick(picker, candidates, Infinity, failed) ??
      this.#pick(picker, reserve, Infinity, failed)
    );
  }

  #pick(
    picker: Picker,
    candidates: readonly Candidate[],
    nowMs: number,
    failed: ReadonlySet<string>,
  ): Candidate | undefined {
    if (this.#shed !== undefined) return undefined;
    const index = picker.pick(this.#parts.request, candidates, nowMs, failed);
    if (index === shedPick) this.#shed = shedError(this.#parts.request, picker.explainShed?.());
    return candidates[index];
  }

  /** Undefined when the device took the request, or has answered it for good already. */
  #tellDevice(attempt: Attempt, candidate: Candidate): IntarsiaError | undefined {
    const { device } = attempt;
    const { gateway, request } = this.#parts;
    const [first] = candidate.replica.stages;
    const name = first?.device ?? 'unknown';
    gateway.desk.counts.attempts += 1;
    if (device === undefined) {
      if (candidate.standing !== undefined) gateway.desk.unreachable(candidate.standing, attempt.sentMs);
      return intarsiaError('DEVICE_UNAVAILABLE', `device ${name} is not there`);
    }
    const message: DeviceMessage = { type: 'infer', request, replyTo: attempt };
    beginOnReplica(candidate.load, request.items);
    gateway.attemptObserver?.began(candidate, request, attempt.sentMs);
    attempt.held = true;
    this.#inTell = true;
    const delivery = device.tell(message);
    this.#inTell = false;
    const error = this.#failedInTell;
    this.#failedInTell = undefined;
    if (delivery === 'accepted' || isBack(attempt)) return error;
    attempt.held = false;
    finishOnReplica(candidate.load, request.items, undefined);
    gateway.attemptObserver?.ended(candidate, request, attempt.sentMs, undefined);
    if (delivery === 'full') return intarsiaError('QUEUE_FULL', `the mailbox of device ${name} is full`);
    if (candidate.standing !== undefined) gateway.desk.unreachable(candidate.standing, attempt.sentMs);
    return intarsiaError('DEVICE_UNAVAILABLE', `device ${name} has stopped`);
  }

  /** This call's own attempt when it is free, else another one. */
  #freeAttempt(): Attempt {
    if (!this.held) return this;
    const extra = new ExtraAttempt(this);
    (this.#extras ??= []).push(extra);
    return extra;
  }

  #eachHeld(visit: (attempt: Attempt) => void): void {
    if (this.held) visit(this);
    if (this.#extras !== undefined) for (const extra of this.#extras) if (extra.held) visit(extra);
  }

  #anyHeld(): boolean {
    return this.held || (this.#extras !== undefined && this.#extras.some(({ held }) => held));
  }

  #anyInTime(): boolean {
    if (this.held && !this.overdue) return true;
    return this.#extras !== undefined && this.#extras.some(({ held, overdue }) => held && !overdue);
  }

  #exclude({ candidate }: Attempt): void {
    if (candidate !== undefined) (this.#failed ??= new Set()).add(candidate.replica.id);
  }

  #succeed(outcome: InferenceSuccess, attempt: Attempt): void {
    const parts = this.#parts;
    if (parts.hop !== undefined) {
      this.#answered = true;
      parts.hop.succeed(outcome);
      this.#end(outcome);
      return;
    }
    let answer: InferResponseMessage;
    try {
      const { gateway, message, model, classes } = parts;
      const told = { receipts: gateway.receipts, host: hostOf(attempt), request: parts.request.id };
      answer = answerOf(outcome, { message, model, classes, ...told });
    } catch (error) {
      this.#fail(asIntarsiaError(error));
      return;
    }
    this.#answered = true;
    // One device of this host had the request, and has computed with it.
    const requestIsRead = this.#attempts === 1 && !this.held && attempt.candidate?.standing === undefined;
    parts.reply.succeed(answer, requestIsRead);
    this.#end(outcome);
  }

  #fail(error: IntarsiaError): void {
    this.#answered = true;
    const parts = this.#parts;
    if (parts.hop === undefined) parts.reply.fail(error);
    else parts.hop.fail(error);
    this.#end({ ok: false, error });
  }

  /** The client is answered: whoever else has the request is told to leave it. */
  #end(outcome: InferenceOutcome): void {
    this.#finish(outcome);
    if (this.held || this.#extras !== undefined) {
      const { id, model, version } = this.#parts.request;
      this.#eachHeld(({ device }) => device?.tell({ type: 'cancel', request: id, model, version }));
    }
    this.#releaseWhenBack();
  }

  #finish(outcome: InferenceOutcome): void {
    const { gateway, request, span } = this.#parts;
    this.#timer?.cancel();
    this.#timer = undefined;
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
    if (gateway.onFinished === undefined) return;
    // A split model's request bears the name of its first stage.
    const told = request.then === undefined ? request : { ...request, model: this.#parts.model.name };
    gateway.onFinished({ request: told, outcome, finishedMs: gateway.clock.nowMs() });
  }

  /** Lets the request's bytes go once no device of this host has them. Links hold copies of their own, within bounds. */
  #releaseWhenBack(): void {
    if (this.#released) return;
    if (this.held && isHere(this)) return;
    if (this.#extras !== undefined && this.#extras.some((extra) => extra.held && isHere(extra))) return;
    this.#released = true;
    this.#parts.gateway.end(this.#parts.bytes);
    this.#parts.hop?.isBack?.();
  }
}

/** An attempt beside the first one. */
class ExtraAttempt extends Attempt {
  readonly #call: InferenceCall;

  constructor(call: InferenceCall) {
    super();
    this.#call = call;
  }

  protected override settled(outcome: InferenceOutcome): Delivery {
    return this.#call.outcomeOf(this, outcome);
  }
}

/** Whether the device has answered already. A function, because the compiler does not see that `tell` may answer. */
function isBack(attempt: Attempt): boolean {
  return !attempt.held;
}

/** Whether it is at a device of this host. */
function isHere({ candidate }: Attempt): boolean {
  return candidate?.standing?.host.local !== false;
}

/** The host that answered; empty outside of a grid. */
function hostOf({ candidate }: Attempt): string {
  return candidate?.standing?.host.host ?? '';
}
