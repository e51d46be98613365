/**
 * Messages of the election actor: one on each host that may lead. Whoever leads tells its epoch with everything it writes,
 * by the condition `fence`; whoever is told `leading: false` stops at once.
 */
import type { LeaderFence } from '#core/grid/election.js';
import type { HostId } from '#core/ids.js';
import type { ReplyTo } from '#runtime/actor.js';

export type Leadership =
  | {
      readonly leading: true;
      /** Create revision of the leader's key; larger than every earlier leader's. */
      readonly epoch: number;
      /** Condition for every transaction of this leader. */
      readonly fence: LeaderFence;
    }
  | {
      readonly leading: false;
      /** Who leads as far as is known. */
      readonly leader: HostId | undefined;
      readonly epoch: number;
    };

export type ElectionMessage =
  /** From now on the subscriber is told: at once, and with every change. */
  | { readonly type: 'subscribe'; readonly subscriber: ReplyTo<Leadership> }
  | { readonly type: 'unsubscribe'; readonly subscriber: ReplyTo<Leadership> }
  | { readonly type: 'leadership'; readonly replyTo: ReplyTo<Leadership> }
  /** Gives the lead to somebody else, if it is here, and does not try again. Answered when that is done or has failed. */
  | { readonly type: 'resign'; readonly replyTo: ReplyTo<{ readonly resigned: boolean }> };
