/**
 * Stops trusting a policy for a model when its answers come late more often than they may, or when it needs its rule too often.
 *
 * Lateness is summed as CUSUM does: each late answer adds, each answer in time takes a little away, nothing below 0. A rate that
 * is a little too high trips after many answers, one that is far too high after few; a rate that is allowed never does.
 */

export interface BreakerOptions {
  /** Lateness beyond what is allowed that is still no reason, share of answers. Default 0.05. */
  readonly slack?: number;
  /** Sum at which it opens: about as many late answers too many. Default 8. */
  readonly limit?: number;
  /** Share of decisions that may fall back. Default 0.2. */
  readonly fallbackShareMax?: number;
  /** Milliseconds it stays open. Default 10 minutes. */
  readonly openMs?: number;
}

interface Watch {
  sum: number;
  openUntilMs: number;
  /** Start of the minute in which decisions are counted. */
  sinceMs: number;
  decisions: number;
  fallbacks: number;
}

const spanMs = 60_000;
/** Fewer decisions say nothing of their share. */
const decisionsMin = 100;

export class Breaker {
  readonly #slack: number;
  readonly #limit: number;
  readonly #fallbackShareMax: number;
  readonly #openMs: number;
  readonly #watches = new Map<string, Watch>();
  /** How often it opened. */
  trips = 0;

  constructor(options: BreakerOptions = {}) {
    this.#slack = options.slack ?? 0.05;
    this.#limit = options.limit ?? 8;
    this.#fallbackShareMax = options.fallbackShareMax ?? 0.2;
    this.#openMs = options.openMs ?? 600_000;
  }

  isOpen(model: string, nowMs: number): boolean {
    const watch = this.#watches.get(model);
    return watch !== undefined && watch.openUntilMs > nowMs;
  }

  /** An answer of a request that the policy dispatched; `allowed` is the share that may be late. */
  answered(model: string, late: boolean, allowed: number, nowMs: number): void {
    const watch = this.#watchOf(model, nowMs);
    if (watch.openUntilMs > nowMs) return;
    watch.sum = Math.max(0, watch.sum + (late ? 1 : 0) - allowed - this.#slack);
    if (watch.sum > this.#limit) this.#open(watch, nowMs);
  }

  decided(model: string, fellBack: boolean, nowMs: number): void {
    const watch = this.#watchOf(model, nowMs);
    if (watch.openUntilMs > nowMs) return;
    watch.decisions += 1;
    if (fellBack) watch.fallbacks += 1;
    if (watch.decisions >= decisionsMin && watch.fallbacks > this.#fallbackShareMax * watch.decisions) {
      this.#open(watch, nowMs);
    }
  }

  #open(watch: Watch, nowMs: number): void {
    this.trips += 1;
    watch.openUntilMs = nowMs + this.#openMs;
    watch.sum = 0;
    watch.decisions = 0;
    watch.fallbacks = 0;
  }

  #watchOf(model: string, nowMs: number): Watch {
    let watch = this.#watches.get(model);
    if (watch === undefined) {
      watch = { sum: 0, openUntilMs: -Infinity, sinceMs: nowMs, decisions: 0, fallbacks: 0 };
      this.#watches.set(model, watch);
    }
    if (nowMs - watch.sinceMs > spanMs) {
      watch.sinceMs = nowMs;
      watch.decisions = 0;
      watch.fallbacks = 0;
    }
    return watch;
  }
}
