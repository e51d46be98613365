/**
 * How long attempts take, by what is called: model and method. From it comes the time after which a second endpoint is
 * asked, so that a host that stands still does not cost a call its whole deadline.
 */

interface Times {
  meanMs: number;
  deviationMs: number;
}

const keysMax = 256;
/** Least time before a second attempt, ms: longer than a gateway needs to try another replica by itself. */
const floorMs = 500;
/** Before anything was measured, ms. */
const unmeasuredMs = 5000;
const factor = 4;
const meanWeight = 0.1;
const deviationWeight = 0.25;

export class AttemptTimes {
  readonly #times = new Map<string, Times>();

  learn(key: string, elapsedMs: number): void {
    const known = this.#times.get(key);
    if (known !== undefined) {
      const offMs = elapsedMs - known.meanMs;
      known.deviationMs += deviationWeight * (Math.abs(offMs) - known.deviationMs);
      known.meanMs += meanWeight * offMs;
      return;
    }
    const [oldest] = this.#times.keys();
    if (oldest !== undefined && this.#times.size >= keysMax) this.#times.delete(oldest);
    this.#times.set(key, { meanMs: elapsedMs, deviationMs: elapsedMs / 2 });
  }

  /** Milliseconds after which an attempt is overdue; Infinity when a second one could not end in the time that is left. */
  limitMs(key: string, remainingMs: number): number {
    const known = this.#times.get(key);
    const likelyMs = known === undefined ? 0 : known.meanMs + 2 * known.deviationMs;
    const limitMs =
      known === undefined
        ? unmeasuredMs
        : Math.max(floorMs, known.meanMs * factor, known.meanMs + 4 * known.deviationMs);
    if (limitMs <= remainingMs / 2) return limitMs;
    return likelyMs <= remainingMs / 2 ? remainingMs / 2 : Infinity;
  }
}
