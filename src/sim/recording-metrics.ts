/** Metrics that can be read back, for tests. They keep the port's promise about the number of series. */
import { intarsiaError } from '#core/errors.js';
import type {
  Counter,
  Gauge,
  Histogram,
  HistogramDefinition,
  MetricDefinition,
  MetricFamily,
  Metrics,
} from '#ports/metrics.js';

class Series implements Counter, Gauge, Histogram {
  value = 0;
  readonly observations: number[] = [];
  add(amount: number): void {
    this.value += amount;
  }
  set(value: number): void {
    this.value = value;
  }
  observe(value: number): void {
    this.observations.push(value);
    this.value += value;
  }
}

class Family implements MetricFamily<Series> {
  readonly definition: MetricDefinition;
  readonly series = new Map<string, Series>();
  private readonly seriesMax: number;

  constructor(definition: MetricDefinition, seriesMax: number) {
    this.definition = definition;
    this.seriesMax = seriesMax;
  }

  bind(...labelValues: readonly string[]): Series {
    if (labelValues.length !== this.definition.labels.length) {
      const { name, labels } = this.definition;
      throw intarsiaError(
        'INTERNAL',
        `metric ${name} has ${labels.length} labels (${labels.join(', ')}); ${labelValues.length} values were given`,
      );
    }
    const known = this.series.get(keyOf(labelValues));
    if (known !== undefined) return known;
    const isFull = this.series.size >= this.seriesMax;
    const key = isFull ? keyOf(labelValues.map(() => 'other')) : keyOf(labelValues);
    const series = this.series.get(key) ?? new Series();
    this.series.set(key, series);
    return series;
  }

  remove(...labelValues: readonly string[]): void {
    this.series.delete(keyOf(labelValues));
  }
}

export class RecordingMetrics implements Metrics {
  private readonly families = new Map<string, Family>();
  private readonly collectors: (() => void)[] = [];
  private readonly seriesMax: number;

  constructor(options: { readonly seriesMax?: number } = {}) {
    this.seriesMax = options.seriesMax ?? 1_000;
  }

  counter(definition: MetricDefinition): MetricFamily<Counter> {
    return this.family(definition);
  }
  gauge(definition: MetricDefinition): MetricFamily<Gauge> {
    return this.family(definition);
  }
  histogram(definition: HistogramDefinition): MetricFamily<Histogram> {
    return this.family(definition);
  }
  onCollect(collect: () => void): void {
    this.collectors.push(collect);
  }

  /** Runs the collectors, as an exposition would. */
  collect(): void {
    for (const collect of this.collectors) collect();
  }

  /** Value of a counter or gauge, sum of a histogram; 0 when the series was never touched. Collects first. */
  value(name: string, ...labelValues: readonly string[]): number {
    this.collect();
    return this.families.get(name)?.series.get(keyOf(labelValues))?.value ?? 0;
  }

  /** What a histogram observed, in order. */
  observations(name: string, ...labelValues: readonly string[]): readonly number[] {
    return this.families.get(name)?.series.get(keyOf(labelValues))?.observations ?? [];
  }

  /** Names of all families, in the order of their definition. */
  names(): readonly string[] {
    return [...this.families.keys()];
  }

  private family(definition: MetricDefinition): Family {
    const known = this.families.get(definition.name);
    if (known !== undefined) return known;
    const family = new Family(definition, this.seriesMax);
    this.families.set(definition.name, family);
    return family;
  }
}

function keyOf(labelValues: readonly string[]): string {
  return JSON.stringify(labelValues);
}
