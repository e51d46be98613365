/**
 * Watches messages while they arrive, which the gRPC library does not: a call whose request trickles, or never comes, is
 * ended (slow-loris); a message that would not fit beside those the host holds, or not at all, is refused by its announced
 * length, before its bytes take memory.
 *
 * It reads the five bytes before each message and counts the others; what they mean is the library's business. Silence
 * between the messages of a stream is nobody's fault, and neither is a stream that the host itself does not read.
 */
import { constants, type ServerHttp2Stream } from 'node:http2';
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import { formatBytes } from '#core/units.js';
import { trailersOf } from './status.js';

export interface ReceiveLimits {
  readonly messageBytesMax: number;
  /** Milliseconds a client may take for a message: this long, and again for every 64 KiB it has sent. */
  readonly receiveMsMax: number;
  /** Whether the host has room for so many bytes more, beside those being received. */
  readonly admits: (bytes: number) => boolean;
}

const paceBytes = 64 * 1024;
/** Compressed or not (1 byte), length (4 bytes, big-endian). */
const frameHeadBytes = 5;

export class ReceiveWatch {
  readonly #limits: ReceiveLimits;
  /** Streams that owe bytes: of a message that has begun, or of the only one. */
  readonly #owing = new Set<IncomingStream>();
  readonly #sweeper: NodeJS.Timeout;
  #receivingBytes = 0;

  constructor(limits: ReceiveLimits) {
    this.#limits = limits;
    this.#sweeper = setInterval(() => this.#sweep(), Math.max(50, limits.receiveMsMax / 8)).unref();
  }

  /** @param isSingle The call has one request: the client owes it from the beginning. */
  watch(stream: ServerHttp2Stream, isSingle: boolean): void {
    const incoming = new IncomingStream(stream);
    if (isSingle) this.#begin(incoming, 0);
    // Before the library's own listener: it shall not keep what is refused.
    stream.prependListener('data', (chunk: Buffer) => this.#onData(incoming, chunk));
  }

  close(): void {
    clearInterval(this.#sweeper);
  }

  #onData(incoming: IncomingStream, chunk: Buffer): void {
    if (incoming.stream.closed) return;
    incoming.receivedBytes += chunk.byteLength;
    for (let at = 0; at < chunk.byteLength;) {
      if (incoming.leftBytes === 0) {
        at = incoming.readHead(chunk, at);
        if (incoming.headBytes > 0) {
          // The head itself is cut: its rest is owed.
          if (!this.#owing.has(incoming)) this.#begin(incoming, 0);
          return;
        }
        const refusal = this.#refusal(incoming, chunk.byteLength - at);
        if (refusal !== undefined) {
          this.#end(incoming);
          refuse(incoming.stream, refusal);
          return;
        }
      }
      const taken = Math.min(incoming.leftBytes, chunk.byteLength - at);
      incoming.leftBytes -= taken;
      at += taken;
      if (incoming.leftBytes === 0) this.#end(incoming);
    }
  }

  /** Why the message that begins here cannot be taken; most are here already, whole. */
  #refusal(incoming: IncomingStream, hereBytes: number): IntarsiaError | undefined {
    const { leftBytes } = incoming;
    const { messageBytesMax, admits } = this.#limits;
    if (leftBytes <= hereBytes) return undefined;
    if (leftBytes > messageBytesMax) {
      return intarsiaError(
        'REQUEST_TOO_LARGE',
        `a request may have ${formatBytes(messageBytesMax)}; this one has ${formatBytes(leftBytes)}`,
        { limitBytes: messageBytesMax, requestBytes: leftBytes },
      );
    }
    this.#begin(incoming, leftBytes);
    if (admits(this.#receivingBytes)) return undefined;
    return intarsiaError(
      'RESOURCE_EXHAUSTED',
      `the host holds as many bytes of requests as it may; this one would add ${formatBytes(leftBytes)}; retry later`,
      { requestBytes: leftBytes },
    );
  }

  #begin(incoming: IncomingStream, bytes: number): void {
    if (!this.#owing.has(incoming)) {
      this.#owing.add(incoming);
      incoming.begin(performance.now());
    }
    if (bytes === 0) return;
    incoming.countedBytes = bytes;
    this.#receivingBytes += bytes;
    if (incoming.closeIsHeard) return;
    incoming.closeIsHeard = true;
    incoming.stream.once('close', () => this.#end(incoming));
  }

  #end(incoming: IncomingStream): void {
    if (!this.#owing.delete(incoming)) return;
    this.#receivingBytes -= incoming.countedBytes;
    incoming.countedBytes = 0;
  }

  #sweep(): void {
    const nowMs = performance.now();
    for (const incoming of this.#owing) {
      if (incoming.stream.closed || incoming.stream.destroyed) {
        this.#end(incoming);
        continue;
      }
      // The host does not read it: the client cannot be late.
      if (incoming.stream.isPaused()) incoming.begin(nowMs);
      const { sinceMs, receivedBytes } = incoming;
      if (nowMs - sinceMs <= this.#limits.receiveMsMax * (1 + receivedBytes / paceBytes)) continue;
      this.#end(incoming);
      refuse(
        incoming.stream,
        intarsiaError(
          'DEADLINE_EXCEEDED',
          `the request arrives too slowly: ${receivedBytes} bytes in ${Math.round(nowMs - sinceMs)} ms`,
          { receivedBytes },
        ),
      );
    }
  }
}

/** One call as its bytes arrive. */
class IncomingStream {
  readonly stream: ServerHttp2Stream;
  /** Since when the client owes bytes, and how many have come since, ms on the monotonic clock. */
  sinceMs = 0;
  receivedBytes = 0;
  /** Bytes counted as being received. */
  countedBytes = 0;
  /** Whether the end of the stream is listened to: only where bytes are counted, since most calls are over at once. */
  closeIsHeard = false;
  /** Of the head of the next message, those that are here. */
  headBytes = 0;
  /** Of the message itself, those that are not. */
  leftBytes = 0;
  #length = 0;

  constructor(stream: ServerHttp2Stream) {
    this.stream = stream;
  }

  begin(nowMs: number): void {
    this.sinceMs = nowMs;
    this.receivedBytes = 0;
  }

  /** Reads as much of the head as is there; once it is whole, `leftBytes` is the message's length. Returns the next place. */
  readHead(chunk: Buffer, start: number): number {
    let at = start;
    for (; at < chunk.byteLength && this.headBytes < frameHeadBytes; at += 1) {
      if (this.headBytes > 0) this.#length = this.#length * 256 + (chunk[at] ?? 0);
      this.headBytes += 1;
    }
    if (this.headBytes < frameHeadBytes) return at;
    this.leftBytes = this.#length;
    this.headBytes = 0;
    this.#length = 0;
    return at;
  }
}

/** Ends the call with a status, where none has been sent, and takes no more of its bytes. */
function refuse(stream: ServerHttp2Stream, error: IntarsiaError): void {
  if (stream.destroyed || stream.closed) return;
  if (stream.headersSent) {
    stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    return;
  }
  stream.respond(
    { ':status': 200, 'content-type': 'application/grpc+proto', ...trailersOf(error) },
    { endStream: true },
  );
  stream.close(constants.NGHTTP2_NO_ERROR);
}
