/** The metrics port: GET /metrics in Prometheus' text format, and nothing else. */
import type { HTTPMethods } from 'fastify';
import { asIntarsiaError, intarsiaError } from '#core/errors.js';
import { createApp, listen, refuseOtherMethods, stopApp, type AppOptions, type RunningHttpServer } from './app.js';
import { sendError } from './http-error.js';

export interface MetricsServerOptions extends AppOptions {
  /** The exposition in Prometheus' text format. */
  readonly metrics: () => Promise<string>;
  readonly bindAddress: string;
  readonly port: number;
}

/** GET /metrics on a port of its own. @throws as `startHttpServer`. */
export async function startMetricsServer(options: MetricsServerOptions): Promise<RunningHttpServer> {
  const app = createApp(options);
  app.route({
    method: ['GET', 'HEAD'],
    url: '/metrics',
    handler: (_request, reply) => {
      options.metrics().then(
        (text) => reply.header('content-type', 'text/plain; version=0.0.4; charset=utf-8').send(text),
        (error: unknown) => {
          reply.hijack();
          sendError(reply.raw, asIntarsiaError(error));
        },
      );
    },
  });
  refuseOtherMethods(app, new Map([['/metrics', new Set<HTTPMethods>(['GET', 'HEAD'])]]));
  app.setNotFoundHandler((_request, reply) => {
    reply.hijack();
    sendError(reply.raw, intarsiaError('NOT_FOUND', 'metrics are at /metrics'));
  });
  const port = await listen(app, options, '--metrics-port');
  return { port, stop: (graceMs) => stopApp(app, graceMs) };
}
