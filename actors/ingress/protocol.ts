/**
 * Messages of the ingress: one on each host, under the well-known path `ingress`. It takes requests that gateways of other
 * hosts send to this host's devices. What it answers is in the peer's protocol: the outcome goes to the peer that asked.
 *
 * No moment crosses hosts: a deadline travels as the milliseconds that are left, and numbers of requests are the sender's.
 */
import type { DeviceId } from '#core/ids.js';
import type { InferenceRequest } from '#core/inference.js';
import type { PeerReply } from '#actors/peer/protocol.js';
import type { ActorRef } from '#runtime/actor.js';

export const ingressPath = 'ingress';

/** A request without what only its own host understands. */
export type RemoteRequest = Omit<InferenceRequest, 'id' | 'deadlineMs' | 'arrivedMs'>;

export type IngressMessage =
  /** Queue a request on a device of this host. Exactly one outcome goes to the peer, unless the peer goes first. */
  | {
      readonly type: 'infer';
      /** The sender's number of it, unique for the life of the peer. */
      readonly number: number;
      readonly device: DeviceId;
      readonly request: RemoteRequest;
      /** Milliseconds that are left until nobody wants the answer; Infinity without a deadline. */
      readonly leftMs: number;
      readonly peer: ActorRef<PeerReply>;
    }
  /** Nobody wants the answer any more; there will be none. */
  | { readonly type: 'cancel'; readonly number: number; readonly peer: ActorRef<PeerReply> }
  /** From this host itself: everything that is held is refused retryably and cancelled, and so is what comes. */
  | { readonly type: 'depart' };
