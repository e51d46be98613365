/**
 * How long a host that was suspected must answer without fail before it is believed again: doubled with each relapse, so
 * that one that comes and goes does not drag the others along. Relapses are forgotten with time.
 */

export interface FlapLimits {
  /** Quiet time after the first suspicion, ms. */
  readonly quietMsMin: number;
  readonly quietMsMax: number;
  /** A relapse is forgotten after so much time without another, ms. */
  readonly forgetMs: number;
}

export class FlapDamping {
  readonly #limits: FlapLimits;
  #relapses = 0;
  #lastMs = -Infinity;

  constructor(limits: FlapLimits) {
    this.#limits = limits;
  }

  /** It is suspected (again). */
  onSuspected(nowMs: number): void {
    this.#forget(nowMs);
    this.#relapses += 1;
    this.#lastMs = nowMs;
  }

  /** Milliseconds it must answer without fail to be believed. */
  quietMs(nowMs: number): number {
    this.#forget(nowMs);
    if (this.#relapses === 0) return 0;
    return Math.min(this.#limits.quietMsMax, this.#limits.quietMsMin * 2 ** (this.#relapses - 1));
  }

  /** Whether nothing is remembered. */
  isClean(nowMs: number): boolean {
    this.#forget(nowMs);
    return this.#relapses === 0;
  }

  #forget(nowMs: number): void {
    if (this.#relapses === 0) return;
    const steps = Math.floor((nowMs - this.#lastMs) / this.#limits.forgetMs);
    if (steps <= 0) return;
    this.#relapses = Math.max(0, this.#relapses - steps);
    this.#lastMs += steps * this.#limits.forgetMs;
  }
}
