/**
 * The picker decides which replica takes a request. Immutable, published whole by the slow side (policy, membership,
 * health); the hot path calls `pick`, acts and records. No await, no lock, no logging, no allocation here.
 */
import type { ReplicaStanding } from './grid/standing.js';
import type { InferenceRequest } from './inference.js';
import type { Replica, ReplicaLoad } from './replica.js';

export interface Candidate {
  readonly replica: Replica;
  /** Shared with the sender, who updates it. */
  readonly load: ReplicaLoad;
  /** What this gateway has learned of the replica's device and host; absent outside of a grid. */
  readonly standing?: ReplicaStanding;
}

export interface Picker {
  /** Name of the policy that made it; goes into receipts and the decision log. */
  readonly policy: string;
  /**
   * Index of the chosen candidate, or -1 when none may take the request.
   * `exclude` holds replicas that already failed this request. With `nowMs` Infinity no ban holds any more.
   */
  pick(
    request: InferenceRequest,
    candidates: readonly Candidate[],
    nowMs: number,
    exclude: ReadonlySet<string>,
  ): number;
}
