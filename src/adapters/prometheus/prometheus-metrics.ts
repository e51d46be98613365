/**
 * The metrics port over prom-client.
 *
 * prom-client hashes label objects on every call, even through its bound children. Here a bound handle is a plain number
 * (or a typed array of bucket counts): touching it costs an addition. prom-client's registry asks for the values when
 * somebody scrapes, and does what it is good at: names, escaping, the text format, and figures about the process.
 */
import { Registry, collectDefaultMetrics } from 'prom-client';
import { invariant } from '#core/errors.js';
import { CounterSeries, GaugeSeries, HistogramSeries } from './series.js';
import type { Sample } from './series.js';
import type { Metric } from 'prom-client';
import type {
  Counter,
  Gauge,
  Histogram,
  HistogramDefinition,
  MetricDefinition,
  MetricFamily,
  Metrics,
} from '#ports/metrics.js';

export interface PrometheusOptions {
  /** Series per family, 1 to 1,000,000, default 1,000. At the bound new label values are counted under `other`. */
  readonly seriesMax?: number;
  /** Also show `process_*` and `nodejs_*` figures of this process. Default false. */
  readonly processMetrics?: boolean;
}

/** Label value of everything beyond the bound of a family. */
export const overflowLabelValue = 'other';

type FamilyType = 'counter' | 'gauge' | 'histogram';
interface Series {
  samples(name: string): readonly Sample[];
}

export class PrometheusMetrics implements Metrics {
  readonly #registry = new Registry();
  readonly #families = new Map<string, Family<Series>>();
  readonly #collectors: (() => void)[] = [];
  readonly #seriesMax: number;

  constructor(options: PrometheusOptions = {}) {
    this.#seriesMax = options.seriesMax ?? 1000;
    invariant(this.#seriesMax >= 1, 'a family holds at least one series');
    if (options.processMetrics === true) collectDefaultMetrics({ register: this.#registry });
  }

  /** Value of the Content-Type header that belongs to `exposition`. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  counter(definition: MetricDefinition): MetricFamily<Counter> {
    return this.#family('counter', definition, (labels) => new CounterSeries(labels));
  }

  gauge(definition: MetricDefinition): MetricFamily<Gauge> {
    return this.#family('gauge', definition, (labels) => new GaugeSeries(labels));
  }

  histogram(definition: HistogramDefinition): MetricFamily<Histogram> {
    return this.#family('histogram', definition, (labels) => new HistogramSeries(labels, definition.buckets));
  }

  onCollect(collect: () => void): void {
    this.#collectors.push(collect);
  }

  /** Everything in Prometheus' text format, version 0.0.4. */
  async exposition(): Promise<string> {
    for (const collect of this.#collectors) collect();
    return this.#registry.metrics();
  }

  #family<Handle extends Series>(
    type: FamilyType,
    definition: MetricDefinition,
    make: (labels: Readonly<Record<string, string>>) => Handle,
  ): MetricFamily<Handle> {
    const known = this.#families.get(definition.name);
    if (known !== undefined) {
      invariant(
        known.type === type && known.labels.join() === definition.labels.join(),
        `metric ${definition.name} is a ${known.type} with labels [${known.labels.join()}], not a ${type} with [${definition.labels.join()}]`,
      );
      return known as unknown as Family<Handle>;
    }
    const family = new Family(type, definition, make, this.#seriesMax);
    this.#families.set(definition.name, family);
    // The registry calls nothing but `get` on what is registered; its type asks for the whole class.
    this.#registry.registerMetric(family as unknown as Metric);
    return family;
  }
}

/** One metric name with its series. `name`, `help`, `type`, `aggregator` and `get` are what prom-client's registry reads. */
class Family<Handle extends Series> implements MetricFamily<Handle> {
  readonly type: FamilyType;
  readonly name: string;
  readonly help: string;
  readonly labels: readonly string[];
  readonly aggregator = 'sum';
  readonly #make: (labels: Readonly<Record<string, string>>) => Handle;
  readonly #seriesMax: number;
  readonly #series = new Map<string, Handle>();
  #overflow: Handle | undefined;

  constructor(
    type: FamilyType,
    definition: MetricDefinition,
    make: (labels: Readonly<Record<string, string>>) => Handle,
    seriesMax: number,
  ) {
    this.type = type;
    this.name = definition.name;
    this.help = definition.help;
    this.labels = definition.labels;
    this.#make = make;
    this.#seriesMax = seriesMax;
  }

  bind(...labelValues: readonly string[]): Handle {
    invariant(
      labelValues.length === this.labels.length,
      `metric ${this.name} has labels [${this.labels.join()}]; ${labelValues.length} values were given`,
    );
    const key = labelValues.join('\u0000');
    const known = this.#series.get(key);
    if (known !== undefined) return known;
    if (this.#series.size >= this.#seriesMax) {
      this.#overflow ??= this.#make(Object.fromEntries(this.labels.map((label) => [label, overflowLabelValue])));
      return this.#overflow;
    }
    const series = this.#make(Object.fromEntries(this.labels.map((label, index) => [label, labelValues[index] ?? ''])));
    this.#series.set(key, series);
    return series;
  }

  remove(...labelValues: readonly string[]): void {
    this.#series.delete(labelValues.join('\u0000'));
  }

  get(): Promise<object> {
    const values: Sample[] = [];
    for (const series of this.#series.values()) values.push(...series.samples(this.name));
    if (this.#overflow !== undefined) values.push(...this.#overflow.samples(this.name));
    return Promise.resolve({ name: this.name, help: this.help, type: this.type, aggregator: this.aggregator, values });
  }
}
