/**
 * Watches a policy that decides about real requests, and says when it is to be taken back: its circuit breaker opened, it leaves
 * too many decisions to its rule, it chose what the mask forbids, or its answers are late more often than the base's.
 *
 * Lateness is summed as CUSUM does (see breaker.ts), against what the base's own slices show; without any, against what was
 * known of the base before, or what the class of requests allows.
 */

export interface RolloutWatchOptions {
  /** Share of late answers beyond the base's that is still no reason. Default 0.05. */
  readonly band?: number;
  /** Sum at which it is taken back: about as many late answers too many. Default 12. */
  readonly limit?: number;
  /** Share of decisions that may be left to the rule. Default 0.2. */
  readonly fallbackShareMax?: number;
  /** Decisions that say something of that share. Default 500. */
  readonly decisionsMin?: number;
  /** Share of late answers that is known of the base; negative for none. Default -1. */
  readonly baseLate?: number;
}

export interface ArmCounts {
  answers: number;
  late: number;
}

/** Answers of the base that count as if they had been seen, at the share that was known: a few real ones move little. */
const priorAnswers = 50;

export class RolloutWatch {
  readonly policy: ArmCounts = { answers: 0, late: 0 };
  readonly base: ArmCounts = { answers: 0, late: 0 };
  readonly #band: number;
  readonly #limit: number;
  readonly #fallbackShareMax: number;
  readonly #decisionsMin: number;
  readonly #baseLate: number;
  #allowed = 0;
  #sum = 0;
  #decisions = 0;
  #fallbacks = 0;
  #verdict = '';

  constructor(options: RolloutWatchOptions = {}) {
    this.#band = options.band ?? 0.05;
    this.#limit = options.limit ?? 12;
    this.#fallbackShareMax = options.fallbackShareMax ?? 0.2;
    this.#decisionsMin = options.decisionsMin ?? 500;
    this.#baseLate = options.baseLate ?? -1;
  }

  /** Why it is to be taken back; empty while it is not. The first reason stays. */
  get verdict(): string {
    return this.#verdict;
  }

  /** @param allowed Share that may be late in the request's class. */
  answered(arm: 'policy' | 'base', late: boolean, allowed: number): void {
    const counts = this[arm];
    counts.answers += 1;
    if (late) counts.late += 1;
    if (arm === 'base') return;
    // The mean of what the classes of the answered requests allow.
    this.#allowed += (allowed - this.#allowed) / counts.answers;
    const expected = this.#expected();
    this.#sum = Math.max(0, this.#sum + (late ? 1 : 0) - expected - this.#band);
    if (this.#sum <= this.#limit) return;
    this.#stop(
      `${counts.late} of ${counts.answers} answers were late; ${percent(expected)} is what the base shows or may, and ${percent(this.#band)} more is borne`,
    );
  }

  decided(fellBack: boolean): void {
    this.#decisions += 1;
    if (fellBack) this.#fallbacks += 1;
    if (this.#decisions < this.#decisionsMin || this.#fallbacks <= this.#fallbackShareMax * this.#decisions) return;
    this.#stop(
      `it left ${this.#fallbacks} of ${this.#decisions} decisions to its rule; ${percent(this.#fallbackShareMax)} is the most`,
    );
  }

  /** Its circuit breaker opened. */
  tripped(): void {
    this.#stop('its circuit breaker opened');
  }

  /** It chose a masked candidate, or refused a request that may not be refused. */
  violated(what: string): void {
    this.#stop(`it chose what it may not: ${what}`);
  }

  #expected(): number {
    const { answers, late } = this.base;
    const known = this.#baseLate >= 0 ? this.#baseLate : this.#allowed;
    return (late + priorAnswers * known) / (answers + priorAnswers);
  }

  #stop(reason: string): void {
    if (this.#verdict === '') this.#verdict = reason;
  }
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}
