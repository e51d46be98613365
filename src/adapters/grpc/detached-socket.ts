/**
 * A connection whose writes never wait, for clients.
 *
 * While a write waits for the kernel, HTTP/2 of Node does not read from that connection. When both ends are Node and each
 * has more to write than the kernel keeps, a few MiB, neither reads and neither can write: for ever. Here writes are taken
 * at once and wait beside the connection, so that one end goes on reading. What waits is bounded: by the window of the
 * other end, as all that HTTP/2 may send. It costs a copy of what is read and a few percent of the client's time a call.
 */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';

export class DetachedSocket extends Duplex {
  readonly #socket: Socket;

  /** The connection is this stream's from here on, and ends with it. */
  constructor(socket: Socket) {
    super();
    this.#socket = socket;
    socket.on('data', (bytes: Buffer) => {
      if (!this.push(bytes)) socket.pause();
    });
    socket.on('end', () => this.push(null));
    socket.on('error', (error) => this.destroy(error));
    socket.on('close', () => this.destroy());
  }

  /** Whether it keeps the process alive. */
  keepAlive(does: boolean): void {
    if (does) this.#socket.ref();
    else this.#socket.unref();
  }

  override _read(): void {
    this.#socket.resume();
  }

  // A failed write is told by the connection's own error.
  override _write(bytes: Buffer, _encoding: BufferEncoding, taken: () => void): void {
    this.#socket.write(bytes);
    taken();
  }

  override _writev(pieces: readonly { readonly chunk: Buffer }[], taken: () => void): void {
    this.#socket.cork();
    for (const { chunk } of pieces) this.#socket.write(chunk);
    this.#socket.uncork();
    taken();
  }

  override _final(ended: () => void): void {
    this.#socket.end(ended);
  }

  override _destroy(error: Error | null, destroyed: (error: Error | null) => void): void {
    this.#socket.destroy();
    destroyed(error);
  }
}
