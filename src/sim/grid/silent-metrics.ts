/** Metrics that nobody reads: thousands of simulations keep none. */
import type { Counter, Gauge, Histogram, MetricFamily, Metrics } from '#ports/metrics.js';

const series: Counter & Gauge & Histogram = { add: () => {}, set: () => {}, observe: () => {} };
const family: MetricFamily<Counter & Gauge & Histogram> = { bind: () => series, remove: () => {} };

export const silentMetrics: Metrics = {
  counter: () => family,
  gauge: () => family,
  histogram: () => family,
  onCollect: () => {},
};
