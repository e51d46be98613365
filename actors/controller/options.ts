/** What a controller is given. */
import type { GridKeys } from '#core/grid/keys.js';
import { defaultReconcileOptions, type ReconcileOptions } from '#core/grid/reconcile-memory.js';
import type { HostId } from '#core/ids.js';
import type { Store } from '#ports/store.js';
import type { ElectionMessage } from '#actors/election/protocol.js';
import type { MembershipMessage } from '#actors/membership/protocol.js';
import type { ActorRef } from '#runtime/actor.js';

export interface ControllerOptions {
  /** The host it is on. */
  readonly host: HostId;
  readonly store: Store;
  readonly keys: GridKeys;
  readonly membership: ActorRef<MembershipMessage>;
  readonly election: ActorRef<ElectionMessage>;
  readonly reconcile?: Partial<ReconcileOptions>;
  /** Time for one call of the store, ms, default 5,000. */
  readonly callMs?: number;
  /** Changes are gathered for so long before they are looked at, ms, default 100. */
  readonly gatherMs?: number;
}

export interface CompleteControllerOptions extends Required<Omit<ControllerOptions, 'reconcile'>> {
  readonly reconcile: ReconcileOptions;
  readonly retryMsMin: number;
  readonly retryMsMax: number;
}

export function completeController(options: ControllerOptions): CompleteControllerOptions {
  return {
    callMs: 5_000,
    gatherMs: 100,
    retryMsMin: 250,
    retryMsMax: 5_000,
    ...options,
    reconcile: { ...defaultReconcileOptions, ...options.reconcile },
  };
}
