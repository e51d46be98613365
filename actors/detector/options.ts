/** What a detector actor is given. */
import type { DetectorOptions } from '#core/grid/detector-options.js';
import type { DeviceLoad } from '#core/grid/host-load.js';
import type { GridKeys } from '#core/grid/keys.js';
import type { HostId } from '#core/ids.js';
import type { Store } from '#ports/store.js';
import type { MembershipMessage } from '#actors/membership/protocol.js';
import type { ActorRef, ReplyTo } from '#runtime/actor.js';
import type { DetectorMessage } from './protocol.js';

export interface DetectorActorOptions {
  readonly host: HostId;
  /** Text of this process, as in its record. */
  readonly process: string;
  readonly store: Store;
  readonly keys: GridKeys;
  readonly membership: ActorRef<MembershipMessage>;
  /** The detector of another host, by its well-known address. */
  readonly detectorOf: (host: HostId) => ReplyTo<DetectorMessage>;
  /** What the host's devices are doing now: cheap, called up to 5 times a second. */
  readonly readLoad: () => readonly DeviceLoad[];
  readonly limits?: Partial<Omit<DetectorOptions, 'host' | 'process'>>;
  /** Membership is told what is new at most this often, ms, default 250. */
  readonly tellMs?: number;
  /** Time for one call of the store, ms, default 5,000. */
  readonly callMs?: number;
}
