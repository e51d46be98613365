/** What the routing actor needs. */
import type { GridRoutingTable } from '#core/grid/grid-table.js';
import type { GridKeys } from '#core/grid/keys.js';
import type { HostId } from '#core/ids.js';
import type { Picker } from '#core/picker.js';
import type { Store } from '#ports/store.js';
import type { ActorRef } from '#runtime/actor.js';
import type { MembershipMessage } from '#actors/membership/protocol.js';

export interface RoutingOptions {
  readonly host: HostId;
  readonly keys: GridKeys;
  readonly store: Store;
  readonly picker: Picker;
  /** Subscribed to at the start; absent where somebody else sends `news`. */
  readonly membership?: Pick<ActorRef<MembershipMessage>, 'tell'>;
  /** Gets each table. Called at most once in `publishMsMin`. */
  readonly publish: (table: GridRoutingTable) => void;
  /** Least time between two tables, ms. 0 to 10,000, default 50. Higher: less work in a grid that changes much, later news. */
  readonly publishMsMin?: number;
  /** Milliseconds a read of the store may take, default 5,000. */
  readonly readMsMax?: number;
}
