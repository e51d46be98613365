/**
 * Frames over a socket between a host and its executor process. Used at both ends.
 *
 * The end that opens a file descriptor reads without copies: the decoder names the place of the next bytes and the kernel
 * writes them there, so that every frame owns its buffer. The end that spawned the process gets the socket from Node,
 * which chooses the buffers itself; frames are then views on them where they fit.
 */
import { Socket, type SocketConstructorOpts, type TcpSocketConnectOpts } from 'node:net';
import { encodeFrame, FrameDecoder, type Allocate, type Frame, type OutgoingFrame } from '#core/frame.js';
import { allocateRaw } from './allocate-raw.js';

export interface FrameSocketOptions {
  /** Bytes of one frame. At the bound the connection ends with REQUEST_TOO_LARGE. */
  readonly frameBytesMax: number;
  readonly onFrame: (frame: Frame) => void;
  /** Where frames that are read through `open` get their memory; default: fresh memory. */
  readonly allocate?: Allocate;
  /**
   * The other end is gone; called once. The error is undefined when it ended in order. `broken` says that it was still
   * there, and sent what is no frame or what `onFrame` did not bear.
   */
  readonly onEnd: (error: Error | undefined, broken: boolean) => void;
}

export class FrameSocket {
  readonly #socket: Socket;
  readonly #onEnd: FrameSocketOptions['onEnd'];
  #ended = false;

  /** Takes over a socket that Node has made. */
  static over(socket: Socket, options: FrameSocketOptions): FrameSocket {
    const decoder = new FrameDecoder({ frameBytesMax: options.frameBytesMax, allocate: allocateRaw });
    const frames = new FrameSocket(socket, options, decoder);
    socket.on('data', ({ buffer, byteOffset, byteLength }: Buffer) => {
      const piece = new Uint8Array(buffer, byteOffset, byteLength);
      frames.#decode(() => decoder.push(piece, options.onFrame));
    });
    return frames;
  }

  /** Opens a file descriptor that is one end of a socket pair. */
  static open(fd: number, options: FrameSocketOptions): FrameSocket {
    const decoder = new FrameDecoder({
      frameBytesMax: options.frameBytesMax,
      allocate: options.allocate ?? allocateRaw,
    });
    let frames: FrameSocket | undefined = undefined as FrameSocket | undefined;
    const socketOptions: SocketConstructorOpts & Pick<TcpSocketConnectOpts, 'onread'> = {
      fd,
      readable: true,
      writable: true,
      onread: {
        buffer: () => decoder.target(),
        callback: (bytes) => {
          if (frames !== undefined) frames.#decode(() => decoder.advance(bytes, options.onFrame));
          return true;
        },
      },
    };
    frames = new FrameSocket(new Socket(socketOptions), options, decoder);
    return frames;
  }

  private constructor(socket: Socket, options: FrameSocketOptions, decoder: FrameDecoder) {
    this.#socket = socket;
    this.#onEnd = options.onEnd;
    socket.on('end', () => this.#finish(decoder.atBoundary ? undefined : new Error('the stream ended inside a frame')));
    socket.on('error', (error) => this.#finish(error));
    socket.on('close', () => this.#finish(undefined));
  }

  /** Bytes that are not with the kernel yet. */
  get pendingBytes(): number {
    return this.#socket.writableLength;
  }

  /** Sends a frame. False when its bytes wait in this process because the other end does not keep up. */
  send(frame: OutgoingFrame): boolean {
    if (this.#ended) return false;
    const ranges = encodeFrame(frame, allocateRaw);
    if (ranges.length === 1) return this.#socket.write(ranges[0] as Uint8Array);
    this.#socket.cork();
    for (const range of ranges) this.#socket.write(range);
    this.#socket.uncork();
    return !this.#socket.writableNeedDrain;
  }

  /** Resolves once everything that was sent is with the kernel, or the connection is over. */
  flushed(): Promise<void> {
    if (this.#socket.writableLength === 0 || this.#ended) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        this.#socket.off('drain', done);
        this.#socket.off('close', done);
        resolve();
      };
      this.#socket.on('drain', done);
      this.#socket.on('close', done);
    });
  }

  /** Sends what is pending, then the end. The other end may still send. */
  end(): void {
    this.#socket.end();
  }

  /** Drops the connection. */
  destroy(): void {
    this.#socket.destroy();
  }

  #decode(decode: () => void): void {
    if (this.#ended) return;
    try {
      decode();
    } catch (error) {
      this.#finish(error instanceof Error ? error : new Error(String(error)), true);
      this.#socket.destroy();
    }
  }

  #finish(error: Error | undefined, broken = false): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onEnd(error, broken);
  }
}
