/**
 * Traces of requests: spans with a name, a time, a few attributes and an end.
 *
 * Promises: calls never throw and never wait. When a request is not sampled `start` returns `noSpan`, which costs
 * nothing; attributes are worth computing only while `recording` is true. A span is ended exactly once; what is told to
 * it later is ignored. Spans that cannot be delivered are dropped and counted, never kept without bound.
 */
export interface Tracing {
  /**
   * Starts the span of a request. `traceparent` is the W3C header the client sent: its decision to sample is followed,
   * and the span becomes a child of the client's. Undefined or malformed: a new trace, sampled by the configured share.
   */
  start(name: string, traceparent: string | undefined): Span;
  /** Delivers what waits, then ends; bounded in time. */
  close(): Promise<void>;
}

export type SpanAttributes = Readonly<Record<string, string | number | boolean>>;

export interface Span {
  readonly recording: boolean;
  /** W3C traceparent to send on to the next hop; empty when there is no trace. */
  readonly traceparent: string;
  /** A part of this span's work. */
  child(name: string): Span;
  set(attributes: SpanAttributes): void;
  /** Ends it: well, or with the code of the error it met. */
  end(errorCode?: string): void;
}

/** The span of what is not traced. */
export const noSpan: Span = {
  recording: false,
  traceparent: '',
  child: () => noSpan,
  set: () => {},
  end: () => {},
};

/** Traces nothing, for free. */
export const noTracing: Tracing = { start: () => noSpan, close: () => Promise.resolve() };
