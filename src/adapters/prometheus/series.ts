/**
 * One series of each kind: the numbers behind a bound handle, and how they look in a scrape.
 */
import type { Counter, Gauge, Histogram } from '#ports/metrics.js';

/** One line of a scrape, in the words of prom-client's registry. */
export interface Sample {
  readonly metricName: string;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

type Labels = Readonly<Record<string, string>>;

/** Only grows: amounts of zero, below zero, or not a number are left out. */
export class CounterSeries implements Counter {
  #value = 0;
  readonly #labels: Labels;

  constructor(labels: Labels) {
    this.#labels = labels;
  }

  add(amount: number): void {
    if (amount > 0) this.#value += amount;
  }

  samples(name: string): readonly Sample[] {
    return [{ metricName: name, labels: this.#labels, value: this.#value }];
  }
}

export class GaugeSeries implements Gauge {
  #value = 0;
  readonly #labels: Labels;

  constructor(labels: Labels) {
    this.#labels = labels;
  }

  set(value: number): void {
    this.#value = value;
  }

  add(amount: number): void {
    this.#value += amount;
  }

  samples(name: string): readonly Sample[] {
    return [{ metricName: name, labels: this.#labels, value: this.#value }];
  }
}

export class HistogramSeries implements Histogram {
  readonly #labels: Labels;
  readonly #upperBounds: readonly number[];
  /** Observations per bucket, not cumulative; the last one is +Inf. */
  readonly #counts: Float64Array;
  #sum = 0;

  constructor(labels: Labels, upperBounds: readonly number[]) {
    this.#labels = labels;
    this.#upperBounds = upperBounds;
    this.#counts = new Float64Array(upperBounds.length + 1);
  }

  observe(value: number): void {
    if (Number.isNaN(value)) return;
    const bounds = this.#upperBounds;
    let bucket = 0;
    while (bucket < bounds.length && value > (bounds[bucket] as number)) bucket += 1;
    this.#counts[bucket] = (this.#counts[bucket] as number) + 1;
    this.#sum += value;
  }

  samples(name: string): readonly Sample[] {
    const samples: Sample[] = [];
    let count = 0;
    this.#counts.forEach((observations, bucket) => {
      count += observations;
      const le = this.#upperBounds[bucket] ?? '+Inf';
      samples.push({ metricName: `${name}_bucket`, labels: { ...this.#labels, le }, value: count });
    });
    samples.push({ metricName: `${name}_sum`, labels: this.#labels, value: this.#sum });
    samples.push({ metricName: `${name}_count`, labels: this.#labels, value: count });
    return samples;
  }
}
