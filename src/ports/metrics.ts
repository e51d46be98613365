/**
 * Metrics: named families, bound once to label values, then touched without look-ups or allocations.
 *
 * Promises: binding the same labels twice gives handles to the same series; the number of series of a family is bounded
 * (`seriesMax`, default 1,000) and what comes after is counted under the label value `other`.
 */
export interface Metrics {
  counter(definition: MetricDefinition): MetricFamily<Counter>;
  gauge(definition: MetricDefinition): MetricFamily<Gauge>;
  histogram(definition: HistogramDefinition): MetricFamily<Histogram>;
  /** Calls `collect` before each exposition, for values that are read rather than counted. */
  onCollect(collect: () => void): void;
}

export interface MetricDefinition {
  /** Prometheus name with its unit, such as `intarsia_batch_released_total`. */
  readonly name: string;
  readonly help: string;
  readonly labels: readonly string[];
}
export interface HistogramDefinition extends MetricDefinition {
  /** Upper bounds in ascending order; +Inf is implied. */
  readonly buckets: readonly number[];
}

export interface MetricFamily<Handle> {
  /** The series with these label values, in the order of `labels`. */
  bind(...labelValues: readonly string[]): Handle;
  /** Forgets a series, for models that are gone. */
  remove(...labelValues: readonly string[]): void;
}
export interface Counter {
  add(amount: number): void;
}
export interface Gauge {
  set(value: number): void;
  add(amount: number): void;
}
export interface Histogram {
  observe(value: number): void;
}
