/**
 * One half of a bulk channel on a connection of its own, with neither gRPC nor HTTP/2 around its frames.
 *
 * Node's HTTP/2 hands on 16 KiB at a time, each in memory of its own that is then copied into the message; that is most of
 * what large messages cost their receiver. Here the kernel writes what arrives straight to where the session wants it, as
 * much at a time as there is. Encrypted bytes have to be decrypted first: they come as pieces.
 *
 * Who may open such a connection is link-server.ts's business, how it shares the port link-bulk-port.ts's.
 */
import { connect, Socket, type SocketConstructorOpts, type TcpSocketConnectOpts } from 'node:net';
import { connect as connectTls, TLSSocket, type ConnectionOptions } from 'node:tls';
import { intarsiaError } from '#core/errors.js';
import { KiB } from '#core/units.js';
import { Unsent, writeTogether, type Wire, type WireListener } from './link-wire.js';

/** Name of the protocol in the handshake of TLS. */
export const bulkProtocol = 'intarsia-bulk/1';

/** What is read at a time while nobody says where it belongs: in the handshake. */
const scratchBytes = 4 * KiB;
/** A silent connection is tried this often, so that no firewall forgets it, ms. */
const keepAliveMs = 30_000;

type ReadTo = NonNullable<TcpSocketConnectOpts['onread']>;

export class BulkWire implements Wire {
  readonly #socket: Socket;
  readonly #isReadInPlace: boolean;
  readonly #scratch = new Uint8Array(scratchBytes);
  /** What came before there was a listener. */
  readonly #first: Uint8Array | null;
  #listener: WireListener | undefined;
  #unsent: Unsent | undefined;
  /** Whether the place that is being read to is one of the listener. */
  #isOfListener = false;

  /** @param address `address:port`. @param tls Undefined: plain text. */
  static dial(address: string, tls: ConnectionOptions | undefined): BulkWire {
    const to = addressParts(address);
    if (tls === undefined) return new BulkWire((onread) => connect({ ...to, onread }), true, null);
    const socket = connectTls({ ...to, ...tls, ALPNProtocols: [bulkProtocol] });
    socket.once('secureConnect', () => {
      if (socket.alpnProtocol === bulkProtocol) return;
      socket.destroy(intarsiaError('UNAVAILABLE', `${address} does not speak ${bulkProtocol}`));
    });
    return new BulkWire(() => socket, false, null);
  }

  /** Over a connection that a server has accepted; nobody else listens to it any more. */
  static over(accepted: Socket): BulkWire {
    const handle = detach(accepted);
    if (handle === undefined) return new BulkWire(() => accepted, false, null);
    const first = accepted.read() as Buffer | null;
    const open = (onread: ReadTo): Socket => {
      // Node has an option for a place to read to, but not for connections that a server accepts.
      const options: SocketConstructorOpts & Pick<TcpSocketConnectOpts, 'onread'> & { readonly handle: object } = {
        handle,
        readable: true,
        writable: true,
        onread,
      };
      const socket = new Socket(options);
      // The server counts what it has accepted.
      socket.once('close', () => accepted.destroy());
      return socket;
    };
    return new BulkWire(open, true, first);
  }

  private constructor(open: (onread: ReadTo) => Socket, isReadInPlace: boolean, first: Uint8Array | null) {
    this.#isReadInPlace = isReadInPlace;
    this.#first = first;
    this.#socket = open({
      buffer: () => {
        const target = this.#listener?.target();
        this.#isOfListener = target !== undefined;
        return target ?? this.#scratch;
      },
      callback: (bytes) => {
        if (this.#isOfListener) this.#listener?.advance(bytes);
        else this.#listener?.piece(this.#scratch.slice(0, bytes));
        return true;
      },
    });
    this.#socket.setNoDelay(true);
    this.#socket.setKeepAlive(true, keepAliveMs);
  }

  listen(listener: WireListener): void {
    const socket = this.#socket;
    this.#listener = listener;
    this.#unsent = new Unsent(listener.room);
    socket.on('error', listener.end);
    socket.on('end', () => {
      listener.end(undefined);
    });
    socket.on('close', () => {
      listener.end(undefined);
    });
    if (this.#first !== null) listener.piece(this.#first);
    if (!this.#isReadInPlace) socket.on('data', listener.piece);
  }

  write(ranges: readonly Uint8Array[], bytes: number): boolean {
    if (this.#unsent === undefined || this.#socket.destroyed) return false;
    writeTogether(this.#socket, ranges, this.#unsent.add(bytes));
    return !this.#unsent.isFull;
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  settle(): void {
    // It is bare from the beginning.
  }

  end(): void {
    this.#socket.end();
  }

  cancel(): void {
    this.#socket.destroy();
  }
}

interface ReadHandle {
  reading: boolean;
  readStop(): void;
}

/** Takes the kernel's side of an accepted connection out of its socket; undefined where that is not to be had. */
function detach(accepted: Socket): object | undefined {
  const handle: unknown = Reflect.get(accepted, '_handle');
  if (accepted instanceof TLSSocket || !isReadHandle(handle)) return undefined;
  handle.readStop();
  handle.reading = false;
  Reflect.set(accepted, '_handle', null);
  return handle;
}

function isReadHandle(handle: unknown): handle is ReadHandle {
  return typeof handle === 'object' && handle !== null && 'useUserBuffer' in handle && 'readStop' in handle;
}

function addressParts(address: string): { readonly host: string; readonly port: number } {
  const colon = address.lastIndexOf(':');
  return { host: address.slice(0, colon).replace(/^\[(.*)\]$/, '$1'), port: Number(address.slice(colon + 1)) };
}
