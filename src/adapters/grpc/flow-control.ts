/**
 * HTTP/2 of the gRPC port, where the library has no option for it: settings that the gRPC library has no option for (grpc-node#2669): receive windows and frame size, without which
 * large tensors crawl, and the bound on header bytes.
 *
 * The library keeps its HTTP/2 servers in a private field. It is read defensively: should a later version hide it
 * otherwise, the server works with the library's defaults and says so once.
 */
import type { Server } from '@grpc/grpc-js';
import type { Http2Server, ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import type { Log } from '#ports/log.js';

export interface Http2Options {
  /** Receive window of each connection and each stream, bytes. */
  readonly windowBytes: number;
  readonly frameBytesMax: number;
  readonly headerBytesMax: number;
  readonly connectionsMax: number;
  /** Milliseconds a new connection may take to speak HTTP/2. */
  readonly receiveMsMax: number;
  /** Called with each new call, after the library has heard of it. */
  readonly onStream: (stream: ServerHttp2Stream, path: string) => void;
}

export interface Http2Control {
  /** Ends every connection at once: the library, asked to, forgets those it does not trace (grpc-js 1.14, forceShutdown). */
  destroyConnections(): void;
}

/** Call once the server listens. */
export function tuneHttp2(server: Server, options: Http2Options, log: Log): Http2Control {
  const sessions = new Set<ServerHttp2Session>();
  const servers = http2ServersOf(server);
  if (servers.length === 0) {
    log.warn(
      'HTTP/2 windows, header and connection limits keep the defaults of the gRPC library: its servers are out of reach',
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
    http2Server.on('stream', (stream: ServerHttp2Stream, headers) => options.onStream(stream, headers[':path'] ?? ''));
    http2Server.on('error', (error: Error) => log.error('the gRPC port met an error', { error: error.message }));
  }
  return {
    destroyConnections: () => {
      for (const session of sessions) session.destroy();
    },
  };
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
