/** The decision log's counts as metrics, read when somebody scrapes. */
import { metric } from '#core/metric-catalogue.js';
import type { Counter, Metrics } from '#ports/metrics.js';

/** A log that counts; `failure` says why it has stopped, empty while it has not. */
export interface CountingLog {
  readonly counts: {
    readonly decisions: number;
    readonly outcomes: number;
    readonly lost: number;
    readonly bytes: number;
    readonly removed: number;
    readonly failure: string;
  };
}

export function exportDecisionLogMetrics(metrics: Metrics, log: CountingLog): void {
  const rows = metrics.counter(metric('intarsia_decision_log_rows_total'));
  const bytes = metrics.counter(metric('intarsia_decision_log_bytes_total')).bind();
  const removed = metrics.counter(metric('intarsia_decision_log_removed_files_total')).bind();
  const stopped = metrics.gauge(metric('intarsia_decision_log_stopped')).bind();
  const counters: readonly (readonly [Counter, 'decisions' | 'outcomes' | 'lost' | 'bytes' | 'removed'])[] = [
    [rows.bind('decisions'), 'decisions'],
    [rows.bind('outcomes'), 'outcomes'],
    [rows.bind('lost'), 'lost'],
    [bytes, 'bytes'],
    [removed, 'removed'],
  ];
  const told = counters.map(() => 0);
  metrics.onCollect(() => {
    const { counts } = log;
    for (const [index, [counter, key]] of counters.entries()) {
      counter.add(counts[key] - (told[index] ?? 0));
      told[index] = counts[key];
    }
    stopped.set(counts.failure === '' ? 0 : 1);
  });
}
