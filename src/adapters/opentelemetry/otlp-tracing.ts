/**
 * The tracing port over OpenTelemetry: spans of sampled requests, sent to a collector over OTLP/HTTP.
 *
 * OpenTelemetry is loaded when an endpoint is configured and not before: a host without one pays neither its memory nor
 * its start. Whether a request is sampled is decided here, before the library is touched, so that the requests that are
 * not traced cost a comparison. Spans wait in a queue of `queueSpansMax`; what does not fit is dropped and counted.
 */
import { noSpan, noTracing } from '#ports/tracing.js';
import { parseTraceparent } from './traceparent.js';
import type { Random } from '#ports/random.js';
import type { Log } from '#ports/log.js';
import type { Span, SpanAttributes, Tracing } from '#ports/tracing.js';
import type * as Api from '@opentelemetry/api';
import type { ReadableSpan, SpanExporter } from '@opentelemetry/sdk-trace-node';

export interface OtlpTracingOptions {
  /** Base URL of the collector, such as http://127.0.0.1:4318; empty: nothing is traced. */
  readonly endpoint: string;
  /** Share of requests that are traced when the client has not decided, 0 to 1. */
  readonly share: number;
  readonly random: Random;
  readonly log: Log;
  /** Names of the host in every span. */
  readonly host: { readonly name: string; readonly version: string };
  /** Spans that may wait for the collector, default 2,048. At the bound new spans are dropped. */
  readonly queueSpansMax?: number;
  /** Milliseconds between two deliveries, default 5,000. */
  readonly delayMs?: number;
}

const exportMsMax = 5000;

/** Tracing to that endpoint; `noTracing` where it is empty. @throws Error when the endpoint is not a URL. */
export async function openOtlpTracing(options: OtlpTracingOptions): Promise<Tracing> {
  if (options.endpoint === '') return noTracing;
  const url = new URL('v1/traces', options.endpoint.endsWith('/') ? options.endpoint : `${options.endpoint}/`);
  const [api, sdk, { OTLPTraceExporter }, { resourceFromAttributes }] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/sdk-trace-node'),
    import('@opentelemetry/exporter-trace-otlp-http'),
    import('@opentelemetry/resources'),
  ]);
  const exporter = new OTLPTraceExporter({ url: url.href, timeoutMillis: exportMsMax });
  const provider = new sdk.BasicTracerProvider({
    resource: resourceFromAttributes({
      'service.name': 'intarsia',
      'service.instance.id': options.host.name,
      'service.version': options.host.version,
    }),
    sampler: new sdk.AlwaysOnSampler(),
    spanProcessors: [
      new sdk.BatchSpanProcessor(reporting(exporter, options.log), {
        maxQueueSize: options.queueSpansMax ?? 2048,
        maxExportBatchSize: Math.min(512, options.queueSpansMax ?? 2048),
        scheduledDelayMillis: options.delayMs ?? 5000,
        exportTimeoutMillis: exportMsMax,
      }),
    ],
  });
  const tracer = provider.getTracer('intarsia', options.host.version);
  return {
    start: (name, traceparent) => {
      const parent = traceparent === undefined ? undefined : parseTraceparent(traceparent);
      const sampled = parent === undefined ? options.random.next() < options.share : parent.sampled;
      if (!sampled) return noSpan;
      const context =
        parent === undefined
          ? api.ROOT_CONTEXT
          : api.trace.setSpanContext(api.ROOT_CONTEXT, {
              traceId: parent.traceId,
              spanId: parent.spanId,
              traceFlags: 1,
              isRemote: true,
            });
      return new TracedSpan(api, tracer, tracer.startSpan(name, { kind: api.SpanKind.SERVER }, context));
    },
    // What cannot be delivered now is lost, and the log has said why: ending must not fail over it.
    close: () => provider.shutdown().catch(() => {}),
  };
}

class TracedSpan implements Span {
  readonly #api: typeof Api;
  readonly #tracer: Api.Tracer;
  readonly #span: Api.Span;
  #ended = false;

  constructor(api: typeof Api, tracer: Api.Tracer, span: Api.Span) {
    this.#api = api;
    this.#tracer = tracer;
    this.#span = span;
  }

  get recording(): boolean {
    return !this.#ended;
  }

  get traceparent(): string {
    const { traceId, spanId } = this.#span.spanContext();
    return `00-${traceId}-${spanId}-01`;
  }

  child(name: string): Span {
    const context = this.#api.trace.setSpan(this.#api.ROOT_CONTEXT, this.#span);
    return new TracedSpan(
      this.#api,
      this.#tracer,
      this.#tracer.startSpan(name, { kind: this.#api.SpanKind.INTERNAL }, context),
    );
  }

  set(attributes: SpanAttributes): void {
    if (!this.#ended) this.#span.setAttributes(attributes);
  }

  end(errorCode?: string): void {
    if (this.#ended) return;
    this.#ended = true;
    if (errorCode !== undefined) {
      this.#span.setAttribute('error.type', errorCode);
      this.#span.setStatus({ code: this.#api.SpanStatusCode.ERROR, message: errorCode });
    }
    this.#span.end();
  }
}

/** The exporter, with the first of a row of failures in the log: a collector that is away must not fill it. */
function reporting(exporter: SpanExporter, log: Log): SpanExporter {
  let failing = false;
  return {
    export: (spans: ReadableSpan[], done) =>
      exporter.export(spans, (result) => {
        const { code }: { readonly code: number } = result;
        const failed = code !== 0;
        if (failed && !failing)
          log.warn('traces cannot be delivered', { spans: spans.length, reason: result.error?.message });
        if (!failed && failing) log.info('traces are delivered again');
        failing = failed;
        done(result);
      }),
    shutdown: () => exporter.shutdown(),
    forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
  };
}
