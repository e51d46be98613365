/** How what arrives from other hosts gets to the actors of this one. */
import type { Entrance } from '#ports/links.js';
import type { ActorSystem } from './system.js';

/** The entrance to a system's actors, for the links that bring messages to it. */
export function entranceOf(system: ActorSystem): Entrance {
  return {
    ref: (address) => system.ref(address),
    deliver: (to, message) => system.ref(to).tell(message),
    whenEnded: (actor) => system.whenStopped(system.ref(actor)),
  };
}
