/**
 * Time as an argument. Nothing below `adapters` reads a clock of its own, so that the simulator runs the production code.
 *
 * Promises: `nowMs` is monotonic and fractional, starts anywhere, never jumps; `wallMs` is for people and may jump. A
 * timer fires once, never before its time and never synchronously. `defer` runs the task soon, after the current one and
 * in the order of the calls; a turn that defers again lets input and output in between from time to time, so that a busy
 * actor starves nobody.
 */
export interface Clock {
  /** Monotonic milliseconds with fractions. Durations and deadlines come from here. */
  nowMs(): number;
  /** Milliseconds since 1970-01-01 UTC. For people and logs only. */
  wallMs(): number;
  /** Calls `task` once, `delayMs` from now or later. Negative delays count as 0. */
  schedule(delayMs: number, task: () => void): Timer;
  /** Calls `task` once, when `nowMs` has reached that moment or later; for deadlines, which are moments already. */
  scheduleAt(momentMs: number, task: () => void): Timer;
  /** Calls `task` soon, after the code that runs now. */
  defer(task: () => void): void;
}

/** A pending call. `cancel` after it fired does nothing. */
export interface Timer {
  cancel(): void;
}
