/**
 * The REST port: Open Inference Protocol v2 with JSON and binary tensors, on fastify. It owns sockets, limits, TLS and the
 * translation of errors; what requests mean is src/server's. In Node this is the faster of the two roads for inference.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest, HTTPMethods } from 'fastify';
import { asIntarsiaError, intarsiaError } from '#core/errors.js';
import type { Log } from '#ports/log.js';
import { adminRoutes, type AdminRoute, type HttpServices } from './admin-routes.js';
import { createApp, listen, refuseOtherMethods, stopApp, type AppOptions, type RunningHttpServer } from './app.js';
import { BodyReader } from './body-reader.js';
import { fromFramework, sendError } from './http-error.js';
import { headerText, inferHandler, type InferRouteOptions, type RawInputService } from './infer-route.js';

export type { RunningHttpServer } from './app.js';

export interface HttpServerOptions extends InferRouteOptions, AppOptions {
  readonly services: HttpServices & RawInputService;
  readonly log: Log;
  /** Address to listen on; port 0 chooses a free one. */
  readonly bindAddress: string;
  readonly port: number;
  /** Milliseconds a client may take for its headers, and for its body: this long and again for every 64 KiB it has sent. */
  readonly receiveMsMax: number;
}

const inferPaths = ['/v2/models/:model/infer', '/v2/models/:model/versions/:version/infer'];
const empty = Buffer.alloc(0);

/** @throws CONFIG_INVALID when a TLS file cannot be used, FAILED_PRECONDITION when the port cannot be opened. */
export async function startHttpServer(options: HttpServerOptions): Promise<RunningHttpServer> {
  const app = createApp(options);
  const bodies = new BodyReader({
    messageBytesMax: options.messageBytesMax,
    receiveMsMax: options.receiveMsMax,
    admits: (bytes) => options.gateway.admits(bytes),
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (request, _payload, done) => bodies.read(request.raw, done));
  app.setErrorHandler((error, _request, reply) => {
    // The body may be half read: the connection cannot be used again.
    reply.hijack();
    sendError(reply.raw, fromFramework(error), { connection: 'close' });
  });
  app.setNotFoundHandler((request, reply) => {
    reply.hijack();
    const path = request.url.split('?', 1)[0] ?? '';
    sendError(reply.raw, intarsiaError('NOT_FOUND', `no such path: ${path.slice(0, 200)}`));
  });
  addRoutes(app, options);
  const port = await listen(app, options, '--http-port');
  return {
    port,
    async stop(graceMs) {
      await stopApp(app, graceMs);
      bodies.close();
    },
  };
}

function addRoutes(app: FastifyInstance, options: HttpServerOptions): void {
  const allowed = new Map<string, Set<HTTPMethods>>();
  const allow = (path: string, list: readonly HTTPMethods[]): void => {
    const known = allowed.get(path) ?? new Set<HTTPMethods>();
    for (const method of list) known.add(method);
    allowed.set(path, known);
  };
  const infer = inferHandler(options);
  for (const url of inferPaths) {
    app.route({ method: 'POST', url, handler: infer });
    allow(url, ['POST']);
  }
  for (const route of adminRoutes) {
    const list: HTTPMethods[] = route.method === 'GET' ? ['GET', 'HEAD'] : ['POST'];
    app.route({ method: list, url: route.path, handler: adminHandler(route, options) });
    allow(route.path, list);
  }
  refuseOtherMethods(app, allowed);
}

function adminHandler(route: AdminRoute, options: HttpServerOptions) {
  const answer = async (request: FastifyRequest) => {
    const caller = options.access.authorize(route.group, 'http', (name) => headerText(request.headers[name]));
    return route.handle(options.services, {
      params: request.params as Readonly<Record<string, string | undefined>>,
      body: (request.body as Buffer | undefined) ?? empty,
      call: { caller, deadlineMs: Infinity },
    });
  };
  return (request: FastifyRequest, reply: FastifyReply): void => {
    reply.hijack();
    answer(request).then(
      ({ status, json }) => {
        const body = Buffer.from(JSON.stringify(json));
        reply.raw.writeHead(status, { 'content-type': 'application/json', 'content-length': body.byteLength });
        reply.raw.end(request.method === 'HEAD' ? undefined : body);
      },
      (error: unknown) => sendError(reply.raw, asIntarsiaError(error)),
    );
  };
}
