/**
 * What the REST port and the metrics port have in common: a bounded HTTP server on fastify, TLS, the end of it, and how
 * bytes that are no request and verbs that are not there are answered.
 */
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import fastify, { type FastifyInstance, type HTTPMethods } from 'fastify';
import { intarsiaError, messageOf } from '#core/errors.js';

export interface TlsFiles {
  /** PEM files. */
  readonly certificatePath: string;
  readonly keyPath: string;
  /** Set: clients must show a certificate of this authority. */
  readonly clientAuthorityPath: string;
}

export interface RunningHttpServer {
  readonly port: number;
  /** Takes no new connections, waits up to `graceMs` for requests under way, then ends them. */
  stop(graceMs: number): Promise<void>;
}

export interface AppOptions {
  readonly tls?: TlsFiles;
  readonly connectionsMax: number;
  readonly headerBytesMax: number;
  /** Milliseconds a client may take for its headers. */
  readonly receiveMsMax: number;
}

/** A connection without requests is kept this long, ms. */
const keepAliveMs = 75_000;
/** Between two looks, while stopping, at connections that have become idle, ms. */
const idleSweepMs = 50;
const methods: readonly HTTPMethods[] = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'];
export function createApp(options: AppOptions): FastifyInstance {
  const bounds = {
    maxHeaderSize: options.headerBytesMax,
    headersTimeout: options.receiveMsMax,
    // Bodies have a pace rather than a time: BodyReader watches it.
    requestTimeout: 0,
    keepAliveTimeout: keepAliveMs,
    connectionsCheckingInterval: Math.max(50, Math.ceil(options.receiveMsMax / 8)),
    noDelay: true,
  };
  const shared = {
    logger: false,
    exposeHeadRoutes: false,
    keepAliveTimeout: keepAliveMs,
    requestTimeout: 0,
    routerOptions: { maxParamLength: 512 },
    clientErrorHandler: refuseMalformed,
    forceCloseConnections: 'idle' as const,
  };
  const app =
    options.tls === undefined
      ? fastify({ ...shared, http: bounds })
      : (fastify({ ...shared, https: { ...bounds, ...tlsOptions(options.tls) } }) as unknown as FastifyInstance);
  const { server } = app;
  server.maxConnections = options.connectionsMax;
  server.headersTimeout = options.receiveMsMax;
  return app;
}

/** 405 with the methods that are there, for every path that exists. */
export function refuseOtherMethods(app: FastifyInstance, allowed: ReadonlyMap<string, ReadonlySet<HTTPMethods>>): void {
  for (const [url, known] of allowed) {
    const others = methods.filter((method) => !known.has(method));
    const allow = [...known].join(', ');
    app.route({
      method: others,
      url,
      handler: (request, reply) => {
        reply.hijack();
        const body = Buffer.from(JSON.stringify({ error: `${request.method} is not allowed here; ${allow} is` }));
        reply.raw.writeHead(405, { 'content-type': 'application/json', 'content-length': body.byteLength, allow });
        reply.raw.end(body);
      },
    });
  }
}

/** Bytes that are no HTTP request, or whose headers are too large or too slow. */
function refuseMalformed(error: Error & { readonly code?: string }, socket: Socket): void {
  if (!socket.writable || socket.destroyed || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const [status, text] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? ['431 Request Header Fields Too Large', 'the headers of the request are too large']
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ['408 Request Timeout', 'the request arrives too slowly']
        : ['400 Bad Request', 'the bytes are not an HTTP request'];
  const body = JSON.stringify({ error: text });
  socket.end(
    `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`,
  );
}

export async function listen(
  app: FastifyInstance,
  options: { readonly bindAddress: string; readonly port: number },
  portOption: string,
): Promise<number> {
  try {
    await app.listen({ host: options.bindAddress, port: options.port });
  } catch (error) {
    await app.close();
    throw intarsiaError(
      'FAILED_PRECONDITION',
      `the HTTP port ${options.bindAddress}:${options.port} cannot be opened: ${messageOf(error)}. Another program may use it; choose another with ${portOption}`,
      { port: options.port },
      error,
    );
  }
  const address = app.server.address();
  return typeof address === 'object' && address !== null ? address.port : options.port;
}

export async function stopApp(app: FastifyInstance, graceMs: number): Promise<void> {
  const server = app.server;
  const timer = setTimeout(() => server.closeAllConnections(), graceMs);
  // A connection that was busy is idle once its answer is out, and its client would keep it open.
  const sweeper = setInterval(() => server.closeIdleConnections(), idleSweepMs);
  await app.close();
  clearTimeout(timer);
  clearInterval(sweeper);
}

function tlsOptions(tls: TlsFiles) {
  const read = (option: string, path: string): Buffer => {
    try {
      return readFileSync(path);
    } catch (error) {
      throw intarsiaError('CONFIG_INVALID', `${option} cannot be read: ${messageOf(error)}`, { option }, error);
    }
  };
  const mutual = tls.clientAuthorityPath !== '';
  return {
    cert: read('tls.certificatePath', tls.certificatePath),
    key: read('tls.keyPath', tls.keyPath),
    ...(mutual
      ? { ca: read('tls.clientAuthorityPath', tls.clientAuthorityPath), requestCert: true, rejectUnauthorized: true }
      : {}),
  };
}
