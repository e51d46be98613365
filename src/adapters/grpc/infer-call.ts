/**
 * One call of the inference service, straight on its HTTP/2 stream.
 *
 * The gRPC library's own way costs as much a call as everything else the host does for it, and copies each message twice;
 * ModelInfer and ModelStreamInfer, which carry the load, therefore speak the protocol here: framed messages, compression
 * of what comes in, deadline, status in trailers. What messages mean is left to the handlers; bounds on what arrives, in
 * bytes and in time, are receive-watch.ts's.
 */
import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { gunzip, inflate, type ZlibOptions } from 'node:zlib';
import type { BufferPool } from '#core/buffer-pool.js';
import { intarsiaError, messageOf, type IntarsiaError } from '#core/errors.js';
import type { EncodedMessage } from '#core/inference-wire.js';
import { MessageReader } from './message-reader.js';
import { promptTrailer } from './prompt-trailers.js';
import { trailersOf } from './status.js';

/** Who handles a call. */
export interface InferCallHandler {
  /** The bytes do not change afterwards. */
  message(bytes: Uint8Array): void;
  /** The client has sent everything. */
  end(): void;
  /** The client takes its answers again, after `send` said that it did not. */
  drain(): void;
  /** The client is gone before the call was over. */
  lost(): void;
}

export interface InferCallOptions {
  readonly messageBytesMax: number;
  /** Where long messages lie. */
  readonly memory: BufferPool;
}

const frameHeadBytes = 5;
const responseHeaders = {
  ':status': 200,
  'content-type': 'application/grpc+proto',
  'grpc-encoding': 'identity',
  'grpc-accept-encoding': 'identity,deflate,gzip',
};
const waitForTrailers = { waitForTrailers: true };
const trailersOk = { 'grpc-status': '0' };
const timeoutUnitMs: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

type Inflate = (bytes: Uint8Array, options: ZlibOptions, done: (error: Error | null, bytes: Buffer) => void) => void;
const inflaters: Readonly<Record<string, Inflate>> = { gzip: gunzip, deflate: inflate };

export class InferCall {
  readonly #stream: ServerHttp2Stream;
  readonly #headers: IncomingHttpHeaders;
  readonly #options: InferCallOptions;
  readonly #reader: MessageReader;
  #handler: InferCallHandler | undefined;
  /** Messages that wait because the handler wants none now, or because one before them is being inflated. */
  #waiting: { readonly compressed: boolean; readonly bytes: Uint8Array }[] = [];
  #isPaused = false;
  #isInflating = false;
  #isDelivering = false;
  #hasAll = false;
  /** A status is on its way, or the client is gone. */
  #isOver = false;

  constructor(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, options: InferCallOptions) {
    this.#stream = stream;
    this.#headers = headers;
    this.#options = options;
    this.#reader = new MessageReader(options.memory.allocate);
  }

