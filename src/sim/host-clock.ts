/**
 * The clock of one host of a simulation: it may run faster or slower than the world's, its wall clock may be stepped, and it
 * may be stopped as a process is by SIGSTOP. What comes due while it is stopped happens when it goes on, in its order; its
 * monotonic time goes on meanwhile, as Linux's does.
 */
import { intarsiaError } from '#core/errors.js';
import type { Clock, Timer } from '#ports/clock.js';

export interface HostClockOptions {
  /** Seconds of this clock in a second of the world. Default 1. */
  readonly rate?: number;
  /** What `nowMs` is ahead of the world's, ms. Default 0. */
  readonly offsetMs?: number;
}

/** More than moments are rounded by, ms. */
const roundingMs = 1e-6;

export class HostClock implements Clock {
  readonly #world: Clock;
  readonly #rate: number;
  readonly #startMs: number;
  readonly #ownStartMs: number;
  #wallStepMs = 0;
  #held: (() => void)[] | undefined;

  constructor(world: Clock, options: HostClockOptions = {}) {
    this.#world = world;
    this.#rate = options.rate ?? 1;
    if (!(this.#rate > 0))
      throw intarsiaError('INVALID_ARGUMENT', `a clock's rate must be above 0; it is ${this.#rate}`);
    this.#startMs = world.nowMs();
    this.#ownStartMs = this.#startMs + (options.offsetMs ?? 0);
  }

  get isStopped(): boolean {
    return this.#held !== undefined;
  }

  /** What came due while it stands still. */
  get heldTasks(): number {
    return this.#held?.length ?? 0;
  }

  nowMs(): number {
    return this.#at(this.#world.nowMs());
  }

  wallMs(): number {
    return this.#world.wallMs() + this.#wallStepMs;
  }

  schedule(delayMs: number, task: () => void): Timer {
    return this.scheduleAt(this.nowMs() + Math.max(0, delayMs), task);
  }

  scheduleAt(momentMs: number, task: () => void): Timer {
    let worldMs = this.#startMs + (momentMs - this.#ownStartMs) / this.#rate;
    // Rounded down, it would come before its moment, and whoever then waits for the rest would wait for ever.
    if (this.#at(worldMs) < momentMs) worldMs += roundingMs;
    const timer = new HostTimer(this, task);
    timer.plan(this.#world, worldMs);
    return timer;
  }

  defer(task: () => void): void {
    this.#world.defer(() => this.onDue(task));
  }

  /** The process stands still until `resume`. */
  stop(): void {
    this.#held ??= [];
  }

  resume(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const task of held) this.#world.defer(task);
  }

  /** Somebody sets the wall clock. Nothing may depend on it. */
  stepWall(byMs: number): void {
    this.#wallStepMs += byMs;
  }

  /** Runs what has come due, now or when the process goes on. */
  onDue(run: () => void): void {
    if (this.#held === undefined) run();
    else this.#held.push(run);
  }

  #at(worldMs: number): number {
    return this.#ownStartMs + (worldMs - this.#startMs) * this.#rate;
  }
}

/** A timer that may still be cancelled once it has come due, while its process stands still. */
class HostTimer implements Timer {
  readonly #clock: HostClock;
  #task: (() => void) | undefined;
  #timer: Timer | undefined;

  constructor(clock: HostClock, task: () => void) {
    this.#clock = clock;
    this.#task = task;
  }

  plan(world: Clock, worldMs: number): void {
    this.#timer = world.scheduleAt(worldMs, () => this.#clock.onDue(this.#run));
  }

  cancel(): void {
    this.#task = undefined;
    this.#timer?.cancel();
  }

  readonly #run = (): void => {
    this.#task?.();
  };
}
