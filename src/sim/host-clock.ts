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
    return this.#guard((run) => this.#world.scheduleAt(worldMs, run), task);
  }

  defer(task: () => void): void {
    this.#world.defer(() => {
      if (this.#held === undefined) task();
      else this.#held.push(task);
    });
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

  #at(worldMs: number): number {
    return this.#ownStartMs + (worldMs - this.#startMs) * this.#rate;
  }

  #guard(plan: (run: () => void) => Timer, task: () => void): Timer {
    let isCancelled = false;
    const once = (): void => {
      if (!isCancelled) task();
    };
    const timer = plan(() => {
      if (this.#held === undefined) once();
      else this.#held.push(once);
    });
    return {
      cancel: () => {
        isCancelled = true;
        timer.cancel();
      },
    };
  }
}
