/**
 * Doubt about oneself, after Lifeguard (Dadgar, Phillips, Currey 2017): a host whose event loop lags, or whose own probes
 * fail without anybody confirming it, waits longer before it blames others. One that was paused blames nobody for a while.
 */

export interface LocalHealthLimits {
  /** Lag of the event loop from which on the host was paused, ms: everything it waited for is void. */
  readonly pauseMs: number;
  /** Lag from which on the host doubts itself, ms. */
  readonly lagMs: number;
  /** Time after a pause in which it votes against nobody, ms. */
  readonly graceMs: number;
}

const scoreMax = 8;

export class LocalHealth {
  readonly #limits: LocalHealthLimits;
  #score = 0;
  #graceEndMs = -Infinity;
  #lagMs = 0;

  constructor(limits: LocalHealthLimits) {
    this.#limits = limits;
  }

  /** What timeouts are multiplied by: 1 when healthy, at most 9. */
  get multiplier(): number {
    return 1 + this.#score;
  }

  /** Lag of the event loop, smoothed, ms. */
  get lagMs(): number {
    return this.#lagMs;
  }

  /** Notes how late a timer of the host's own was. `paused`: what it waited for says nothing about others. */
  onLag(lagMs: number, nowMs: number): 'ok' | 'late' | 'paused' {
    this.#lagMs += (Math.max(0, lagMs) - this.#lagMs) / 8;
    if (lagMs >= this.#limits.pauseMs) {
      this.#score = scoreMax;
      this.#graceEndMs = nowMs + this.#limits.graceMs;
      return 'paused';
    }
    if (lagMs < this.#limits.lagMs) return 'ok';
    this.#change(1);
    return 'late';
  }

  /** A peer answered in time. */
  onAnswer(): void {
    this.#change(-1);
  }

  /** A probe failed and nobody who was asked for help answered either: perhaps it is this host that is cut off. */
  onLonelyFailure(): void {
    this.#change(1);
  }

  /** Whether it may accuse others. */
  mayAccuse(nowMs: number): boolean {
    return nowMs >= this.#graceEndMs;
  }

  #change(by: number): void {
    this.#score = Math.min(scoreMax, Math.max(0, this.#score + by));
  }
}