  /** Begins to read. */
  listen(handler: InferCallHandler): void {
    const stream = this.#stream;
    this.#handler = handler;
    // Told by `close`.
    stream.on('error', () => {});
    stream.on('close', () => this.#onClose());
    stream.on('data', (piece: Buffer) => this.#onData(piece));
    stream.on('end', () => {
      // A stream that the client has reset ends as well; `close` is next.
      if (this.#isGone) return;
      this.#hasAll = true;
      this.#deliver();
    });
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Whether the handler has asked for silence. */
  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** A header's value by its lower-case name. */
  header(name: string): string | undefined {
    const value = this.#headers[name];
    return typeof value === 'string' ? value : value?.[0];
  }

  /** Milliseconds the client gives the call; Infinity when it says nothing. @throws INVALID_ARGUMENT. */
  timeoutMs(): number {
    const text = this.header('grpc-timeout');
    if (text === undefined) return Infinity;
    const [, count, unit] = /^(\d{1,8})([HMSmun])$/.exec(text) ?? [];
    if (count === undefined || unit === undefined) {
      throw intarsiaError('INVALID_ARGUMENT', `header grpc-timeout is '${text.slice(0, 20)}'; it must be such as 100m`);
    }
    return Number(count) * (timeoutUnitMs[unit] ?? 1);
  }

  /** Messages wait until `resume`. */
  pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#stream.pause();
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#deliver();
  }

  /** Nobody reads a message any more that the handler was given: its memory is used again. */
  forget(bytes: Uint8Array): void {
    this.#options.memory.release(bytes.buffer);
  }

  /**
   * Sends a message. False when the client does not keep up: wait for `drain`. `release` is called once the message is with
   * the kernel; never, when it does not come to that.
   */
  send(message: EncodedMessage, release?: () => void): boolean {
    if (this.#isOver || this.#isGone) return true;
    this.#respond();
    const goOn = this.#write(framed(message), release);
    if (!goOn) this.#stream.once('drain', () => this.#handler?.drain());
    return goOn;
  }

  /** Ends the call in order, with a last message where one is given; `release` as with `send`. */
  finish(message?: EncodedMessage, release?: () => void): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const stream = this.#stream;
    if (this.#isGone) return;
    this.#respond();
    const pieces = message === undefined ? [] : framed(message);
    if (pieces.length > 1) {
      stream.on('wantTrailers', sendOk);
      this.#write(pieces, release);
      stream.end();
    } else {
      stream.on('wantTrailers', sendOkAtOnce);
      stream.end(pieces[0]);
      release?.();
    }
  }

  /** Ends the call with an error; what still comes of it is dropped. */
  fail(error: IntarsiaError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#waiting = [];
    const stream = this.#stream;
    if (this.#isGone) return;
    const trailers = trailersOf(error);
    if (stream.headersSent) {
      stream.on('wantTrailers', () => stream.sendTrailers(trailers));
      stream.end();
    } else {
      stream.respond({ ':status': 200, 'content-type': 'application/grpc+proto', ...trailers }, { endStream: true });
    }
    stream.resume();
    // A client that has more to say is told to be silent; one that has said everything reads the status in peace.
    if (!this.#hasAll && !this.#reader.atBoundary) stream.close();
  }

  /**
   * A closed stream lives on until a full garbage collection, because it has a native half; what it refers to would live as
   * long, so that it must not refer to the request any more.
   */
  #onClose(): void {
    const handler = this.#handler;
    this.#handler = undefined;
    this.#waiting = [];
    if (this.#isOver) return;
    this.#isOver = true;
    handler?.lost();
  }

  #write(pieces: readonly Uint8Array[], release?: () => void): boolean {
    const stream = this.#stream;
    if (pieces.length === 1) {
      // A copy: the outputs are read already.
      release?.();
      return stream.write(pieces[0]);
    }
    stream.cork();
    for (let index = 0; index < pieces.length - 1; index += 1) stream.write(pieces[index]);
    const goOn = stream.write(pieces[pieces.length - 1], (error) => {
      if (error === null || error === undefined) release?.();
    });
    stream.uncork();
    return goOn;
  }

  /** Nothing can be sent any more, whether `close` was told yet or not. */
  get #isGone(): boolean {
    return this.#stream.destroyed || this.#stream.closed;
  }

  #respond(): void {
    if (!this.#stream.headersSent) this.#stream.respond(responseHeaders, waitForTrailers);
  }

  #onData(piece: Buffer): void {
    if (this.#isOver || this.#isGone) return;
    this.#reader.read(piece, (compressed, bytes) => {
      if (compressed || this.#isPaused || this.#waiting.length > 0) this.#waiting.push({ compressed, bytes });
      else if (!this.#isOver) this.#handler?.message(bytes);
    });
    if (this.#waiting.length > 0) this.#deliver();
  }

  /** Hands on what may be handed on, in order. */
  #deliver(): void {
    if (this.#isDelivering) return;
    this.#isDelivering = true;
    while (!this.#isPaused && !this.#isInflating && !this.#isOver) {
      const next = this.#waiting.shift();
      if (next === undefined) break;
      if (next.compressed) this.#inflate(next.bytes);
      else this.#handler?.message(next.bytes);
    }
    this.#isDelivering = false;
    if (this.#isPaused || this.#isInflating || this.#isOver) return;
    if (this.#hasAll) this.#handler?.end();
    else if (this.#stream.isPaused()) this.#stream.resume();
  }

  #inflate(bytes: Uint8Array): void {
    const encoding = this.header('grpc-encoding') ?? 'identity';
    const inflater = Object.hasOwn(inflaters, encoding) ? inflaters[encoding] : undefined;
    if (inflater === undefined) {
      this.#giveUp(
        intarsiaError('UNIMPLEMENTED', `messages compressed by '${encoding.slice(0, 20)}' are not understood`),
      );
      return;
    }
    this.#isInflating = true;
    this.#stream.pause();
    const { messageBytesMax } = this.#options;
    inflater(bytes, { maxOutputLength: messageBytesMax }, (error, inflated) => {
      this.#isInflating = false;
      if (error !== null) this.#giveUp(inflateFailure(error, messageBytesMax));
      else if (!this.#isOver) {
        this.#handler?.message(new Uint8Array(inflated.buffer, inflated.byteOffset, inflated.byteLength));
      }
      this.#deliver();
    });
  }

  /** The call cannot go on, and its handler does not know yet. */
  #giveUp(error: IntarsiaError): void {
    if (this.#isOver) return;
    this.fail(error);
    this.#handler?.lost();
  }
}

function sendOk(this: ServerHttp2Stream): void {
  this.sendTrailers(trailersOk);
}

const promptOk = promptTrailer('grpc-status', '0');

function sendOkAtOnce(this: ServerHttp2Stream): void {
  promptOk(this);
}

/** The message behind its head, in pieces to be written in order. */
function framed(message: EncodedMessage): Uint8Array[] {
  const pieces = message.pieces(frameHeadBytes, (bytes) => Buffer.allocUnsafe(bytes));
  const first = pieces[0] as Buffer;
  first[0] = 0;
  first.writeUInt32BE(message.byteLength, 1);
  return pieces;
}

function inflateFailure(error: Error & { readonly code?: string }, bytesMax: number): IntarsiaError {
  if (error.code === 'ERR_BUFFER_TOO_LARGE') {
    return intarsiaError('REQUEST_TOO_LARGE', `a compressed message has more than ${bytesMax} bytes`, {
      limitBytes: bytesMax,
    });
  }
  return intarsiaError('INVALID_ARGUMENT', `a compressed message cannot be read: ${messageOf(error)}`);
}
