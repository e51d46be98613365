/**
 * The learned dispatch policy: one network scores the rows of the candidates (of many, those of a shortlist), the best is chosen. Around it the
 * shield: what the network may not be trusted with goes to a rule, decision by decision, and the reasons are counted.
 *
 * The mask is not learned and not scored: a masked candidate cannot be chosen, whatever its score.
 */
import { Breaker, type BreakerOptions } from '#core/scheduling/breaker.js';
import {
  NONE,
  SHED,
  type Chance,
  type ChoiceTrace,
  type DispatchCandidate,
  type DispatchPolicy,
  type DispatchRequest,
  type FleetView,
} from '#core/scheduling/dispatch-view.js';
import {
  featureCount,
  measureScale,
  planFeatureCount,
  writeFeatures,
  writeShedFeatures,
} from '#core/scheduling/features.js';
import type { TrainedRanges } from '#core/scheduling/policy-file.js';
import type { RatePlan } from '#core/scheduling/rate-plan.js';
import {
  checkRare,
  checkRow,
  checkStale,
  fallbackReasons,
  shieldRanges,
  type FallbackReason,
  type ShieldRanges,
} from '#core/scheduling/shield.js';
import { defaultSloRules, type SloClass, type SloRules } from '#core/scheduling/slo-class.js';
import type { Scorer } from '#ports/scorer.js';
import { Shortlist, shortlistMax } from './shortlist.js';

export interface LearnedDispatchOptions {
  readonly name: string;
  readonly scorer: Scorer;
  /** For networks of schema `dispatch-2`, which see its turns; absent for those of `dispatch-1`. */
  readonly plan?: RatePlan;
  readonly ranges: TrainedRanges;
  /** Decides when the network must not. */
  readonly fallback: DispatchPolicy;
  readonly rules?: SloRules;
  readonly breaker?: BreakerOptions;
  /** News older than this, ms, of every candidate: fall back. Default 2,000. */
  readonly staleMsMax?: number;
  /** Heads that disagree about the best row matter when its lead is smaller than this. Default 0.02. */
  readonly leadMin?: number;
  /** A monotonic clock, ms, to bound the time of scoring; without one it is not bounded. */
  readonly clockMs?: () => number;
  /** Longest time of scoring, ms. Default 1. */
  readonly scoringMsMax?: number;
}

export interface FallbackCounts {
  decisions: number;
  readonly fallbacks: Record<Exclude<FallbackReason, ''>, number>;
}

export class LearnedDispatch implements DispatchPolicy {
  readonly name: string;
  readonly trace: ChoiceTrace;
  readonly counts: FallbackCounts;
  readonly #scorer: Scorer;
  readonly #plan: RatePlan | undefined;
  /** Numbers in a row. */
  readonly #width: number;
  readonly #ranges: ShieldRanges;
  readonly #fallback: DispatchPolicy;
  readonly #rules: SloRules;
  readonly #breaker: Breaker;
  readonly #staleMsMax: number;
  readonly #leadMin: number;
  readonly #clockMs: (() => number) | undefined;
  readonly #scoringMsMax: number;
  readonly #scale = { usd: 0, joules: 0 };
  readonly #shortlist = new Shortlist();
  /** Room for the shortlist and the row of refusing. */
  readonly #rows: Float32Array;
  readonly #scores: Float32Array;

