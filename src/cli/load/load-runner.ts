/**
 * Drives a transport by a plan. Two drivers: the closed loop keeps a number of requests in flight; the open loop sends
 * at the intended moments whatever the server does, and counts latency from those moments, so that a stall of the server
 * is not forgotten by the requests that could not leave (coordinated omission).
 *
 * The generator keeps nothing per request but a closure, and reads one answer in `receiptEvery`.
 */
import type { Clock, Timer } from '#ports/clock.js';
import type { LoadTransport } from '#ports/load-transport.js';
import type { ClientReceipt } from '#client/index.js';
import { openLoopArrivals } from './arrivals.js';
import type { LoadPlan } from './load-plan.js';
import { LoadRecorder } from './load-recorder.js';
import type { LoadReport } from './load-report.js';

export interface LoadRun {
  readonly plan: LoadPlan;
  readonly transport: LoadTransport;
  readonly clock: Clock;
  /** Items of one request, for items per second. */
  readonly itemsPerRequest: number;
  /** The receipt in the bytes of an answer; undefined when there is none. */
  readonly receiptOf: (answer: Uint8Array) => ClientReceipt | undefined;
  /** Called when the window that counts begins and when it ends. */
  readonly onWindow?: (edge: 'begin' | 'end') => void;
  /** Called about ten times a second with the share that is done, 0 to 1. */
  readonly onProgress?: (share: number, requests: number) => void;
  /** Called for each request of an open loop that counts, as it ends. For those who look at how latency changes. */
  readonly onRequest?: (request: EndedRequest) => void;
  readonly signal?: AbortSignal;
}

export interface EndedRequest {
  /** Moment it was meant to leave, ms on the clock. */
  readonly intendedMs: number;
  /** From that moment. */
  readonly latencyMs: number;
  /** Empty when it was answered well. */
  readonly code: string;
}

/**
 * Runs the load to its end. The transport is open; the caller closes it. An abort ends the window early.
 * @throws nothing of its own: what fails is counted.
 */
export function runLoad(run: LoadRun): Promise<LoadReport> {
  return new Promise((resolve) => {
    new Driver(run, resolve).start();
  });
}

class Driver {
  readonly #run: LoadRun;
  readonly #plan: LoadPlan;
  readonly #clock: Clock;
  readonly #recorder: LoadRecorder;
  readonly #finish: (report: LoadReport) => void;
  #startMs = 0;
  /** The window that counts, ms on the clock. */
  #beginMs = 0;
  #endMs = 0;
  #state: 'warm-up' | 'window' | 'drain' | 'over' = 'warm-up';
  #inFlight = 0;
  /** Of an open loop, those in flight that count. */
  #countedInFlight = 0;
  #sent = 0;
  #patience: Timer | undefined;
  #windowEnd: Timer | undefined;

  constructor(run: LoadRun, finish: (report: LoadReport) => void) {
    this.#run = run;
    this.#plan = run.plan;
    this.#clock = run.clock;
    this.#recorder = new LoadRecorder(run.plan.deadlineMs);
    this.#finish = finish;
  }

  start(): void {
    this.#startMs = this.#clock.nowMs();
    this.#beginMs = this.#startMs + this.#plan.warmUpMs;
    this.#endMs = this.#beginMs + this.#plan.windowMs;
    this.#run.signal?.addEventListener('abort', () => this.#endWindow(), { once: true });
    this.#clock.schedule(this.#plan.warmUpMs, () => this.#beginWindow());
    this.#tell();
    if (this.#plan.arrivals.kind === 'closed') this.#startClosedLoop(this.#plan.arrivals.concurrency);
    else this.#startOpenLoop(openLoopArrivals(this.#plan.arrivals, this.#plan.seed));
  }

  #startClosedLoop(concurrency: number): void {
    // Answers may come back while the first requests leave; each asks for its own successor.
    for (let lane = 0; lane < concurrency && this.#isSending; lane += 1) this.#sendClosed();
  }

  #sendClosed(): void {
    const sentMs = this.#clock.nowMs();
    this.#send((code, latencyEndMs) => {
      if (this.#state === 'window') this.#count(code, latencyEndMs - sentMs);
      if (!this.#isSending) return;
      // A server that refuses at once must not turn the generator into a loop without an end.
      if (code === 'UNAVAILABLE') this.#clock.schedule(refusedPauseMs, () => this.#isSending && this.#sendClosed());
      else this.#sendClosed();
    });
  }

