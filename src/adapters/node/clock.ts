/**
 * Time of the running system. All timers share one timer of Node: arming and cancelling one costs a step in a heap, so
 * that every request can carry a deadline.
 *
 * `defer` runs at microtask speed as long as the event loop gets its turn: after `turnMsMax` without one, the next task
 * waits until input, output and timers were served (setImmediate).
 */
import { Deque } from '#core/deque.js';
import { intarsiaError } from '#core/errors.js';
import { TimerHeap } from '#core/timer-heap.js';
import type { TimerEntry } from '#core/timer-heap.js';
import type { Clock, Timer } from '#ports/clock.js';

/** Deferred tasks may run this long, ms, before input and output get a turn. Higher: fewer turns of the loop, worse latency. */
const turnMsMax = 2;
/** Deferred tasks between two looks at the clock: looking costs as much as a small task. */
const turnTasksPerCheck = 4;
/** Node's timers take at most this delay, ms; longer ones are armed again. */
const nodeDelayMsMax = 2 ** 31 - 1;

const neverTimer: Timer = { cancel: () => {} };

export class NodeClock implements Clock {
  private readonly timers = new TimerHeap();
  private sequence = 0;
  private armed: NodeJS.Timeout | undefined;
  private armedForMs = Infinity;
  /** Whether the armed timer does not keep the process alive, and whether that is about to be looked at. */
  private isArmedIdle = false;
  private isIdleCheckPending = false;

  private readonly deferred = new Deque<() => void>();
  private isDrainPending = false;
  /** Tasks since the event loop is known to have had its turn; it may have had one later, which nobody asks it. */
  private turnTasks = 0;
  /** Number of tasks at which the clock is looked at again. */
  private turnTasksChecked = turnTasksPerCheck;
  private turnStartMs = 0;

  nowMs(): number {
    return performance.now();
  }

  wallMs(): number {
    return Date.now();
  }

  schedule(delayMs: number, task: () => void): Timer {
    return this.scheduleAt(performance.now() + Math.max(0, delayMs), task);
  }

  /** At Infinity: never. Reads no clock unless the timer becomes the one that is due first. */
  scheduleAt(momentMs: number, task: () => void): Timer {
    if (momentMs === Infinity) return neverTimer;
    if (Number.isNaN(momentMs)) throw intarsiaError('INVALID_ARGUMENT', 'a timer needs a time in ms; got NaN');
    const timer = new NodeTimer(this, momentMs, this.sequence++, task);
    this.timers.push(timer);
    if (momentMs < this.armedForMs) this.arm(momentMs);
    else if (this.isArmedIdle) this.setIdle(false);
    return timer;
  }

  defer(task: () => void): void {
    this.deferred.push(task);
    if (!this.isDrainPending) this.requestDrain();
  }

  /** Takes the timer out of the heap. Node's timer stays armed, but keeps the process alive only while one of ours waits. */
  cancel(timer: NodeTimer): void {
    if (!this.timers.remove(timer) || this.timers.size > 0 || this.isIdleCheckPending) return;
    this.isIdleCheckPending = true;
    setImmediate(this.checkIdle);
  }

  private readonly checkIdle = (): void => {
    this.isIdleCheckPending = false;
    if (this.timers.size === 0) this.setIdle(true);
  };

  private arm(dueMs: number): void {
    if (this.armed !== undefined) clearTimeout(this.armed);
    this.armedForMs = dueMs;
    this.isArmedIdle = false;
    const delayMs = Math.max(0, Math.ceil(dueMs - performance.now()));
    this.armed = setTimeout(this.fire, Math.min(delayMs, nodeDelayMsMax));
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
      if (next !== undefined && next.dueMs < this.armedForMs) this.arm(next.dueMs);
    }
  };

  private requestDrain(): void {
    this.isDrainPending = true;
    if (this.turnTasks === 0) this.turnStartMs = performance.now();
    if (this.isTurnUsedUp()) setImmediate(this.beginTurn);
    else queueMicrotask(this.drain);
  }

  private isTurnUsedUp(): boolean {
    if (this.turnTasks < this.turnTasksChecked) return false;
    this.turnTasksChecked = this.turnTasks + turnTasksPerCheck;
    return performance.now() - this.turnStartMs >= turnMsMax;
  }

  /** The event loop had its turn. */
  private readonly beginTurn = (): void => {
    this.turnTasks = 0;
    this.turnTasksChecked = turnTasksPerCheck;
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

class NodeTimer implements Timer, TimerEntry {
  readonly dueMs: number;
  readonly sequence: number;
  readonly task: () => void;
  place = -1;
  private readonly clock: NodeClock;

  constructor(clock: NodeClock, dueMs: number, sequence: number, task: () => void) {
    this.clock = clock;
    this.dueMs = dueMs;
    this.sequence = sequence;
    this.task = task;
  }

  cancel(): void {
    this.clock.cancel(this);
  }
}
