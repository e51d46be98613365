/**
 * Time of the running system. All timers share one timer of Node: arming and cancelling one costs a step in a heap, so
 * that every request can carry a deadline.
 *
 * `defer` runs at microtask speed as long as the event loop gets its turn: after `turnMsMax` or `turnTasksMax` tasks
 * without one, the next task waits for input, output and timers (setImmediate).
 */
import { Deque } from '#core/deque.js';
import { intarsiaError } from '#core/errors.js';
import { TimerHeap } from '#core/timer-heap.js';
import type { TimerEntry } from '#core/timer-heap.js';
import type { Clock, Timer } from '#ports/clock.js';

/** Deferred tasks may run this long, ms, before input and output get a turn. Higher: fewer turns of the loop, worse latency. */
const turnMsMax = 2;
/** Deferred tasks between two turns of the event loop, at most. */
const turnTasksMax = 1_024;
/** Node's timers take at most this delay, ms; longer ones are armed again. */
const nodeDelayMsMax = 2 ** 31 - 1;

const neverTimer: Timer = { cancel: () => {} };

export class NodeClock implements Clock {
  private readonly timers = new TimerHeap();
  private sequence = 0;
  private armed: NodeJS.Timeout | undefined;
  private armedForMs = Infinity;
  private isArmedIdle = false;

  private readonly deferred = new Deque<() => void>();
  private isDrainPending = false;
  /** Whether deferred tasks have run since the event loop had its turn; then `closeTurn` is on its way. */
  private isTurnOpen = false;
  /** Whether what is deferred waits for `closeTurn`, because this turn is used up. */
  private isDrainLate = false;
  private turnTasks = 0;
  private turnStartMs = 0;

  nowMs(): number {
    return performance.now();
  }

  wallMs(): number {
    return Date.now();
  }

  /** An infinite delay gives a timer that never fires. */
  schedule(delayMs: number, task: () => void): Timer {
    if (delayMs === Infinity) return neverTimer;
    if (Number.isNaN(delayMs)) throw intarsiaError('INVALID_ARGUMENT', 'a timer needs a delay in ms; got NaN');
    const nowMs = performance.now();
    const entry = this.timers.push(nowMs + Math.max(0, delayMs), this.sequence++, task);
    if (entry.dueMs < this.armedForMs) this.arm(entry.dueMs, nowMs);
    else if (this.isArmedIdle) this.setIdle(false);
    return new HeapTimer(this, entry);
  }

  defer(task: () => void): void {
    this.deferred.push(task);
    if (!this.isDrainPending) this.requestDrain();
  }

  /** Takes the timer out of the heap; the timer of Node stays armed, without keeping the process alive for nothing. */
  cancel(entry: TimerEntry): void {
    if (this.timers.remove(entry) && this.timers.size === 0) this.setIdle(true);
  }

  private arm(dueMs: number, nowMs: number): void {
    if (this.armed !== undefined) clearTimeout(this.armed);
    this.armedForMs = dueMs;
    this.isArmedIdle = false;
    this.armed = setTimeout(this.fire, Math.min(Math.ceil(dueMs - nowMs), nodeDelayMsMax));
  }

  private setIdle(idle: boolean): void {
    this.isArmedIdle = idle;
    if (idle) this.armed?.unref();
    else this.armed?.ref();
  }

  private readonly fire = (): void => {
    this.armed = undefined;
    this.armedForMs = Infinity;
    this.isArmedIdle = false;
    // Only what is due now: a task that asks for 0 ms again must not keep the loop for itself.
    const nowMs = performance.now();
    const sequenceEnd = this.sequence;
    try {
      for (let entry = this.timers.first(); entry !== undefined; entry = this.timers.first()) {
        if (entry.dueMs > nowMs || entry.sequence >= sequenceEnd) break;
        this.timers.remove(entry);
        entry.task();
      }
    } finally {
      const next = this.timers.first();
      if (next !== undefined && next.dueMs < this.armedForMs) this.arm(next.dueMs, performance.now());
    }
  };

  private requestDrain(): void {
    this.isDrainPending = true;
    if (!this.isTurnOpen) {
      this.isTurnOpen = true;
      this.turnTasks = 0;
      this.turnStartMs = performance.now();
      setImmediate(this.closeTurn);
      queueMicrotask(this.drain);
    } else if (this.turnTasks < turnTasksMax && performance.now() - this.turnStartMs < turnMsMax) {
      queueMicrotask(this.drain);
    } else {
      this.isDrainLate = true;
    }
  }

  /** The event loop had its turn. */
  private readonly closeTurn = (): void => {
    this.isTurnOpen = false;
    if (!this.isDrainLate) return;
    this.isDrainLate = false;
    this.drain();
  };

  private readonly drain = (): void => {
    // Tasks deferred from here on belong to the next drain: between two drains the clock is looked at.
    const end = this.deferred.tail;
    try {
      while (this.deferred.head < end) {
        this.turnTasks += 1;
        this.deferred.shift()();
      }
    } finally {
      // What a task throws ends up as an uncaught exception, as anywhere in Node; the others still run.
      this.isDrainPending = false;
      if (this.deferred.length > 0) this.requestDrain();
    }
  };
}

class HeapTimer implements Timer {
  private readonly clock: NodeClock;
  private readonly entry: TimerEntry;

  constructor(clock: NodeClock, entry: TimerEntry) {
    this.clock = clock;
    this.entry = entry;
  }

  cancel(): void {
    this.clock.cancel(this.entry);
  }
}
