/** Binds a peer's desk to the runtime: the address under which the other host's answers come in. */
import type { ActorFactory } from '#runtime/actor.js';
import type { PeerDesk } from './peer-desk.js';
import type { PeerMessage } from './protocol.js';

/** Spawn it as `peer-<host>` when the host joins; stop it when the host has left: what is in flight fails, retryably. */
export function peerActor(desk: PeerDesk): ActorFactory<PeerMessage> {
  return (context) => {
    desk.open(context.self);
    return {
      receive: (message) => {
        desk.receive(message);
      },
      signal: (signal) => {
        if (signal.type === 'pre-restart' || signal.type === 'post-stop') desk.close();
        else if (signal.type === 'drain') context.stop();
      },
    };
  };
}
