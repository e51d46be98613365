/**
 * The dispatch policy of a grid's gateway: the one that was promoted, with what it takes to promote and to take back. On trial
 * as a shadow, the base decides and the policy is asked beside it; with a share, it decides in its time slices. What it may not
 * choose is never carried out: the base decides then, and the fault is kept for whoever takes it back.
 *
 * A change takes effect between two decisions; what was decided before is not touched.
 */
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
import { groupsMax, type DisagreementGroup, type PolicySighting } from '#core/scheduling/policy-records.js';
import type { PolicyPointer } from '#core/scheduling/promotion.js';
import { RolloutWatch } from '#core/scheduling/rollout-watch.js';
import { defaultSloRules, type SloClass, type SloRules } from '#core/scheduling/slo-class.js';
import { Slices } from '#core/scheduling/switchback.js';
import { LearnedDispatch } from './dispatch-learned.js';

export interface PromotedDispatchOptions {
  /** Decides until something is promoted. */
  readonly own: DispatchPolicy;
  /** Of the policy on trial as a shadow: its draws change nothing of what the base decides. */
  readonly random: Chance;
  readonly rules?: SloRules;
  /** A monotonic clock, ms, that measures choices; without one their time is not known. */
  readonly clockMs?: () => number;
}

/** What is followed: the pointer, and its policies where this gateway could load them. */
export interface FollowedPolicies {
  readonly pointer: PolicyPointer;
  /** Undefined: it cannot be used here, and the base decides. */
  readonly policy: DispatchPolicy | undefined;
  readonly base: DispatchPolicy;
  /** Wall clock less monotonic clock, ms. */
  readonly wallOffsetMs: number;
  /** Monotonic, ms. */
  readonly nowMs: number;
}

type Group = { -readonly [Key in keyof DisagreementGroup]: DisagreementGroup[Key] };

/** Upper bounds of the measured times of a choice, µs: each a quarter more than the one before. */
const latencyBuckets = 48;
const bucketOf = (us: number): number =>
  us <= 1 ? 0 : Math.min(latencyBuckets - 1, Math.ceil(Math.log(us) / Math.log(1.25)));

export class PromotedDispatch implements DispatchPolicy {
  readonly #options: PromotedDispatchOptions;
  readonly #rules: SloRules;
  /** Of the own policy and of all that were followed before. */
  readonly #retired = new Map<string, number>();
  #followed: FollowedPolicies | undefined;
  #slices: Slices | undefined;
  #watch: RolloutWatch | undefined;
  #last: DispatchPolicy;
  #tripsBefore = 0;
  #decisions = 0;
  #fallbacks = 0;
  #groups = new Map<string, Group>();
  #latencies = new Float64Array(latencyBuckets);

  constructor(options: PromotedDispatchOptions) {
    this.#options = options;
    this.#rules = options.rules ?? defaultSloRules;
    this.#last = options.own;
  }

  /** Whoever made the last choice. */
  get name(): string {
    return this.#last.name;
  }

  get trace(): ChoiceTrace {
    return this.#last.trace ?? certain;
  }

  /** Why the policy is to be taken back; empty while it is not. */
  get verdict(): string {
    return this.#watch?.verdict ?? '';
  }

