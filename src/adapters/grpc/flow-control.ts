/**
 * HTTP/2 settings that the gRPC library has no option for (grpc-node#2669): receive windows and frame size, without which
 * large tensors crawl, and the bound on header bytes.
 *
 * The library keeps its HTTP/2 servers in a private field. It is read defensively: should a later version hide it
 * otherwise, the server works with the library's defaults and says so once.
 */
import type { Server } from '@grpc/grpc-js';
import type { Http2Server, ServerHttp2Session } from 'node:http2';
import type { Log } from '#ports/log.js';

export interface FlowControlOptions {
  /** Receive window of each connection and each stream, bytes. */
  readonly windowBytes: number;
  readonly frameBytesMax: number;
  readonly headerBytesMax: number;
  readonly connectionsMax: number;
}

/** Call once the server listens. False when the HTTP/2 servers cannot be reached. */
export function tuneHttp2(server: Server, options: FlowControlOptions, log: Log): boolean {
  const servers = http2ServersOf(server);
  if (servers.length === 0) {
    log.warn(
      'HTTP/2 windows, header and connection limits keep the defaults of the gRPC library: its servers are out of reach',
    );
    return false;
  }
  for (const http2Server of servers) {
    http2Server.updateSettings({
      initialWindowSize: options.windowBytes,
      maxFrameSize: options.frameBytesMax,
      maxHeaderListSize: options.headerBytesMax,
    });
    http2Server.maxConnections = options.connectionsMax;
    http2Server.on('session', (session: ServerHttp2Session) => session.setLocalWindowSize(options.windowBytes));
    http2Server.on('error', (error: Error) => log.error('the gRPC port met an error', { error: error.message }));
  }
  return true;
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
