/**
 * HTTP/2 of the gRPC port, where the gRPC library has no option for it (grpc-node#2669): receive windows and frame size,
 * without which large tensors crawl, the bounds on header bytes and connections, and calls that are served past it.
 *
 * The library keeps its HTTP/2 servers in a private field; its version is pinned. Should another one hide them, the
 * server refuses to start rather than serve without limits.
 */
import type { Server } from '@grpc/grpc-js';
import type { Http2Server, IncomingHttpHeaders, ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import { intarsiaError } from '#core/errors.js';
import type { Log } from '#ports/log.js';

export interface Http2Options {
  /** Receive window of each connection and each stream, bytes. */
  readonly windowBytes: number;
  readonly frameBytesMax: number;
  readonly headerBytesMax: number;
  readonly connectionsMax: number;
  /** Milliseconds a new connection may take to speak HTTP/2. */
  readonly receiveMsMax: number;
  /** Calls by their path that the library does not hear of. */
  readonly serve: Readonly<Record<string, (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void>>;
  /** Called with each new call, after whoever serves it has heard of it. */
  readonly onStream: (stream: ServerHttp2Stream, path: string) => void;
}

export interface Http2Control {
  /** The servers of the library: one an address. */
  readonly servers: readonly Http2Server[];
  /** Ends every connection at once: the library, asked to, forgets those it does not trace (grpc-js 1.14, forceShutdown). */
  destroyConnections(): void;
}

/** Call once the server listens. @throws INTERNAL when the library's servers are out of reach. */
export function tuneHttp2(server: Server, options: Http2Options, log: Log): Http2Control {
  const sessions = new Set<ServerHttp2Session>();
  const servers = http2ServersOf(server);
  if (servers.length === 0) {
    throw intarsiaError(
      'INTERNAL',
      'the HTTP/2 servers of the gRPC library are out of reach: is its version the pinned one?',
    );
  }
  for (const http2Server of servers) {
    http2Server.updateSettings({
      initialWindowSize: options.windowBytes,
      maxFrameSize: options.frameBytesMax,
      maxHeaderListSize: options.headerBytesMax,
    });
    http2Server.maxConnections = options.connectionsMax;
    http2Server.on('session', (session: ServerHttp2Session) => {
      sessions.add(session);
      session.setLocalWindowSize(options.windowBytes);
      const mute = setTimeout(() => session.destroy(), options.receiveMsMax).unref();
      session.once('remoteSettings', () => clearTimeout(mute));
      session.once('close', () => {
        clearTimeout(mute);
        sessions.delete(session);
      });
    });
    serveBeside(http2Server, options);
    http2Server.on('error', (error: Error) => log.error('the gRPC port met an error', { error: error.message }));
  }
  return {
    servers,
    destroyConnections: () => {
      for (const session of sessions) session.destroy();
    },
  };
}

/** Sends each call to whoever serves its path; what is not gRPC is the library's to refuse. */
function serveBeside(http2Server: Http2Server, { serve, onStream }: Http2Options): void {
  const library = http2Server.listeners('stream');
  http2Server.removeAllListeners('stream');
  const served = new Map(Object.entries(serve));
  http2Server.on('stream', (stream: ServerHttp2Stream, headers, ...rest: unknown[]) => {
    const path = headers[':path'] ?? '';
    const handle = headers['content-type']?.startsWith('application/grpc') === true ? served.get(path) : undefined;
    if (handle === undefined)
      for (const listener of library) Reflect.apply(listener, http2Server, [stream, headers, ...rest]);
    else handle(stream, headers);
    onStream(stream, path);
  });
}

function http2ServersOf(server: Server): Http2Server[] {
  const held: unknown = Reflect.get(server, 'http2Servers');
  if (!(held instanceof Map)) return [];
  return [...held.keys()].filter(isHttp2Server);
}

function isHttp2Server(value: unknown): value is Http2Server {
  return (
    typeof value === 'object' &&
    value !== null &&
    'updateSettings' in value &&
    typeof value.updateSettings === 'function'
  );
}
