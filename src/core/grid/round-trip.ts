/**
 * How long a peer takes to answer a probe, learnt from its answers: smoothed mean and deviation as in RFC 6298, and a
 * slow baseline that tells when the peer has become slower than it used to be.
 */

export interface RoundTripLimits {
  /** Bounds of the time an answer is waited for, ms. */
  readonly timeoutMsMin: number;
  readonly timeoutMsMax: number;
  /** Waited for before the first answer, ms. */
  readonly timeoutMsInitial: number;
}

const meanWeight = 1 / 8;
const deviationWeight = 1 / 4;
const baselineWeight = 1 / 64;
/** Answers before the baseline says anything. */
const baselineSamples = 8;
/** A baseline below this is taken as this: no host is slow for answering in 3 ms instead of 0.3. */
const baselineMsMin = 4;
/** From this ratio on the baseline stays as it is: a slow spell must not become the usual. */
const baselineRatioMax = 2.5;

export class RoundTrip {
  readonly #limits: RoundTripLimits;
  #meanMs = 0;
  #deviationMs = 0;
  #baselineMs = 0;
  #samples = 0;

  constructor(limits: RoundTripLimits) {
    this.#limits = limits;
  }

  get meanMs(): number {
    return this.#meanMs;
  }

  add(tripMs: number): void {
    this.#samples += 1;
    if (this.#samples === 1) {
      this.#meanMs = tripMs;
      this.#deviationMs = tripMs / 2;
      this.#baselineMs = tripMs;
      return;
    }
    this.#deviationMs += deviationWeight * (Math.abs(tripMs - this.#meanMs) - this.#deviationMs);
    this.#meanMs += meanWeight * (tripMs - this.#meanMs);
    if (this.#samples <= baselineSamples) this.#baselineMs += (tripMs - this.#baselineMs) / this.#samples;
    else if (this.slowness < baselineRatioMax) this.#baselineMs += baselineWeight * (tripMs - this.#baselineMs);
  }

  /** Milliseconds to wait for an answer: mean plus four deviations, kept within the limits. */
  timeoutMs(): number {
    const { timeoutMsMin, timeoutMsMax, timeoutMsInitial } = this.#limits;
    if (this.#samples === 0) return timeoutMsInitial;
    return Math.min(timeoutMsMax, Math.max(timeoutMsMin, this.#meanMs + 4 * this.#deviationMs));
  }

  /** How many times slower than usual its answers are now; 1 while little is known. */
  get slowness(): number {
    if (this.#samples <= baselineSamples) return 1;
    return this.#meanMs / Math.max(this.#baselineMs, baselineMsMin);
  }
}
