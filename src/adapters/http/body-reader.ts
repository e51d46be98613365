/**
 * Reads request bodies within bounds: in bytes, in bytes of all bodies together, and in time, so that a client that sends
 * a byte now and then cannot hold a connection and its buffer for ever.
 */
import type { IncomingMessage } from 'node:http';
import { promisify } from 'node:util';
import { gunzip, inflate } from 'node:zlib';
import { intarsiaError, messageOf, type IntarsiaError } from '#core/errors.js';
import { formatBytes } from '#core/units.js';

export interface BodyLimits {
  readonly messageBytesMax: number;
  /** Milliseconds a client may take for its body: this long, and again for every 64 KiB it has sent. */
  readonly receiveMsMax: number;
  /** Whether the host has room for so many bytes more, beside those being received. */
  readonly admits: (bytes: number) => boolean;
}

const paceBytes = 64 * 1024;
/** Bodies of a known length up to this many bytes get their buffer at once; larger ones grow with what arrives. */
const allocatedBytesMax = 16 * 1024 * 1024;

const unpack = { gzip: promisify(gunzip), deflate: promisify(inflate) };

type Done = (error: IntarsiaError | null, body?: Buffer) => void;

export class BodyReader {
  readonly #limits: BodyLimits;
  readonly #open = new Set<OpenBody>();
  #receivingBytes = 0;
  #sweeper: NodeJS.Timeout | undefined;

  constructor(limits: BodyLimits) {
    this.#limits = limits;
  }

  /** Calls `done` once, with the body or with why there is none. */
  read(request: IncomingMessage, done: Done): void {
    const declared = request.headers['content-length'];
    const expected = declared === undefined ? -1 : Number(declared);
    const refusal = this.#refusal(Math.max(0, expected));
    if (refusal !== undefined) {
      done(refusal);
      return;
    }
    const body = new OpenBody(request, expected, this.#limits, (error, bytes) => {
      this.#open.delete(body);
      this.#receivingBytes -= body.countedBytes;
      if (error !== null || bytes === undefined) done(error);
      else this.#unpacked(request, bytes, done);
    });
    this.#open.add(body);
    body.onGrowth = (more) => {
      this.#receivingBytes += more;
      return this.#limits.admits(this.#receivingBytes);
    };
    body.start();
    this.#sweeper ??= setInterval(() => this.#sweep(), Math.max(50, this.#limits.receiveMsMax / 8)).unref();
  }

  close(): void {
    clearInterval(this.#sweeper);
  }

  #refusal(bytes: number): IntarsiaError | undefined {
    if (bytes > this.#limits.messageBytesMax) return tooLarge(bytes, this.#limits.messageBytesMax);
    return this.#limits.admits(this.#receivingBytes + bytes) ? undefined : noRoom();
  }

  #sweep(): void {
    const nowMs = performance.now();
    for (const body of this.#open) body.expireIfLate(nowMs);
  }

  #unpacked(request: IncomingMessage, bytes: Buffer, done: Done): void {
    const encoding = request.headers['content-encoding'] ?? 'identity';
    if (encoding === 'identity') {
      done(null, bytes);
      return;
    }
    if (encoding !== 'gzip' && encoding !== 'deflate') {
      done(
        intarsiaError(
          'INVALID_ARGUMENT',
          `content-encoding '${encoding.slice(0, 40)}' is not known; gzip and deflate are`,
        ),
      );
      return;
    }
    const maxOutputLength = Math.min(this.#limits.messageBytesMax, bytes.byteLength * expansionMax + paceBytes);
    unpack[encoding](bytes, { maxOutputLength }).then(
      (unpacked) => done(null, unpacked),
      (error: unknown) => {
        const code = error instanceof RangeError ? 'REQUEST_TOO_LARGE' : 'INVALID_ARGUMENT';
        done(
          intarsiaError(
            code,
            `the ${encoding} body cannot be unpacked within ${formatBytes(maxOutputLength)}: ${messageOf(error)}`,
          ),
        );
      },
    );
  }
}

/** Compressed bodies may grow this many times: tensors of zeros shrink a thousandfold, bombs more. */
const expansionMax = 1100;

/** One body while it arrives. */
class OpenBody {
  onGrowth: (bytes: number) => boolean = () => true;
  /** Bytes counted as being received: declared, or arrived so far. */
  countedBytes = 0;
  readonly #request: IncomingMessage;
  readonly #expected: number;
  readonly #limits: BodyLimits;
  readonly #finish: Done;
  readonly #startedMs = performance.now();
  #chunks: Buffer[] = [];
  #whole: Buffer | undefined;
  #received = 0;
  #done = false;

  constructor(request: IncomingMessage, expected: number, limits: BodyLimits, finish: Done) {
    this.#request = request;
    this.#expected = expected;
    this.#limits = limits;
    this.#finish = finish;
  }

  start(): void {
    if (this.#expected > 0) this.#grow(this.#expected);
    const request = this.#request;
    request.on('data', (chunk: Buffer) => this.#onData(chunk));
    request.on('end', () => this.#onEnd());
    request.on('error', () => this.#onGone());
    request.on('close', () => this.#onGone());
  }

  expireIfLate(nowMs: number): void {
    const allowedMs = this.#limits.receiveMsMax * (1 + this.#received / paceBytes);
    if (nowMs - this.#startedMs <= allowedMs) return;
    this.#fail(
      intarsiaError(
        'DEADLINE_EXCEEDED',
        `the body arrives too slowly: ${this.#received} bytes in ${Math.round(nowMs - this.#startedMs)} ms`,
        { receivedBytes: this.#received },
      ),
    );
  }

  #onData(chunk: Buffer): void {
    if (this.#done) return;
    if (this.#received === 0 && chunk.byteLength === this.#expected) {
      this.#whole = chunk;
      this.#received = chunk.byteLength;
      return;
    }
    const start = this.#received;
    this.#received += chunk.byteLength;
    if (this.#received > this.#limits.messageBytesMax) {
      this.#fail(tooLarge(this.#received, this.#limits.messageBytesMax));
      return;
    }
    if (this.#expected < 0 && !this.#grow(chunk.byteLength)) {
      this.#fail(noRoom());
      return;
    }
    if (this.#expected > 0 && this.#expected <= allocatedBytesMax) {
      this.#whole ??= Buffer.allocUnsafe(this.#expected);
      chunk.copy(this.#whole, start);
    } else this.#chunks.push(chunk);
  }

  /** Comes after every complete body too: the error is made only when it is one. */
  #onGone(): void {
    if (!this.#done) this.#fail(intarsiaError('CANCELLED', 'the client went away before its body was complete'));
  }

  #grow(bytes: number): boolean {
    this.countedBytes += bytes;
    return this.onGrowth(bytes);
  }

  #onEnd(): void {
    if (this.#done) return;
    this.#done = true;
    this.#finish(null, this.#whole ?? Buffer.concat(this.#chunks, this.#received));
    this.#chunks = [];
  }

  #fail(error: IntarsiaError): void {
    if (this.#done) return;
    this.#done = true;
    this.#chunks = [];
    this.#whole = undefined;
    this.#finish(error);
  }
}

function tooLarge(bytes: number, limit: number): IntarsiaError {
  return intarsiaError(
    'REQUEST_TOO_LARGE',
    `a request may have ${formatBytes(limit)}; this one has ${formatBytes(bytes)} or more`,
    {
      limitBytes: limit,
      requestBytes: bytes,
    },
  );
}

function noRoom(): IntarsiaError {
  return intarsiaError('RESOURCE_EXHAUSTED', 'the host holds as many bytes of requests as it may; retry later');
}
