/**
 * The bytes of one call of a link, at either end of it. A gRPC message is a piece of a byte stream: where one ends means
 * nothing.
 *
 * The gRPC library makes and ends the calls of the side that dials; the other side takes them straight from HTTP/2, as it
 * does with those that carry inference (infer-call.ts). Once a link is up both ends write and read their HTTP/2 streams
 * themselves: what is sent is not copied, and what arrives is handed on as it comes, instead of being joined to messages.
 */
import { constants, type Http2Stream, type ServerHttp2Stream } from 'node:http2';
import type { Writable } from 'node:stream';
import type { Client, ClientDuplexStream } from '@grpc/grpc-js';
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import { formatBytes, KiB, MiB } from '#core/units.js';
import { trailersOf } from './status.js';

/** Longest gRPC message: a piece of a frame and its padding. */
export const linkPieceBytesMax = 4 * MiB;
/** Head of a gRPC message: whether it is compressed, and its length. */
const headBytes = 5;
/** Zeros before each piece: with the head of five bytes what follows lies at a multiple of eight. */
const paddingBytes = 3;
/** Shorter pieces are copied into one range: several cost more than the copy. */
const joinBytesMax = 16 * KiB;
/** Layers of the gRPC library around a stream. */
const layersMax = 12;
/** What may wait in a stream for the kernel before it takes no more. */
const unsentBytesMax = 2 * MiB;

export interface WireListener {
  readonly piece: (piece: Uint8Array) => void;
  /** It takes more again. */
  readonly room: () => void;
  /** When it is over, perhaps several times: the error, or undefined. */
  readonly end: (reason: unknown) => void;
  /**
   * Where the next bytes belong; undefined: nobody says, hand them on as a piece. For wires that can read to a place they
   * are given; each that was asked for is filled, at least in part, before the next is asked for.
   */
  readonly target: () => Uint8Array | undefined;
  /** So many bytes are there. */
  readonly advance: (bytes: number) => void;
}

export interface Wire {
  /** Call it once, first. */
  listen(listener: WireListener): void;
  /** False when it takes no more until there is room. The ranges must not change afterwards. */
  write(ranges: readonly Uint8Array[], bytes: number): boolean;
  pause(): void;
  resume(): void;
  /** The handshake is over, and the other side silent: what follows may pass by the gRPC library. */
  settle(): void;
  /** Ends it once what was written has got through. */
  end(): void;
  /** Ends it at once. */
  cancel(): void;
}

/** Bytes that look to the gRPC library like a Buffer: it asks for their length, and has them copied behind its own head. */
export class Piece {
  readonly length: number;
  readonly byteLength: number;
  readonly #ranges: readonly Uint8Array[];

  constructor(ranges: readonly Uint8Array[], bytes: number) {
    this.#ranges = ranges;
    this.byteLength = bytes + paddingBytes;
    this.length = this.byteLength;
  }

  copy(target: Buffer, start = 0): number {
    target.fill(0, start, start + paddingBytes);
    copyInto(target, start + paddingBytes, this.#ranges);
    return this.byteLength;
  }
}

export const passPiece = (piece: Piece): Buffer => piece as unknown as Buffer;
export const passBytes = (bytes: Buffer): Buffer => bytes;

export class ClientWire implements Wire {
  readonly #client: Client;
  readonly #call: ClientDuplexStream<Piece, Buffer>;
  #listener: WireListener | undefined;
  /** Once it is settled. */
  #stream: Http2Stream | undefined;
  #writer: StreamWriter | undefined;

  /** The client is this call's alone. */
  constructor(client: Client, call: ClientDuplexStream<Piece, Buffer>) {
    this.#client = client;
    this.#call = call;
  }

  listen(listener: WireListener): void {
    const call = this.#call;
    const { piece, room, end } = listener;
    this.#listener = listener;
    call.on('data', (message: Buffer) => {
      piece(message.subarray(paddingBytes));
    });
    call.on('drain', room);
    call.on('error', end);
    call.on('end', () => {
      end(undefined);
    });
    call.on('close', () => {
      this.#client.close();
      end(undefined);
    });
  }

