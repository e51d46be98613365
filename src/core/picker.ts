/**
 * The picker decides which replica takes a request. Immutable, published whole by the slow side (policy, membership,
 * health); the hot path calls `pick`, acts and records. No await, no lock, no logging, no allocation here.
 */
import type { ReplicaStanding } from './grid/standing.js';
import type { InferenceOutcome, InferenceRequest } from './inference.js';
import type { Replica, ReplicaLoad } from './replica.js';

export interface Candidate {
  readonly replica: Replica;
  /** Shared with the sender, who updates it. */
  readonly load: ReplicaLoad;
  /** What this gateway has learned of the replica's device and host; absent outside of a grid. */
  readonly standing?: ReplicaStanding;
}

/** Answer of a picker that refuses the request, though a candidate could take it: it would be late. */
export const shedPick = -2;

/** Why a request was refused. */
export interface ShedReason {
  /** SLO class of the request. */
  readonly class: string;
  /** Milliseconds from its arrival to a timely answer. */
  readonly sloMs: number;
  /** Milliseconds from its arrival to the soonest answer any candidate could give, as predicted. */
  readonly soonestMs: number;
}

/** Told of every attempt, by a gateway whose picker reckons what devices have in their hands. Must not throw. */
export interface AttemptObserver {
  began(candidate: Candidate, request: InferenceRequest, nowMs: number): void;
  /** Without an outcome the device never took it. */
  ended(candidate: Candidate, request: InferenceRequest, nowMs: number, outcome: InferenceOutcome | undefined): void;
}

export interface Picker {
  /** Name of the policy that made it; goes into receipts and the decision log. */
  readonly policy: string;
  /**
   * Index of the chosen candidate, -1 when none may take the request, or `shedPick`.
   * `exclude` holds replicas that already failed this request. With `nowMs` Infinity no ban holds any more.
   */
  pick(
    request: InferenceRequest,
    candidates: readonly Candidate[],
    nowMs: number,
    exclude: ReadonlySet<string>,
  ): number;
  /** Why the last pick refused its request; asked at once. Only pickers that answer `shedPick` have it. */
  explainShed?(): ShedReason;
}
