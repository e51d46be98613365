/**
 * What operators ask and order of policies, through any gateway of a grid: the door between the gRPC service of
 * proto/grid.proto and whoever writes the pointer.
 */
import type { PolicyPointer } from '#core/scheduling/promotion.js';
import type { GateFinding } from '#core/scheduling/promotion-gates.js';
import type { PolicySighting, PolicyVersion } from '#core/scheduling/policy-records.js';

export interface PolicyBook {
  readonly pointer: PolicyPointer;
  /** Of the pointer in the store: what a step is made from; 0 while nothing was promoted. */
  readonly revision: number;
  /** Newest first. */
  readonly versions: readonly PolicyVersion[];
  /** Of the policy on trial, by host. */
  readonly sightings: readonly PolicySighting[];
}

export interface PolicyOrder {
  /** `next`: the step after the one that was taken. */
  readonly step: 'next' | 'shadow' | 'share' | 'all' | 'rollback';
  /** A reference, or the name of a version; empty: the one of `artifact`, or the one on trial. */
  readonly policy: string;
  /** File of a policy that is stored first; empty for none. */
  readonly artifact: Uint8Array;
  /** File of the batching policy that goes with it; empty or absent for none. */
  readonly batching?: Uint8Array;
  /** Reports as JSON; empty: those that were given before. */
  readonly evaluationJson: string;
  readonly calibrationJson: string;
  /** 0 for what holds already. */
  readonly percent: number;
  readonly sliceSeconds: number;
  readonly seed: number;
  readonly reason: string;
  /** Gates are passed over; the reason is written down. */
  readonly force: boolean;
  /** Least figures of the gates; 0 for the defaults. */
  readonly decisionsMin: number;
  readonly answersMin: number;
  readonly shareMinutesMin: number;
  /** Revision that the operator saw; negative for whatever it is. */
  readonly expectedRevision: number;
  /** Says what would happen, and changes nothing. */
  readonly dryRun: boolean;
}

export interface PolicyOutcome {
  readonly applied: boolean;
  readonly gates: readonly GateFinding[];
  /** How it is, or would be, in a line. */
  readonly text: string;
  readonly book: PolicyBook;
}

/** Until when, monotonic ms; Infinity without a deadline. */
export interface PolicyCall {
  readonly deadlineMs: number;
}

export interface PolicyAdmin {
  /** @throws STORE_UNAVAILABLE. */
  policies(call: PolicyCall): Promise<PolicyBook>;
  /**
   * @throws MODEL_INVALID (a file), NOT_FOUND (the version), INVALID_ARGUMENT, FAILED_PRECONDITION (nothing would change, or
   * somebody changed it meanwhile), RESOURCE_EXHAUSTED (too many versions), STORE_UNAVAILABLE.
   */
  orderPolicy(order: PolicyOrder, call: PolicyCall): Promise<PolicyOutcome>;
}