  #startOpenLoop(next: () => number): void {
    let intendedMs = this.#startMs + next();
    const sendDue = (): void => {
      const nowMs = this.#clock.nowMs();
      while (intendedMs <= nowMs && intendedMs < this.#endMs && this.#isSending) {
        this.#sendOpen(intendedMs, nowMs);
        intendedMs = this.#startMs + next();
      }
      if (this.#isSending && intendedMs < this.#endMs) this.#clock.schedule(intendedMs - this.#clock.nowMs(), sendDue);
    };
    this.#clock.schedule(intendedMs - this.#clock.nowMs(), sendDue);
  }

  #sendOpen(intendedMs: number, nowMs: number): void {
    const counts = intendedMs >= this.#beginMs;
    if (counts) this.#recorder.sent(nowMs - intendedMs);
    if (this.#inFlight >= this.#plan.inFlightMax) {
      if (counts) this.#count('NOT_SENT', 0);
      return;
    }
    if (counts) this.#countedInFlight += 1;
    this.#send((code, answeredMs) => {
      if (counts) {
        this.#countedInFlight -= 1;
        this.#run.onRequest?.({ intendedMs, latencyMs: answeredMs - intendedMs, code });
      }
      // What was meant to leave in the window counts, even when its answer comes after the end.
      if (counts && this.#state !== 'over') this.#count(code, answeredMs - intendedMs);
    });
  }

  #send(done: (code: string, answeredMs: number) => void): void {
    const number = this.#sent;
    this.#sent += 1;
    this.#inFlight += 1;
    const { receiptEvery, bodies } = this.#plan;
    const wantsAnswer = receiptEvery > 0 && number % receiptEvery === 0;
    this.#run.transport.send(number % bodies, wantsAnswer, (code, answer) => {
      this.#inFlight -= 1;
      done(code, this.#clock.nowMs());
      if (answer !== undefined && code === '' && this.#state === 'window') this.#readReceipt(answer);
      if (this.#state === 'drain' && this.#inFlight === 0) this.#end();
    });
  }

  #readReceipt(answer: Uint8Array): void {
    const receipt = this.#run.receiptOf(answer);
    if (receipt !== undefined) this.#recorder.receipt(receipt);
  }

  #count(code: string, latencyMs: number): void {
    if (code === '') this.#recorder.succeeded(latencyMs);
    else this.#recorder.failed(code);
    if (this.#recorder.requests >= this.#plan.requestsMax) this.#endWindow();
  }

  get #isSending(): boolean {
    return this.#state === 'warm-up' || this.#state === 'window';
  }

  #beginWindow(): void {
    if (this.#state !== 'warm-up') return;
    this.#state = 'window';
    // The timer may be late: the window has its full length from here.
    if (this.#plan.arrivals.kind === 'closed') {
      this.#beginMs = this.#clock.nowMs();
      this.#endMs = this.#beginMs + this.#plan.windowMs;
    }
    this.#run.onWindow?.('begin');
    this.#windowEnd = this.#clock.schedule(this.#endMs - this.#clock.nowMs(), () => this.#endWindow());
  }

  #endWindow(): void {
    if (!this.#isSending) return;
    const wasWindow = this.#state === 'window';
    this.#state = 'drain';
    this.#windowEnd?.cancel();
    this.#endMs = this.#clock.nowMs();
    if (wasWindow) this.#run.onWindow?.('end');
    if (this.#inFlight === 0) this.#end();
    else this.#patience = this.#clock.schedule(this.#plan.drainMsMax, () => this.#end());
  }

  #end(): void {
    if (this.#state === 'over') return;
    // Answers that never came count as well; what comes when the transport closes is not counted twice.
    for (let lost = 0; lost < this.#countedInFlight; lost += 1) this.#recorder.failed('UNANSWERED');
    this.#state = 'over';
    this.#patience?.cancel();
    this.#run.onProgress?.(1, this.#recorder.requests);
    const windowMs = Math.max(this.#endMs - this.#beginMs, Number.EPSILON);
    this.#finish(this.#recorder.report(this.#plan, windowMs, this.#run.itemsPerRequest));
  }

  #tell(): void {
    const { onProgress } = this.#run;
    if (onProgress === undefined) return;
    this.#clock.schedule(progressMs, () => {
      if (this.#state === 'over') return;
      const byTime = (this.#clock.nowMs() - this.#startMs) / (this.#plan.warmUpMs + this.#plan.windowMs);
      const byCount = this.#recorder.requests / this.#plan.requestsMax;
      onProgress(Math.min(1, Math.max(byTime, byCount)), this.#recorder.requests);
      this.#tell();
    });
  }
}

const progressMs = 100;
/** Pause of a lane of the closed loop after the server could not be reached, ms. */
const refusedPauseMs = 50;