  write(ranges: readonly Uint8Array[], bytes: number): boolean {
    return this.#writer === undefined ? this.#call.write(new Piece(ranges, bytes)) : this.#writer.write(ranges, bytes);
  }

  pause(): void {
    (this.#stream ?? this.#call).pause();
  }

  resume(): void {
    (this.#stream ?? this.#call).resume();
  }

  /** Should the library hide its stream (its version is pinned), everything goes on going through the library. */
  settle(): void {
    const stream = http2StreamOf(this.#call);
    const listener = this.#listener;
    if (stream === undefined || listener === undefined || stream.destroyed) return;
    this.#stream = stream;
    this.#writer = new StreamWriter(stream, listener.room);
    stream.removeAllListeners('data');
    const fail = (error: unknown): void => {
      listener.end(error);
      this.cancel();
    };
    stream.on('data', readPieces(listener.piece, fail));
  }

  end(): void {
    this.#call.end();
  }

  cancel(): void {
    this.#call.cancel();
    this.#client.close();
  }
}

const responseHeaders = {
  ':status': 200,
  'content-type': 'application/grpc+proto',
  'grpc-encoding': 'identity',
  'grpc-accept-encoding': 'identity',
};

export class ServerWire implements Wire {
  readonly #stream: ServerHttp2Stream;
  #writer: StreamWriter | undefined;

  constructor(stream: ServerHttp2Stream) {
    this.#stream = stream;
  }

  listen({ piece, room, end }: WireListener): void {
    const stream = this.#stream;
    this.#writer = new StreamWriter(stream, room);
    const fail = (error: unknown): void => {
      end(error);
      this.cancel();
    };
    stream.on('data', readPieces(piece, fail));
    stream.on('error', end);
    stream.on('end', () => {
      end(undefined);
    });
    stream.on('close', () => {
      end(undefined);
    });
  }

  write(ranges: readonly Uint8Array[], bytes: number): boolean {
    if (this.#writer === undefined || this.#stream.destroyed || this.#stream.closed) return false;
    this.#respond();
    return this.#writer.write(ranges, bytes);
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  settle(): void {
    // It is straight from the beginning.
  }

  end(): void {
    const stream = this.#stream;
    if (stream.destroyed || stream.closed) return;
    this.#respond();
    stream.once('wantTrailers', () => {
      stream.sendTrailers({ 'grpc-status': '0' });
    });
    stream.end();
  }

  cancel(): void {
    if (!this.#stream.closed) this.#stream.close(constants.NGHTTP2_CANCEL);
    this.#closeConnection();
  }

  /** Ends it with a status, instead of anything else. */
  refuse(error: IntarsiaError): void {
    const stream = this.#stream;
    if (stream.destroyed || stream.closed) return;
    const trailers = trailersOf(error);
    if (stream.headersSent) {
      stream.once('wantTrailers', () => {
        stream.sendTrailers(trailers);
      });
      stream.end();
    } else stream.respond({ ...responseHeaders, ...trailers }, { endStream: true });
    stream.resume();
    this.#closeConnection();
  }

  /** It was opened for this call. */
  #closeConnection(): void {
    const { session } = this.#stream;
    if (session === undefined || session.destroyed) return;
    session.close();
    setTimeout(() => {
      session.destroy();
    }, 1_000).unref();
  }

  #respond(): void {
    if (!this.#stream.headersSent) this.#stream.respond(responseHeaders, { waitForTrailers: true });
  }
}

/** Writes pieces as gRPC messages, and tells when the stream takes no more. */
class StreamWriter {
  readonly #stream: Http2Stream;
  readonly #unsent: Unsent;

  constructor(stream: Http2Stream, onRoom: () => void) {
    this.#stream = stream;
    this.#unsent = new Unsent(onRoom);
  }

  write(ranges: readonly Uint8Array[], bytes: number): boolean {
    const stream = this.#stream;
    const isJoined = bytes <= joinBytesMax;
    const head = Buffer.allocUnsafe(headBytes + paddingBytes + (isJoined ? bytes : 0));
    head[0] = 0;
    head.writeUInt32BE(bytes + paddingBytes, 1);
    head.fill(0, headBytes, headBytes + paddingBytes);
    if (isJoined) {
      copyInto(head, headBytes + paddingBytes, ranges);
      stream.write(head, this.#unsent.add(bytes));
    } else writeTogether(stream, [head, ...ranges], this.#unsent.add(bytes));
    return !this.#unsent.isFull;
  }
}

/** What a stream keeps for the kernel, so that it takes no more when that is much. */
export class Unsent {
  readonly #onRoom: () => void;
  #bytes = 0;
  #isFull = false;

  constructor(onRoom: () => void) {
    this.#onRoom = onRoom;
  }

  get isFull(): boolean {
    return this.#isFull;
  }

  /** To be called when these bytes are with the kernel. */
  add(bytes: number): () => void {
    this.#bytes += bytes;
    this.#isFull = this.#bytes >= unsentBytesMax;
    return () => {
      this.#bytes -= bytes;
      if (!this.#isFull || this.#bytes >= unsentBytesMax) return;
      this.#isFull = false;
      this.#onRoom();
    };
  }
}

/** At least one range, in one system call where it fits. */
export function writeTogether(stream: Writable, ranges: readonly Uint8Array[], sent: () => void): void {
  stream.cork();
  ranges.forEach((range, index) => {
    stream.write(range, index === ranges.length - 1 ? sent : undefined);
  });
  stream.uncork();
}

function readPieces(onPiece: (piece: Uint8Array) => void, onError: (error: unknown) => void) {
  const heads = new HeadReader();
  return (chunk: Buffer): void => {
    try {
      heads.read(chunk, onPiece);
    } catch (error) {
      onError(error);
    }
  };
}

/** The HTTP/2 stream of a call of the gRPC library, where it has it today; undefined when it is not there. */
function http2StreamOf(call: object): Http2Stream | undefined {
  let layer: object | undefined = call;
  for (let depth = 0; layer !== undefined && depth < layersMax; depth += 1) {
    const stream = held(layer, 'http2Stream');
    if (stream !== undefined) return 'sentTrailers' in stream ? (stream as Http2Stream) : undefined;
    layer =
      held(layer, 'call') ??
      held(layer, 'nextCall') ??
      held(layer, 'child') ??
      held(held(layer, 'underlyingCalls'), '0');
  }
  return undefined;
}

function held(layer: object | undefined, name: string): object | undefined {
  if (layer === undefined) return undefined;
  const value: unknown = Reflect.get(layer, name);
  return typeof value === 'object' && value !== null ? value : undefined;
}

/** Takes the heads of gRPC messages out of their bytes. */
class HeadReader {
  readonly #head = new Uint8Array(headBytes + paddingBytes);
  readonly #view = new DataView(this.#head.buffer);
  #filled = 0;
  /** Bytes of the message that are still to come. */
  #left = 0;

  /** @throws INVALID_ARGUMENT, REQUEST_TOO_LARGE. */
  read(chunk: Uint8Array, onPiece: (piece: Uint8Array) => void): void {
    for (let at = 0; at < chunk.byteLength;) {
      if (this.#left > 0) {
        const piece = chunk.subarray(at, at + this.#left);
        at += piece.byteLength;
        this.#left -= piece.byteLength;
        onPiece(piece);
        continue;
      }
      for (; at < chunk.byteLength && this.#filled < this.#head.byteLength; at += 1) {
        this.#head[this.#filled] = chunk[at] as number;
        this.#filled += 1;
      }
      if (this.#filled < this.#head.byteLength) return;
      this.#filled = 0;
      this.#left = this.#pieceBytes();
    }
  }

  #pieceBytes(): number {
    const bytes = this.#view.getUint32(1);
    if (this.#head[0] !== 0 || bytes < paddingBytes) {
      throw intarsiaError('INVALID_ARGUMENT', 'a piece of a link is compressed or has no padding');
    }
    if (bytes > linkPieceBytesMax) {
      throw intarsiaError(
        'REQUEST_TOO_LARGE',
        `a piece of a link has ${formatBytes(bytes)}, of at most ${formatBytes(linkPieceBytesMax)}`,
      );
    }
    return bytes - paddingBytes;
  }
}

function copyInto(target: Uint8Array, start: number, ranges: readonly Uint8Array[]): void {
  let offset = start;
  for (const range of ranges) {
    target.set(range, offset);
    offset += range.byteLength;
  }
}
