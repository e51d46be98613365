/**
 * Stops trusting a policy for a model when its answers come late more often than they may, or when it needs its rule too often.
 *
 * Lateness is summed as CUSUM does: each late answer adds, each answer in time takes a little away, nothing below 0. A rate that
 * is a little too high trips after many answers, one that is far too high after few; a rate that is allowed never does. The limit
 * grows with the rate of answers, so that one late batch of a busy model is no reason. Decisions that were left to the rule are
 * counted as a share of the recent ones.
 *
 * It opens for a short time first and is then on trial: what trips it again on trial keeps it open for twice as long as before.
 * So a moment of strangeness costs seconds, and a policy that does not fit here decides ever more seldom. What came late while
 * the rule decided is forgiven on trial: under overload both are late, and the rule is no better then.
 */

export interface BreakerOptions {
  /** Lateness beyond what is allowed that is still no reason, share of answers. Default 0.05. */
  readonly slack?: number;
  /** Sum at which it opens where that is more than the answers of the last second: about as many late answers too many. Default 8. */
  readonly limit?: number;
  /** Share of decisions that may fall back. Default 0.2. */
  readonly fallbackShareMax?: number;
  /** Milliseconds it stays open at first. Default 10 seconds. */
  readonly openMs?: number;
  /** Milliseconds it stays open at most. Default 10 minutes. */
  readonly openMsMax?: number;
}

interface Watch {
  sum: number;
  /** Answers of about the last second, too few by `unseen` while little time has been seen. */
  recent: number;
  /** Weight that the mean gives to times before the first answer. */
  unseen: number;
  answeredMs: number;
  openUntilMs: number;
  /** How long it was open last; 0 before the first time. */
  openMs: number;
  /** Answers while it was open last, and how many of them were late. */
  openAnswers: number;
  openLate: number;
  /** When the counts were halved last. */
  halvedMs: number;
  decisions: number;
  fallbacks: number;
}

/** Fewer decisions say nothing of their share. */
const decisionsMin = 100;
/** Counts of decisions are halved so often, where enough are left: what was before says less than what is now. */
const halfLifeMs = 10_000;
/** Fewer answers say nothing of the rule's lateness. */
const answersMin = 50;
/** So long after it opened again it is on trial, or as long as it was open where that is longer. */
const trialMsMin = 60_000;

export class Breaker {
  readonly #slack: number;
  readonly #limit: number;
  readonly #fallbackShareMax: number;
  readonly #openMs: number;
  readonly #openMsMax: number;
  readonly #watches = new Map<string, Watch>();
  /** How often it opened. */
  trips = 0;

  constructor(options: BreakerOptions = {}) {
    this.#slack = options.slack ?? 0.05;
    this.#limit = options.limit ?? 8;
    this.#fallbackShareMax = options.fallbackShareMax ?? 0.2;
    this.#openMs = options.openMs ?? 10_000;
    this.#openMsMax = options.openMsMax ?? 600_000;
  }

  isOpen(model: string, nowMs: number): boolean {
    const watch = this.#watches.get(model);
    return watch !== undefined && watch.openUntilMs > nowMs;
  }

  /** An answer of a request that the policy or its rule dispatched; `allowed` is the share that may be late. */
  answered(model: string, late: boolean, allowed: number, nowMs: number): void {
    const watch = this.#watchOf(model, nowMs);
    const left = Math.exp((watch.answeredMs - nowMs) / 1000);
    watch.recent = watch.recent * left + 1;
    watch.unseen *= left;
    watch.answeredMs = nowMs;
    if (watch.openUntilMs > nowMs) {
      watch.openAnswers += 1;
      if (late) watch.openLate += 1;
      return;
    }
    const onTrial = isOnTrial(watch, nowMs);
    const ruleLate = onTrial && watch.openAnswers >= answersMin ? watch.openLate / watch.openAnswers : 0;
    watch.sum = Math.max(0, watch.sum + (late ? 1 : 0) - Math.max(allowed, ruleLate) - this.#slack);
    if (watch.sum > Math.max(this.#limit, watch.recent / (1 - watch.unseen))) this.#open(watch, nowMs);
  }

  decided(model: string, fellBack: boolean, nowMs: number): void {
    const watch = this.#watchOf(model, nowMs);
    if (watch.openUntilMs > nowMs) return;
    if (nowMs - watch.halvedMs > halfLifeMs && watch.decisions >= 2 * decisionsMin) {
      watch.halvedMs = nowMs;
      watch.decisions /= 2;
      watch.fallbacks /= 2;
    }
    watch.decisions += 1;
    if (fellBack) watch.fallbacks += 1;
    if (watch.decisions >= decisionsMin && watch.fallbacks > this.#fallbackShareMax * watch.decisions) {
      this.#open(watch, nowMs);
    }
  }

  #open(watch: Watch, nowMs: number): void {
    this.trips += 1;
    watch.openMs = isOnTrial(watch, nowMs) ? Math.min(2 * watch.openMs, this.#openMsMax) : this.#openMs;
    watch.openUntilMs = nowMs + watch.openMs;
    watch.openAnswers = 0;
    watch.openLate = 0;
    watch.sum = 0;
    watch.decisions = 0;
    watch.fallbacks = 0;
  }

  #watchOf(model: string, nowMs: number): Watch {
    let watch = this.#watches.get(model);
    if (watch === undefined) {
      watch = {
        ...{ sum: 0, recent: 0, unseen: 1, answeredMs: nowMs, decisions: 0, fallbacks: 0, halvedMs: nowMs },
        ...{ openUntilMs: -Infinity, openMs: 0, openAnswers: 0, openLate: 0 },
      };
      this.#watches.set(model, watch);
    }
    return watch;
  }
}

/** Whether it was open not long ago. */
function isOnTrial({ openUntilMs, openMs }: Watch, nowMs: number): boolean {
  return nowMs < openUntilMs + Math.max(trialMsMin, openMs);
}
