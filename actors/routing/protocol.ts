/**
 * Messages of the routing actor: one a gateway. It gathers who is in the grid, what every host serves, and the own
 * catalogue, and publishes routing tables from it at a bounded rate.
 */
import type { Catalog } from '#core/catalog.js';
import type { DeviceId } from '#core/ids.js';
import type { ViewNews } from '#actors/membership/protocol.js';
import type { ReplyTo } from '#runtime/actor.js';

export type RoutingMessage =
  /** Membership, told by the membership actor: subscribe the routing actor there. */
  | { readonly type: 'news'; readonly news: ViewNews }
  /** The own host's registry has another catalogue. */
  | { readonly type: 'catalog'; readonly catalog: Catalog }
  /** A device of the own host became able or unable to take requests. */
  | { readonly type: 'ready'; readonly device: DeviceId; readonly ready: boolean }
  /** Answered once everything was read from the store, and who is in the grid, and is in a published table: before, models seem not to be there. */
  | { readonly type: 'whole'; readonly replyTo: ReplyTo<{ readonly ok: true }> };
