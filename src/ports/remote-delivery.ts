/**
 * The way out of a host: through it an actor system hands over what is addressed to an actor of another host.
 *
 * Promises:
 * - `send` neither waits nor throws. It answers what is known at once: `accepted` when the message was taken into the
 *   outgoing queue to that host, `full` when that queue is at its bound in messages or bytes, `stopped` when the host is
 *   known to be gone. `accepted` says nothing about arrival: delivery is at most once.
 * - Messages of one sender to one receiver arrive in the order of the calls or not at all, and only at the incarnation
 *   they are addressed to; one that finds another incarnation goes to the dead letters over there.
 * - The message belongs to the port once it was handed over and is not changed by either side. References inside it
 *   (anything with an `address`) travel as addresses; the other side makes references of them with `system.ref`. The
 *   reply address of an `ask` to another host is such a reference too.
 * - `watch` calls `onEnd` at most once: when that actor stopped, when it does not exist, when its host left the grid, or
 *   (`failed`) when the link over which it was watched is lost, since a reply may be lost with it; never synchronously.
 * - Well-known actors of other hosts are addressed with incarnation 0: whoever has the path there when the message
 *   arrives. All other incarnations are numbers that no two processes share (`incarnationMin` of the actor system).
 * - A message that cannot travel (it holds a function, say) or is larger than a link allows is logged and answered `full`.
 * What arrives from another host is given to the receiver with `system.ref(address).tell(message)`.
 */
import type { ActorAddress, Delivery } from '#core/actor-address.js';

export interface RemoteDelivery {
  send(to: ActorAddress, message: unknown): Delivery;
  watch(actor: ActorAddress, onEnd: (reason: 'stopped' | 'failed') => void): RemoteWatch;
}

export interface RemoteWatch {
  cancel(): void;
}
