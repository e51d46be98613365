/**
 * Deadlines of many calls with few timers: calls whose deadlines fall into the same slice of time share one. A call is
 * told that its deadline has passed at most one slice late. Cheap enough for every request; precise enough for people.
 */
import type { Clock } from '#ports/clock.js';

/** Milliseconds of one slice. */
const sliceMs = 8;

export interface Expiring {
  readonly deadlineMs: number;
  expire(): void;
}

interface Slice {
  readonly calls: Set<Expiring>;
  readonly timer: { cancel(): void };
}

export class DeadlineWheel {
  readonly #clock: Clock;
  readonly #slices = new Map<number, Slice>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Watches a call with a finite deadline until `remove`. */
  add(call: Expiring): void {
    const index = Math.ceil(call.deadlineMs / sliceMs);
    const slice = this.#slices.get(index);
    if (slice !== undefined) {
      slice.calls.add(call);
      return;
    }
    const calls = new Set([call]);
    const timer = this.#clock.schedule(index * sliceMs - this.#clock.nowMs(), () => {
      this.#slices.delete(index);
      for (const late of calls) late.expire();
    });
    this.#slices.set(index, { calls, timer });
  }

  remove(call: Expiring): void {
    const index = Math.ceil(call.deadlineMs / sliceMs);
    const slice = this.#slices.get(index);
    if (slice === undefined) return;
    slice.calls.delete(call);
    if (slice.calls.size > 0) return;
    slice.timer.cancel();
    this.#slices.delete(index);
  }
}
