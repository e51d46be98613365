/**
 * Bulk connections without gRPC share the port of the links with everything that speaks HTTP/2: with TLS the handshake
 * tells which is which, without it the first four bytes do. All others are the gRPC library's, as if nobody had looked.
 */
import type { Http2Server } from 'node:http2';
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { frameMagic } from '#core/frame.js';
import type { Log } from '#ports/log.js';
import { bulkProtocol } from './link-bulk-wire.js';

export interface BulkPortOptions {
  /** Milliseconds until the first bytes of a connection must be there. */
  readonly firstMsMax: number;
  readonly onBulk: (socket: Socket) => void;
  readonly log: Log;
}

export interface BulkPort {
  /** Ends connections that have said nothing yet, and takes no more. */
  close(): void;
}

/** How HTTP/2 begins. */
const http2Preface = Buffer.from('PRI ', 'latin1');
const http2Protocol = 'h2';
const firstBytes = http2Preface.byteLength;

/** Call once the server listens. */
export function shareWithBulk(servers: readonly Http2Server[], options: BulkPortOptions): BulkPort {
  const undecided = new Set<Socket>();
  for (const server of servers) {
    if (isEncrypted(server)) {
      // No option of the gRPC library reaches it; it is read at each handshake.
      Reflect.set(server, 'ALPNProtocols', protocolList([http2Protocol, bulkProtocol]));
      divert(server, 'secureConnection', (socket, isOthers) => {
        if (socket instanceof TLSSocket && socket.alpnProtocol === bulkProtocol) options.onBulk(socket);
        else isOthers();
      });
    } else {
      divert(server, 'connection', (socket, isOthers) => {
        undecided.add(socket);
        awaitFirst(socket, options.firstMsMax, (first) => {
          undecided.delete(socket);
          if (first === undefined) return;
          if (first.equals(frameMagic)) {
            options.onBulk(socket);
            return;
          }
          if (!first.equals(http2Preface)) {
            options.log.warn('a connection to the port for links speaks neither of its protocols', {
              from: socket.remoteAddress ?? '',
              first: first.toString('hex'),
            });
          }
          isOthers();
        });
      });
    }
  }
  return {
    close: () => {
      for (const socket of undecided) socket.destroy();
    },
  };
}

/** Asks first whose a connection is. */
function divert(
  server: Http2Server,
  event: 'connection' | 'secureConnection',
  decide: (socket: Socket, isOthers: () => void) => void,
): void {
  const others = server.listeners(event);
  server.removeAllListeners(event);
  server.on(event, (socket: Socket) => {
    decide(socket, () => {
      for (const other of others) Reflect.apply(other, server, [socket]);
    });
  });
}

/** The first bytes, which stay to be read; undefined when the connection ends before, or says nothing in that time. */
function awaitFirst(socket: Socket, msMax: number, decided: (first: Buffer | undefined) => void): void {
  const settle = (first: Buffer | undefined): void => {
    clearTimeout(timer);
    socket.off('readable', look);
    socket.off('error', give);
    socket.off('close', give);
    if (first === undefined) socket.destroy();
    else socket.unshift(first);
    decided(first);
  };
  const look = (): void => {
    const first = socket.read(firstBytes) as Buffer | null;
    if (first !== null) settle(first.byteLength === firstBytes ? first : undefined);
  };
  const give = (): void => {
    settle(undefined);
  };
  const timer = setTimeout(give, msMax);
  socket.on('readable', look);
  // Told by nothing: an end before the beginning is nobody's fault.
  socket.on('error', give);
  socket.on('close', give);
}

function isEncrypted(server: Http2Server): boolean {
  return 'setSecureContext' in server;
}

/** As TLS has it: each behind its length. */
function protocolList(names: readonly string[]): Buffer {
  return Buffer.concat(names.map((name) => Buffer.from([name.length, ...Buffer.from(name, 'latin1')])));
}
