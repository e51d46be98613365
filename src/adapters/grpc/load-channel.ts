/**
 * Load over gRPC, straight on HTTP/2: one call or one message per request, bodies framed once. The gRPC library's client
 * costs several times more a call, and would hide the server behind itself.
 */
import { connect, constants } from 'node:http2';
import type { ClientHttp2Session, ClientHttp2Stream, IncomingHttpHeaders } from 'node:http2';
import { connect as connectTcp, isIP } from 'node:net';
import type { Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { grpcStatus, intarsiaError, messageOf } from '#core/errors.js';
import { KiB, MiB } from '#core/units.js';
import type { LoadDone, LoadTarget, LoadTransport } from '#ports/load-transport.js';
import { DetachedSocket } from './detached-socket.js';

const windowBytes = 16 * MiB;
/** Requests of this size and more, in bytes, can fill the kernel's buffers both ways: see detached-socket.ts. */
const largeBytes = 16 * KiB;
const statusNames = new Map<string, string>(Object.entries(grpcStatus).map(([name, number]) => [String(number), name]));

/** A transport for `grpc` (a call per request) or `grpc-stream` (a stream per connection, a message per request). */
export function openGrpcLoad(target: LoadTarget): LoadTransport {
  const lanes = Array.from({ length: target.connections }, () =>
    target.protocol === 'grpc-stream' ? new StreamLane(target) : new UnaryLane(target),
  );
  let next = 0;
  return {
    open: async () => {
      await Promise.all(lanes.map((lane) => lane.open()));
    },
    send: (body, wantsAnswer, done) => {
      const lane = lanes[next];
      next = next + 1 === lanes.length ? 0 : next + 1;
      lane?.send(body, wantsAnswer, done);
    },
    close: () => {
      for (const lane of lanes) lane.close();
    },
  };
}

/** One connection. */
abstract class Lane {
  protected readonly frames: readonly Buffer[];
  protected readonly headers: Record<string, string>;
  protected session: ClientHttp2Session | undefined;
  protected closed = false;
  readonly #origin: string;
  readonly #isLarge: boolean;
  /** The connection below the session, where requests are large. */
  #socket: Socket | undefined;

  constructor(target: LoadTarget) {
    this.#origin = `${target.tls ? 'https' : 'http'}://${target.address}`;
    this.frames = target.bodies.map(frameOf);
    this.#isLarge = this.frames.some(({ byteLength }) => byteLength >= largeBytes);
    this.headers = {
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: target.path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...(target.timeoutMs > 0 && target.protocol === 'grpc'
        ? { 'grpc-timeout': `${Math.ceil(target.timeoutMs)}m` }
        : {}),
      ...target.headers,
    };
  }

  open(): Promise<void> {
    return new Promise((resolve, reject) => {
      const session = this.connected();
      if (!session.connecting && this.#socket?.connecting !== true) {
        resolve();
        return;
      }
      const connecting = this.#socket ?? session;
      connecting.once('connect', () => resolve());
      connecting.once('error', (error: Error) => {
        reject(intarsiaError('UNAVAILABLE', `${this.#origin} cannot be reached: ${messageOf(error)}`, {}, error));
      });
    });
  }

  abstract send(body: number, wantsAnswer: boolean, done: LoadDone): void;

  close(): void {
    this.closed = true;
    this.session?.destroy();
  }

  protected connected(): ClientHttp2Session {
    if (this.session !== undefined && !this.session.closed && !this.session.destroyed) return this.session;
    const session = connect(this.#origin, {
      ...(this.#isLarge ? { createConnection: (to: URL) => this.#detached(to) } : {}),
      settings: { initialWindowSize: windowBytes, maxFrameSize: MiB, enablePush: false },
      // Bounded by the number of requests in flight, which the generator bounds.
      maxSessionMemory: 1024,
    });
    session.on('connect', () => session.setLocalWindowSize(windowBytes));
    // The error of a session also ends each of its streams, where it is counted.
    session.on('error', () => {});
    this.session = session;
    return session;
  }

  #detached(to: URL): DetachedSocket {
    this.#socket = socketTo(to);
    return new DetachedSocket(this.#socket);
  }

  /** Why a stream that was not answered ended. */
  protected lostCode(): string {
    return this.closed ? 'UNANSWERED' : 'UNAVAILABLE';
  }
}

class UnaryLane extends Lane {
  send(body: number, wantsAnswer: boolean, done: LoadDone): void {
    const stream = this.connected().request(this.headers);
    let status: string | undefined;
    let chunks: Buffer[] | undefined;
    const readStatus = (headers: IncomingHttpHeaders): void => {
      const named = headers['grpc-status'];
      if (typeof named === 'string') status = failureCode(named, headers['intarsia-code']);
      const { ':status': http } = headers as { ':status'?: number };
      if (http !== undefined && http !== 200) status = `HTTP_${http}`;
    };
    stream.on('response', readStatus);
    stream.on('trailers', readStatus);
    if (wantsAnswer) {
      chunks = [];
      const kept = chunks;
      stream.on('data', (chunk: Buffer) => kept.push(chunk));
    } else stream.resume();
    // Its code is told by `close`.
    stream.on('error', () => {});
    stream.once('close', () => {
      done(status ?? this.lostCode(), chunks === undefined ? undefined : Buffer.concat(chunks).subarray(5));
    });
    stream.end(this.frames[body]);
  }
}

class StreamLane extends Lane {
  #stream: ClientHttp2Stream | undefined;
  /** Requests on their way, oldest first: a stream of requests for one model is answered in their order. */
  #waiting: { readonly wantsAnswer: boolean; readonly done: LoadDone }[] = [];
  readonly #reader = new MessageReader();

  send(body: number, wantsAnswer: boolean, done: LoadDone): void {
    this.#waiting.push({ wantsAnswer, done });
    this.#opened().write(this.frames[body]);
  }

  #opened(): ClientHttp2Stream {
    if (this.#stream !== undefined && !this.#stream.destroyed) return this.#stream;
    const stream = this.connected().request(this.headers);
    let status = '';
    this.#reader.reset();
    stream.on('data', (chunk: Buffer) => {
      this.#reader.read(
        chunk,
        () => this.#waiting[0]?.wantsAnswer === true,
        (firstByte, message) => {
          // Field 1 of ModelStreamInferResponse is the text of an error; an answer has field 2 only.
          const failed = firstByte === 0x0a;
          this.#waiting.shift()?.done(failed ? 'STREAM_ERROR' : '', failed ? undefined : message);
        },
      );
    });
    const readStatus = (headers: IncomingHttpHeaders): void => {
      const named = headers['grpc-status'];
      if (typeof named === 'string') status = failureCode(named, headers['intarsia-code']);
    };
    stream.on('response', readStatus);
    stream.on('trailers', readStatus);
    stream.on('error', () => {});
    stream.once('close', () => {
      const lost = this.#waiting;
      this.#waiting = [];
      if (this.#stream === stream) this.#stream = undefined;
      for (const { done } of lost) done(status === '' ? this.lostCode() : status, undefined);
    });
    this.#stream = stream;
    return stream;
  }
}

/** Cuts a stream of bytes into gRPC messages; keeps only those that somebody wants. */
class MessageReader {
  readonly #header = Buffer.alloc(5);
  #headerBytes = 0;
  #remaining = 0;
  #firstByte = 0;
  #kept: Buffer[] | undefined;

  reset(): void {
    this.#headerBytes = 0;
  }

  read(
    chunk: Buffer,
    wanted: () => boolean,
    onMessage: (firstByte: number, message: Buffer | undefined) => void,
  ): void {
    let at = 0;
    while (at < chunk.byteLength) {
      if (this.#headerBytes < 5) {
        const count = Math.min(5 - this.#headerBytes, chunk.byteLength - at);
        chunk.copy(this.#header, this.#headerBytes, at, at + count);
        this.#headerBytes += count;
        at += count;
        if (this.#headerBytes < 5) return;
        this.#remaining = this.#header.readUInt32BE(1);
        this.#firstByte = -1;
        this.#kept = wanted() ? [] : undefined;
      }
      const count = Math.min(this.#remaining, chunk.byteLength - at);
      if (this.#firstByte === -1 && count > 0) this.#firstByte = chunk[at] ?? -1;
      if (count > 0) this.#kept?.push(chunk.subarray(at, at + count));
      at += count;
      this.#remaining -= count;
      if (this.#remaining > 0) return;
      this.#headerBytes = 0;
      onMessage(this.#firstByte, this.#kept === undefined ? undefined : Buffer.concat(this.#kept));
    }
  }
}

function socketTo({ protocol, hostname, port }: URL): Socket {
  const host = hostname.replace(/^\[|\]$/g, '');
  if (protocol === 'http:') return connectTcp({ host, port: Number(port), noDelay: true });
  const server = isIP(host) === 0 ? { servername: host } : {};
  return connectTls({ host, port: Number(port), ...server, ALPNProtocols: ['h2'] });
}

/** '' for OK, otherwise our code or the name of the status. */
function failureCode(status: string, ours: string | string[] | undefined): string {
  if (status === '0') return '';
  return typeof ours === 'string' ? ours : (statusNames.get(status) ?? `STATUS_${status}`);
}

function frameOf(body: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(5 + body.byteLength);
  frame.writeUInt8(0, 0);
  frame.writeUInt32BE(body.byteLength, 1);
  frame.set(body, 5);
  return frame;
}
