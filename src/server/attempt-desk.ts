/**
 * What all requests of a gateway share about attempts: limits of time, the budgets of retries and hedges, bans, counts.
 *
 * Budgets bound what trouble may add to the load: retries are at most a fifth of the requests beyond a burst, hedges the
 * share that is configured. A ban is per device, or per host when the host itself does not answer.
 */
import type { ErrorCode } from '#core/errors.js';
import { AttemptCounts, type RetryReason } from '#core/grid/attempt-counts.js';
import { attemptLimitMs, defaultAttemptRules, type AttemptRules } from '#core/grid/attempt-limit.js';
import {
  banFor,
  defaultBanRules,
  forgive,
  learn,
  type BanRules,
  type ReplicaStanding,
  type Standing,
} from '#core/grid/standing.js';
import { TokenBucket } from '#core/grid/token-bucket.js';
import type { InferenceOutcome } from '#core/inference.js';
import type { Candidate } from '#core/picker.js';

export interface AttemptOptions {
  readonly rules?: Partial<AttemptRules>;
  readonly bans?: Partial<BanRules>;
  /** Retries at once beyond the share. 1 to 1,000,000, default 1,000: a host that dies fails all it had in its hands. */
  readonly retryBurst?: number;
  /** Retries a request earns. 0 to 1, default 0.2. Higher: more failures are made good, more load in trouble. */
  readonly retryShare?: number;
  /** Share of requests that may be hedged. 0 to 1, default 0: none. */
  readonly hedgeShare?: number;
}

/** When an attempt was, and what its receipt says. Milliseconds. */
export interface AttemptTimes {
  readonly nowMs: number;
  readonly sentMs: number;
  readonly queueMs: number;
  readonly computeMs: number;
  readonly overdue: boolean;
}

const hedgeBurst = 10;
/** Least time before a hedge, ms: below it the second attempt is hardly ever sooner. */
const hedgeMsMin = 5;
/** Failures in a row after which a device of the own host is left alone: its actor tells of its health by itself. */
const localFailuresMax = 3;

/** Errors that speak against the device. */
const deviceFaults: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['EXECUTOR_LOST', 'DEVICE_UNAVAILABLE']);
/** Errors that speak against the host, when it is another one. */
const hostFaults: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['UNAVAILABLE']);

export class AttemptDesk {
  readonly counts = new AttemptCounts();
  /** A timer that fires later than this, ms, says that this process stood still. */
  readonly lateMsMax = 50;
  /** Longest time others wait for the one that tries a banned replica, ms. */
  readonly probeMsMax = 1000;
  readonly #rules: AttemptRules;
  readonly #bans: BanRules;
  readonly #retries: TokenBucket;
  readonly #hedges: TokenBucket | undefined;
  readonly #localFailures = new WeakMap<Standing, number>();

  constructor(options: AttemptOptions = {}) {
    this.#rules = { ...defaultAttemptRules, ...options.rules };
    this.#bans = { ...defaultBanRules, ...options.bans };
    this.#retries = new TokenBucket(options.retryBurst ?? 1000, options.retryShare ?? 0.2);
    const hedgeShare = options.hedgeShare ?? 0;
    this.#hedges = hedgeShare > 0 ? new TokenBucket(hedgeBurst, hedgeShare) : undefined;
  }

  /** A request begins. */
  begin(): void {
    this.#retries.earn();
    this.#hedges?.earn();
  }

  /** Whether another attempt may be made; counted. */
  takeRetry(reason: RetryReason): boolean {
    if (!this.#retries.take()) {
      this.counts.refused += 1;
      return false;
    }
    this.counts.retries[reason] += 1;
    return true;
  }

  takeHedge(): boolean {
    if (this.#hedges?.take() !== true) return false;
    this.counts.hedges += 1;
    return true;
  }

  limitMs(
    candidate: Candidate,
    request: { readonly items: number; readonly deadlineMs: number },
    nowMs: number,
  ): number {
    return attemptLimitMs(this.#rules, candidate, request, nowMs);
  }

  /** How long to wait before a hedge: what nearly all such attempts take; Infinity when none may be made. */
  hedgeAfterMs({ attemptMs, deviationMs }: ReplicaStanding): number {
    if (this.#hedges === undefined || attemptMs === 0) return Infinity;
    return Math.max(hedgeMsMin, attemptMs + 2 * deviationMs);
  }

  /** What an attempt came to speaks for or against the replica. */
  judge(
    standing: ReplicaStanding,
    outcome: InferenceOutcome,
    { nowMs, sentMs, queueMs, computeMs, overdue }: AttemptTimes,
  ): void {
    if (outcome.ok) {
      const elapsedMs = nowMs - sentMs;
      // The queue counts from the request's arrival, which may be before this attempt.
      const waitedMs = Math.min(queueMs, Math.max(0, elapsedMs - computeMs));
      learn(standing, { nowMs, elapsedMs, queueMs: waitedMs, serviceMs: computeMs, overdue });
      forgive(standing);
      this.#localFailures.delete(standing.device);
      return;
    }
    const { code } = outcome.error;
    if (deviceFaults.has(code)) this.#deviceFailed(standing, nowMs);
    else if (hostFaults.has(code) && !standing.host.local) this.#ban(standing.host, nowMs);
  }

  /** An attempt took too long: another host as a whole, since a stopped process stops all its devices; here the device. */
  overdue(standing: ReplicaStanding, nowMs: number): void {
    if (standing.host.local) this.#deviceFailed(standing, nowMs);
    else this.#ban(standing.host, nowMs);
  }

  /** The device could not even be told. */
  unreachable(standing: ReplicaStanding, nowMs: number): void {
    this.overdue(standing, nowMs);
  }

  #deviceFailed({ device, host }: ReplicaStanding, nowMs: number): void {
    if (host.local) {
      const failures = (this.#localFailures.get(device) ?? 0) + 1;
      this.#localFailures.set(device, failures);
      if (failures < localFailuresMax) return;
    }
    this.#ban(device, nowMs);
  }

  #ban(standing: Standing, nowMs: number): void {
    if (banFor(standing, nowMs, this.#bans)) this.counts.bans += 1;
  }
}
