/**
 * Messages of the membership actor: one a host. It keeps the host's record in the coordination store and tells this host's
 * other actors who else is there. It never asks the store for permission to go on: without the store the last view stays.
 */
import type { PeerStatus } from '#core/grid/host-load.js';
import type { GridDevice, Generation, View } from '#core/grid/records.js';
import type { HostId } from '#core/ids.js';
import type { IntarsiaError } from '#core/errors.js';
import type { ReplyTo } from '#runtime/actor.js';

/** This host's standing in the grid. */
export interface OwnRegistration {
  readonly generation: Generation;
  /** Lease of the host's record: what ends with the host is put under it. */
  readonly lease: string;
  readonly draining: boolean;
}

export type MembershipPhase =
  /** Not in the store yet, or not any more: it serves on and comes back with a new generation. */
  | 'joining'
  | 'joined'
  /** The name belongs to another process: it does not come back. `error` in the news says whose. */
  | 'refused'
  | 'left';

export interface ViewNews {
  /** Hosts in no particular order. The same object until something changes. */
  readonly view: View;
  readonly phase: MembershipPhase;
  /** Undefined while the host is not registered. */
  readonly self: OwnRegistration | undefined;
  /** Hosts of the view that the store has forgotten and peers have not. */
  readonly carried: ReadonlySet<HostId>;
  /** True while the store cannot be reached: the view is the last one, frozen. */
  readonly stale: boolean;
  /** Last moment on this host's monotonic clock at which the view was known to be fresh, ms. */
  readonly freshMs: number;
  /** What this host knows of the others from probes and news. */
  readonly peers: ReadonlyMap<HostId, PeerStatus>;
  /** Why it was refused. */
  readonly error: IntarsiaError | undefined;
}

export type JoinOutcome =
  { readonly ok: true; readonly generation: Generation } | { readonly ok: false; readonly error: IntarsiaError };

export interface DrainOutcome {
  /** Whether the store has taken the news that this host is draining. */
  readonly announced: boolean;
  /** Peers that are known to have it in their view, of how many. */
  readonly acknowledged: number;
  readonly peers: number;
}

export type MembershipMessage =
  /**
   * From now on the subscriber is told: at once, and with every change, gathered where there are many. `members`: not when nothing
   * but `peers` and `freshMs` are others than before, which they are several times a second.
   */
  | { readonly type: 'subscribe'; readonly subscriber: ReplyTo<ViewNews>; readonly about?: 'members' }
  | { readonly type: 'unsubscribe'; readonly subscriber: ReplyTo<ViewNews> }
  | { readonly type: 'view'; readonly replyTo: ReplyTo<ViewNews> }
  /** Answered when the host is registered or refused for good. */
  | { readonly type: 'join'; readonly replyTo: ReplyTo<JoinOutcome> }
  /** The host's devices have changed. */
  | { readonly type: 'devices'; readonly devices: readonly GridDevice[] }
  /** What the detector knows. */
  | { readonly type: 'peers'; readonly peers: ReadonlyMap<HostId, PeerStatus> }
  /** Says `draining` in the store and waits until all peers know, or for so many milliseconds. Then answers. */
  | { readonly type: 'drain'; readonly waitMsMax: number; readonly replyTo: ReplyTo<DrainOutcome> }
  /** Deletes the host's record and revokes its lease. For good. */
  | { readonly type: 'leave'; readonly replyTo: ReplyTo<{ readonly deregistered: boolean }> };
