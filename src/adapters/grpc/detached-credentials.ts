/**
 * Credentials of a gRPC client that put its connections behind detached-socket.ts, encrypted or not.
 *
 * The gRPC library has no option for a connection of one's own; its credentials are asked for the secured one, and its
 * version is pinned. The library lets go of idle connections (`unref`) through HTTP/2, which does not reach one that is
 * detached, so that whoever makes the calls says here whether any are on their way.
 */
import type { Socket } from 'node:net';
import type { ChannelCredentials } from '@grpc/grpc-js';
import { DetachedSocket } from './detached-socket.js';

export class DetachedConnections {
  readonly #sockets = new Set<DetachedSocket>();
  #calls = 0;

  /** The same credentials, changed. */
  under(credentials: ChannelCredentials): ChannelCredentials {
    const create = credentials._createSecureConnector.bind(credentials);
    credentials._createSecureConnector = (...of) => {
      const connector = create(...of);
      return {
        connect: async (socket) => {
          const { socket: secured, secure } = await connector.connect(socket);
          // HTTP/2 takes any duplex stream, and the library uses nothing of it but events and `destroy`.
          return { socket: this.#detach(secured) as unknown as Socket, secure };
        },
        waitForReady: () => connector.waitForReady(),
        getCallCredentials: () => connector.getCallCredentials(),
        destroy: () => connector.destroy(),
      };
    };
    return credentials;
  }

  /** A call begins. Connections keep the process alive until all have ended. */
  begin(): void {
    this.#calls += 1;
    if (this.#calls === 1) for (const socket of this.#sockets) socket.keepAlive(true);
  }

  /** A call has ended. */
  end(): void {
    this.#calls -= 1;
    if (this.#calls === 0) for (const socket of this.#sockets) socket.keepAlive(false);
  }

  #detach(secured: Socket): DetachedSocket {
    const socket = new DetachedSocket(secured);
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    socket.keepAlive(this.#calls > 0);
    return socket;
  }
}
