/**
 * How long a stage takes now beside what is expected of it: the median of its first runs on this device, and a mean that
 * follows the latest ones. Milliseconds inside the engine for one item.
 */

/** Runs that are not looked at: caches and code warm up. */
const warmRuns = 10;
/** Runs that the expectation is made of. */
const firstRuns = 40;
/** Share of a new run in the mean. */
const share = 0.05;

export class StagePace {
  readonly #first: number[] = [];
  #runs = 0;
  #expectedMs: number | undefined;
  #observedMs = 0;

  add(ms: number): void {
    this.#runs += 1;
    if (this.#runs <= warmRuns) return;
    if (this.#expectedMs !== undefined) this.#observedMs += (ms - this.#observedMs) * share;
    else {
      this.#first.push(ms);
      if (this.#first.length < firstRuns) return;
      this.#first.sort((a, b) => a - b);
      this.#expectedMs = this.#first[firstRuns / 2] ?? ms;
      this.#observedMs = this.#expectedMs;
      this.#first.length = 0;
    }
  }

  /** Undefined until enough has run. */
  get now(): { readonly expectedMs: number; readonly observedMs: number } | undefined {
    const expectedMs = this.#expectedMs;
    return expectedMs === undefined || expectedMs <= 0 ? undefined : { expectedMs, observedMs: this.#observedMs };
  }
}
