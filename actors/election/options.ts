/** What an election actor is given. */
import type { GridKeys } from '#core/grid/keys.js';
import type { HostId } from '#core/ids.js';
import type { Store } from '#ports/store.js';
import type { MembershipMessage } from '#actors/membership/protocol.js';
import type { ActorRef } from '#runtime/actor.js';

export interface ElectionOptions {
  readonly host: HostId;
  /** Text of this process, as in its record. */
  readonly process: string;
  readonly store: Store;
  readonly keys: GridKeys;
  readonly membership: ActorRef<MembershipMessage>;
  /** False: it only says who leads. */
  readonly isCandidate: boolean;
  /** Time to live of the leader's lease, ms, default 6,000. Shorter: a lost leader is replaced sooner. */
  readonly leaseMs?: number;
  /** Time for one call of the store, ms, default 3,000. */
  readonly callMs?: number;
}
