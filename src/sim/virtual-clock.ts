/**
 * A clock that stands still until it is turned. It keeps the Clock port's promises with exact times: timers fire at
 * their moment, tasks for the same moment run in the order in which they were asked for, and each one enters the trace.
 *
 * The synchronous runners (`step`, `runUntil`, `runUntilIdle`) leave promises alone. Code under test that awaits needs the
 * `settle` runners: after each task they let every promise that is ready go on, before virtual time moves.
 */
import { Deque } from '#core/deque.js';
import { intarsiaError } from '#core/errors.js';
import { TimerHeap } from '#core/timer-heap.js';
import type { TimerEntry } from '#core/timer-heap.js';
import type { Clock, Timer } from '#ports/clock.js';
import { Trace } from './trace.js';

export interface VirtualClockOptions {
  /** Where `nowMs` starts, ms. Default 0. */
  readonly startMs?: number;
  /** What `wallMs` says at the start, ms since 1970 UTC. Default 2026-01-01. */
  readonly wallStartMs?: number;
  /** Tasks one run may take before it fails, so that an endless loop ends. Default 1,000,000. */
  readonly stepsMax?: number;
  /** Where tasks are traced. Default: a trace of its own. */
  readonly trace?: Trace;
}

const wallStartMsDefault = Date.UTC(2026, 0, 1);
/** Callbacks given to the event loop at once. */
const settledAtOnce = 32;
const neverTimer: Timer = { cancel: () => {} };

export class VirtualClock implements Clock {
  readonly trace: Trace;
  private readonly startMs: number;
  private readonly wallStartMs: number;
  private readonly stepsMax: number;
  private readonly timers = new TimerHeap();
  private readonly deferred = new Deque<{ readonly sequence: number; readonly task: () => void }>();
  private currentMs: number;
  private sequence = 0;
  private stepCount = 0;

  constructor(options: VirtualClockOptions = {}) {
    this.startMs = options.startMs ?? 0;
    this.currentMs = this.startMs;
    this.wallStartMs = options.wallStartMs ?? wallStartMsDefault;
    this.stepsMax = options.stepsMax ?? 1_000_000;
    this.trace = options.trace ?? new Trace();
  }

  nowMs(): number {
    return this.currentMs;
  }

  wallMs(): number {
    return this.wallStartMs + Math.floor(this.currentMs - this.startMs);
  }

  schedule(delayMs: number, task: () => void): Timer {
    return this.scheduleAt(this.currentMs + Math.max(0, delayMs), task);
  }

  /** At Infinity: never. */
  scheduleAt(momentMs: number, task: () => void): Timer {
    if (momentMs === Infinity) return neverTimer;
    if (Number.isNaN(momentMs)) throw intarsiaError('INVALID_ARGUMENT', 'a timer needs a time in ms; got NaN');
    const dueMs = Math.max(this.currentMs, momentMs);
    const entry: TimerEntry = { dueMs, sequence: this.sequence++, task, place: -1 };
    this.timers.push(entry);
    return { cancel: () => void this.timers.remove(entry) };
  }

  defer(task: () => void): void {
    this.deferred.push({ sequence: this.sequence++, task });
  }

  /** Tasks that ran so far. */
  get steps(): number {
    return this.stepCount;
  }

  /** Tasks and timers that wait. */
  get pending(): number {
    return this.deferred.length + this.timers.size;
  }

  /** Moment of the next task, ms; Infinity when none waits. */
  nextMs(): number {
    return this.deferred.length > 0 ? this.currentMs : (this.timers.first()?.dueMs ?? Infinity);
  }

  /** Moves to the next task and runs it; false when none waits. What the task throws comes out here. */
  step(): boolean {
    const deferred = this.deferred.peek();
    const timer = this.timers.first();
    if (deferred !== undefined && !(timer !== undefined && this.isDueBefore(timer, deferred.sequence))) {
      this.deferred.shift();
      this.run(deferred.sequence, deferred.task);
      return true;
    }
    if (timer === undefined) return false;
    this.timers.remove(timer);
    this.currentMs = Math.max(this.currentMs, timer.dueMs);
    this.run(timer.sequence, timer.task);
    return true;
  }

  /** Runs everything due up to that moment, then stands there. @throws RESOURCE_EXHAUSTED after `stepsMax` tasks. */
  runUntil(momentMs: number): void {
    for (let steps = 0; this.nextMs() <= momentMs; steps += 1) {
      this.checkSteps(steps);
      this.step();
    }
    this.currentMs = Math.max(this.currentMs, momentMs);
  }

  /** `runUntil` a moment that many ms from now. */
  advance(durationMs: number): void {
    this.runUntil(this.currentMs + durationMs);
  }

  /** Runs until nothing waits, however far time moves. @throws RESOURCE_EXHAUSTED after `stepsMax` tasks. */
  runUntilIdle(): void {
    for (let steps = 0; this.step(); steps += 1) this.checkSteps(steps);
  }

  /** Runs everything due now, without moving time. @throws RESOURCE_EXHAUSTED after `stepsMax` tasks. */
  runDue(): void {
    this.runUntil(this.currentMs);
  }

  /** Like `runUntil`, and lets ready promises go on after each task. Default: this moment. */
  async settleUntil(momentMs = this.currentMs): Promise<void> {
    await readyPromises();
    for (let steps = 0; this.nextMs() <= momentMs;) {
      steps = await this.settleSome(momentMs, steps);
      if (this.nextMs() > momentMs) await readyPromises();
    }
    this.currentMs = Math.max(this.currentMs, momentMs);
  }

  /**
   * Runs a few tasks, each as a callback of its own that the event loop was given before: it lets every ready promise go on
   * between two of them, and goes round once for all rather than once for each.
   */
  private settleSome(momentMs: number, stepsBefore: number): Promise<number> {
    return new Promise((resolve, reject) => {
      let steps = stepsBefore;
      let hasFailed = false;
      let left = settledAtOnce;
      const one = (): void => {
        left -= 1;
        try {
          if (!hasFailed && this.nextMs() <= momentMs) {
            this.checkSteps(steps);
            steps += 1;
            this.step();
          }
        } catch (error) {
          hasFailed = true;
          reject(error instanceof Error ? error : new Error(String(error)));
        }
        if (left === 0) resolve(steps);
      };
      for (let count = settledAtOnce; count > 0; count -= 1) setImmediate(one);
    });
  }

  /** Like `runUntilIdle`, and lets ready promises go on after each task. */
  async settle(): Promise<void> {
    await readyPromises();
    for (let steps = 0; this.step(); steps += 1) {
      this.checkSteps(steps);
      await readyPromises();
    }
  }

  private isDueBefore(timer: TimerEntry, sequence: number): boolean {
    return timer.dueMs <= this.currentMs && timer.sequence < sequence;
  }

  private run(sequence: number, task: () => void): void {
    this.stepCount += 1;
    this.trace.number(this.currentMs);
    this.trace.number(sequence);
    task();
  }

  private checkSteps(steps: number): void {
    if (steps < this.stepsMax) return;
    throw intarsiaError(
      'RESOURCE_EXHAUSTED',
      `the virtual clock ran ${steps} tasks in one go and ${this.pending} still wait at ${this.currentMs} ms: something never rests`,
      { steps, pending: this.pending, nowMs: this.currentMs },
    );
  }
}

/** Promise reactions run before the event loop's next phase: when this resolves, none that was ready is left. */
function readyPromises(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
