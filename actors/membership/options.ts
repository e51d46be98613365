/** What a membership actor is given. */
import type { GridKeys } from '#core/grid/keys.js';
import type { HostRecord } from '#core/grid/records.js';
import type { Store } from '#ports/store.js';

export interface MembershipOptions {
  readonly store: Store;
  readonly keys: GridKeys;
  /** What the host is. `linkAddress` is one it listens on already: a record with the same one is taken over. */
  readonly record: HostRecord;
  /** Time to live of the host's lease, ms, default 10,000. Longer: a dead host stays longer in views, as a suspect. */
  readonly leaseMs?: number;
  /** Time for one call of the store, ms, default 5,000. */
  readonly callMs?: number;
  /** Vanished hosts are carried for so long after this host is registered again, ms, default 30,000. */
  readonly carryMs?: number;
}

export interface CompleteMembershipOptions extends Required<MembershipOptions> {
  readonly retryMsMin: number;
  readonly retryMsMax: number;
}

export function completeMembership(options: MembershipOptions): CompleteMembershipOptions {
  return { leaseMs: 10_000, callMs: 5_000, carryMs: 30_000, retryMsMin: 250, retryMsMax: 5_000, ...options };
}
