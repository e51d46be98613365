/**
 * Messages of a peer: one on each host for every other host, named `peer-<host>`. It stands for the other host's devices:
 * the router has a `RemoteDevice` of it where a local device has its own reference.
 */
import type { InferenceOutcome } from '#core/inference.js';

export interface PeerReply {
  readonly type: 'outcome';
  readonly number: number;
  readonly outcome: InferenceOutcome;
  /** Microseconds from the request's arrival at the other host to this answer. */
  readonly hostUs: number;
}

export type PeerMessage = PeerReply;