  /** Decisions left to a rule by reason, of every learned policy that decided here. */
  get fallbacks(): Readonly<Record<string, number>> {
    const sums = new Map(this.#retired);
    for (const policy of this.#deciding()) addFallbacks(sums, policy);
    return Object.fromEntries(sums);
  }

  /** From the next decision on. */
  follow(followed: FollowedPolicies): void {
    const { pointer, policy } = followed;
    const before = this.#followed;
    const kept = new Set([this.#options.own, policy, followed.base]);
    for (const each of this.#deciding()) if (!kept.has(each)) addFallbacks(this.#retired, each);
    this.#followed = followed;
    this.#slices = pointer.mode === 'share' ? new Slices(pointer, followed.wallOffsetMs) : undefined;
    this.#watch =
      policy === undefined || pointer.mode === 'rule' || pointer.mode === 'shadow'
        ? undefined
        : new RolloutWatch({ baseLate: pointer.baseLate });
    this.#tripsBefore = tripsOf(policy);
    // What was seen of the policy stays while the same one is on trial: a larger share does not begin anew.
    if (before?.policy === policy && before?.pointer.policy === pointer.policy) return;
    this.#decisions = 0;
    this.#fallbacks = 0;
    this.#groups = new Map();
    this.#latencies = new Float64Array(latencyBuckets);
  }

  choose(request: DispatchRequest, candidates: readonly DispatchCandidate[], fleet: FleetView, random: Chance): number {
    const followed = this.#followed;
    if (followed === undefined) return this.#by(this.#options.own, request, candidates, fleet, random);
    const { policy, base, pointer } = followed;
    if (policy === undefined || pointer.mode === 'rule') return this.#by(base, request, candidates, fleet, random);
    if (pointer.mode === 'shadow') {
      const chosen = this.#by(base, request, candidates, fleet, random);
      const other = this.#ask(policy, request, candidates, fleet, this.#options.random);
      this.#compare(request, chosen, other);
      return chosen;
    }
    if (this.#slices !== undefined && !this.#slices.isTrial(request.nowMs)) {
      return this.#by(base, request, candidates, fleet, random);
    }
    const chosen = this.#ask(policy, request, candidates, fleet, random);
    this.#watch?.decided(isFallback(policy));
    if (tripsOf(policy) > this.#tripsBefore) this.#watch?.tripped();
    const fault = faultOf(chosen, request, candidates);
    if (fault === '') {
      this.#last = policy;
      return chosen;
    }
    this.#watch?.violated(fault);
    return this.#by(policy === base ? this.#options.own : base, request, candidates, fleet, random);
  }

  finished(model: string, sloClass: SloClass, late: boolean, nowMs: number, arrivedMs = nowMs): void {
    const followed = this.#followed;
    if (followed === undefined) {
      this.#options.own.finished?.(model, sloClass, late, nowMs);
      return;
    }
    const { policy, base, pointer, nowMs: sinceMs } = followed;
    // What arrived before the change was decided by whoever decided then.
    if (arrivedMs < sinceMs) return;
    const decides = pointer.mode === 'all' || (pointer.mode === 'share' && this.#slices?.isTrial(arrivedMs) === true);
    const byPolicy = decides && policy !== undefined;
    (byPolicy ? policy : base).finished?.(model, sloClass, late, nowMs);
    if (this.#slices?.isSettled(arrivedMs) === false) return;
    this.#watch?.answered(byPolicy ? 'policy' : 'base', late, this.#rules[sloClass].allowedMiss);
    if (byPolicy && tripsOf(policy) > this.#tripsBefore) this.#watch?.tripped();
  }

  /** What this gateway saw of the policy on trial. */
  sighting(): Pick<PolicySighting, 'figures' | 'groups'> {
    const policy = this.#watch?.policy;
    const base = this.#watch?.base;
    return {
      figures: {
        decisions: this.#decisions,
        fallbacks: this.#fallbacks,
        latencyUsP99: percentile(this.#latencies, 0.99),
        answers: policy?.answers ?? 0,
        late: policy?.late ?? 0,
        baseAnswers: base?.answers ?? 0,
        baseLate: base?.late ?? 0,
      },
      groups: [...this.#groups.values()].map((group) => ({ ...group })),
    };
  }

  #by(
    policy: DispatchPolicy,
    request: DispatchRequest,
    candidates: readonly DispatchCandidate[],
    fleet: FleetView,
    random: Chance,
  ): number {
    this.#last = policy;
    return policy.choose(request, candidates, fleet, random);
  }

  /** A choice of the policy on trial or promoted, measured. */
  #ask(
    policy: DispatchPolicy,
    request: DispatchRequest,
    candidates: readonly DispatchCandidate[],
    fleet: FleetView,
    random: Chance,
  ): number {
    const { clockMs } = this.#options;
    const startMs = clockMs?.() ?? 0;
    const chosen = policy.choose(request, candidates, fleet, random);
    if (clockMs !== undefined) {
      const bucket = bucketOf((clockMs() - startMs) * 1000);
      this.#latencies[bucket] = (this.#latencies[bucket] ?? 0) + 1;
    }
    this.#decisions += 1;
    if (isFallback(policy)) this.#fallbacks += 1;
    return chosen;
  }

  #compare(request: DispatchRequest, chosen: number, other: number): void {
    const key = `${request.class} ${request.model}`;
    let group = this.#groups.get(key);
    if (group === undefined) {
      // Models beyond the bound are counted together.
      const isFull = this.#groups.size >= groupsMax - 3;
      const model = isFull ? 'others' : request.model;
      group = this.#groups.get(`${request.class} ${model}`) ?? {
        model,
        class: request.class,
        decisions: 0,
        disagreements: 0,
      };
      this.#groups.set(isFull ? `${request.class} others` : key, group);
    }
    group.decisions += 1;
    if (chosen !== other) group.disagreements += 1;
  }

  #deciding(): ReadonlySet<DispatchPolicy> {
    const { own } = this.#options;
    const { policy = own, base = own } = this.#followed ?? {};
    return new Set([own, policy, base]);
  }
}

const certain: ChoiceTrace = { propensity: 1, fallback: '' };

function isFallback({ trace }: DispatchPolicy): boolean {
  return trace !== undefined && trace.fallback !== '';
}

function tripsOf(policy: DispatchPolicy | undefined): number {
  return policy instanceof LearnedDispatch ? policy.trips : 0;
}

/** Why a choice may not be carried out; empty when it may. */
function faultOf(chosen: number, { mayShed }: DispatchRequest, candidates: readonly DispatchCandidate[]): string {
  if (chosen === NONE) return '';
  if (chosen === SHED) return mayShed ? '' : 'refused a request that may not be refused';
  const masked = candidates[chosen]?.masked ?? 'no candidate';
  return masked === '' ? '' : `a candidate that is masked: ${masked}`;
}

function addFallbacks(sums: Map<string, number>, policy: DispatchPolicy): void {
  if (!(policy instanceof LearnedDispatch)) return;
  for (const [reason, count] of Object.entries(policy.counts.fallbacks)) {
    sums.set(reason, (sums.get(reason) ?? 0) + count);
  }
}

/** Upper bound of the bucket that holds the percentile, µs; 0 when nothing was measured. */
function percentile(buckets: Float64Array, share: number): number {
  const total = buckets.reduce((sum, count) => sum + count, 0);
  if (total === 0) return 0;
  let seen = 0;
  for (const [bucket, count] of buckets.entries()) {
    seen += count;
    if (seen >= share * total) return 1.25 ** bucket;
  }
  return Infinity;
}