  constructor(options: LearnedDispatchOptions) {
    this.name = options.name;
    this.#scorer = options.scorer;
    const { plan } = options;
    this.#plan = plan;
    this.trace = {
      ...{ propensity: 1, fallback: '', scoreOf: (choice) => this.#scoreOf(choice) },
      ...(plan === undefined ? {} : { writePlan: (candidate, out, offset) => plan.write(candidate, out, offset) }),
    };
    this.#width = plan === undefined ? featureCount : planFeatureCount;
    this.#rows = new Float32Array((shortlistMax + 1) * this.#width);
    this.#scores = new Float32Array((shortlistMax + 1) * options.scorer.outputs);
    this.#ranges = shieldRanges(options.ranges);
    this.#fallback = options.fallback;
    this.#rules = options.rules ?? defaultSloRules;
    this.#breaker = new Breaker(options.breaker);
    this.#staleMsMax = options.staleMsMax ?? 2_000;
    this.#leadMin = options.leadMin ?? 0.02;
    this.#clockMs = options.clockMs;
    this.#scoringMsMax = options.scoringMsMax ?? 1;
    const fallbacks = Object.fromEntries(fallbackReasons.map((reason) => [reason, 0]));
    this.counts = { decisions: 0, fallbacks: fallbacks as FallbackCounts['fallbacks'] };
  }

  /** Times that the breaker opened. */
  get trips(): number {
    return this.#breaker.trips;
  }

  choose(request: DispatchRequest, candidates: readonly DispatchCandidate[], fleet: FleetView, random: Chance): number {
    this.#plan?.observe(request, candidates, fleet);
    const chosen = this.#decide(request, candidates, fleet, random);
    if (chosen >= 0) this.#plan?.chose(candidates[chosen] as DispatchCandidate);
    return chosen;
  }

  #decide(
    request: DispatchRequest,
    candidates: readonly DispatchCandidate[],
    fleet: FleetView,
    random: Chance,
  ): number {
    const { counts, trace } = this;
    counts.decisions += 1;
    trace.propensity = 1;
    trace.fallback = '';
    this.#scored = 0;
    this.#scoredRefusal = false;
    let chosen = NONE;
    let reason: FallbackReason = this.#breaker.isOpen(request.model, request.nowMs) ? 'breaker' : '';
    if (reason === '') reason = checkStale(candidates, this.#staleMsMax);
    if (reason === '') {
      chosen = this.#score(request, candidates, fleet);
      reason = this.#reason;
    }
    if (reason !== 'breaker') this.#breaker.decided(request.model, reason !== '', request.nowMs);
    if (reason === '') return chosen;
    counts.fallbacks[reason] += 1;
    trace.fallback = reason;
    return this.#fallback.choose(request, candidates, fleet, random);
  }

  finished(model: string, sloClass: SloClass, late: boolean, nowMs: number): void {
    this.#breaker.answered(model, late, this.#rules[sloClass].allowedMiss, nowMs);
  }

  /** Rows that the last choice scored, and whether refusing was one of them. */
  #scored = 0;
  #scoredRefusal = false;

  /** Mean score of all heads. */
  #scoreOf(choice: number): number {
    const candidates = this.#scored - (this.#scoredRefusal ? 1 : 0);
    let row = candidates;
    if (choice === SHED) {
      if (!this.#scoredRefusal) return Number.NaN;
    } else {
      row = 0;
      while (row < candidates && this.#shortlist.indices[row] !== choice) row += 1;
      if (row === candidates) return Number.NaN;
    }
    const { outputs } = this.#scorer;
    let sum = 0;
    for (let head = 0; head < outputs; head += 1) sum += this.#scores[row * outputs + head] as number;
    return sum / outputs;
  }

  /** Why the last scoring is not to be used; empty when it is. */
  #reason: FallbackReason = '';

  #score(request: DispatchRequest, candidates: readonly DispatchCandidate[], fleet: FleetView): number {
    const shortlist = this.#shortlist;
    shortlist.fill(request, candidates, fleet);
    this.#reason = '';
    const count = shortlist.length;
    if (count === 0) return NONE;
    const rows = this.#rows;
    const width = this.#width;
    measureScale(candidates, candidates.length, fleet, this.#scale);
    for (let row = 0; row < count; row += 1) {
      const candidate = candidates[shortlist.indices[row] as number] as DispatchCandidate;
      writeFeatures(request, candidate, fleet, this.#scale, rows, row * width);
      this.#plan?.write(candidate, rows, row * width + featureCount);
    }
    const rowCount = request.mayShed ? count + 1 : count;
    if (request.mayShed) {
      writeShedFeatures(request, candidates, candidates.length, fleet, this.#scale, rows, count * width);
      rows.fill(0, count * width + featureCount, (count + 1) * width);
    }
    for (let row = 0; row < rowCount; row += 1) {
      const doubt = checkRow(rows, row * width, this.#ranges);
      if (doubt === '') continue;
      this.#reason = doubt;
      return NONE;
    }
    const startMs = this.#clockMs?.() ?? 0;
    this.#scorer.score(rows, rowCount, this.#scores);
    this.#scored = rowCount;
    this.#scoredRefusal = request.mayShed;
    if (this.#clockMs !== undefined && this.#clockMs() - startMs > this.#scoringMsMax) {
      this.#reason = 'time';
      return NONE;
    }
    const best = this.#best(rowCount);
    if (best < 0) return NONE;
    this.#reason = checkRare(rows, best * width, this.#ranges);
    return best === count ? SHED : (shortlist.indices[best] as number);
  }

  /** The row with the highest mean score of all heads; -1 when there is a reason not to use the scores. */
  #best(rowCount: number): number {
    const { outputs } = this.#scorer;
    const scores = this.#scores;
    let best = -1;
    let most = -Infinity;
    let second = -Infinity;
    for (let row = 0; row < rowCount; row += 1) {
      let sum = 0;
      for (let head = 0; head < outputs; head += 1) sum += scores[row * outputs + head] as number;
      if (Number.isNaN(sum)) {
        this.#reason = 'nan';
        return -1;
      }
      if (best < 0 || sum > most) {
        second = most;
        most = sum;
        best = row;
      } else if (sum > second) second = sum;
    }
    if (outputs > 1 && (most - second) / outputs < this.#leadMin && this.#disagrees(rowCount, best)) {
      this.#reason = 'disagreement';
      return -1;
    }
    return best;
  }

  /** Whether a head alone would clearly choose another row: by more than the lead that does not matter. */
  #disagrees(rowCount: number, best: number): boolean {
    const { outputs } = this.#scorer;
    const scores = this.#scores;
    for (let row = 0; row < rowCount; row += 1) {
      for (let head = 0; head < outputs; head += 1) {
        const lead = (scores[row * outputs + head] as number) - (scores[best * outputs + head] as number);
        if (lead > this.#leadMin) return true;
      }
    }
    return false;
  }
}
