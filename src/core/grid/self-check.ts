/**
 * Whether a host is degraded by its own judgement: its event loop lags, or its peers say that it answers them many times
 * slower than usual. Harder to enter than to stay in, so that it does not flicker.
 */
import type { HostId } from '../ids.js';

export interface SelfCheckLimits {
  /** Lag of the event loop from which on the host is degraded, ms. */
  readonly lagMs: number;
  /** Times slower than usual from which on it is. */
  readonly slowness: number;
}

/** A word of a peer counts for so long. */
const reportMsMax = 10_000;
const reportsMax = 64;
const leaveRatio = 0.5;

export class SelfCheck {
  readonly #limits: SelfCheckLimits;
  readonly #reports = new Map<HostId, { readonly slowness: number; readonly atMs: number }>();
  #isLagging = false;
  #isSlow = false;

  constructor(limits: SelfCheckLimits) {
    this.#limits = limits;
  }

  /** A peer says how many times slower than usual this host answers it. */
  onReport(peer: HostId, slowness: number, nowMs: number): void {
    if (!this.#reports.has(peer) && this.#reports.size >= reportsMax) this.#prune(nowMs);
    if (this.#reports.has(peer) || this.#reports.size < reportsMax) this.#reports.set(peer, { slowness, atMs: nowMs });
  }

  /** Why the host is degraded; empty when it is not. */
  degraded(lagMs: number, nowMs: number): string {
    this.#prune(nowMs);
    const ratios = [...this.#reports.values()].map((report) => report.slowness).sort((left, right) => left - right);
    // The lower median: one peer with a bad path to this host does not make it slow.
    const slowness = ratios[(ratios.length - 1) >> 1] ?? 1;
    this.#isLagging = lagMs >= this.#limits.lagMs * (this.#isLagging ? leaveRatio : 1);
    this.#isSlow = slowness >= this.#limits.slowness * (this.#isSlow ? leaveRatio : 1);
    if (this.#isLagging) return `its event loop lags by ${Math.round(lagMs)} ms`;
    return this.#isSlow ? `it answers its peers ${slowness.toFixed(1)} times slower than usual` : '';
  }

  #prune(nowMs: number): void {
    for (const [peer, report] of this.#reports) {
      if (nowMs - report.atMs > reportMsMax) this.#reports.delete(peer);
    }
  }
}
