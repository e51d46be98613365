/** The counts of attempts as metrics: read when somebody scrapes, so that the hot path only adds to numbers. */
import type { AttemptCounts } from '#core/grid/attempt-counts.js';
import { metric } from '#core/metric-catalogue.js';
import type { Counter, Metrics } from '#ports/metrics.js';

export function exportAttemptMetrics(metrics: Metrics, counts: Readonly<AttemptCounts>): void {
  const retries = metrics.counter(metric('intarsia_retries_total'));
  const rows: readonly { readonly counter: Counter; readonly read: () => number; told: number }[] = [
    { counter: metrics.counter(metric('intarsia_attempts_total')).bind(), read: () => counts.attempts, told: 0 },
    { counter: retries.bind('failed'), read: () => counts.retries.failed, told: 0 },
    { counter: retries.bind('overdue'), read: () => counts.retries.overdue, told: 0 },
    { counter: retries.bind('refused'), read: () => counts.refused, told: 0 },
    { counter: metrics.counter(metric('intarsia_hedges_total')).bind(), read: () => counts.hedges, told: 0 },
    { counter: metrics.counter(metric('intarsia_bans_total')).bind(), read: () => counts.bans, told: 0 },
    { counter: metrics.counter(metric('intarsia_late_answers_total')).bind(), read: () => counts.late, told: 0 },
  ];
  metrics.onCollect(() => {
    for (const row of rows) {
      const now = row.read();
      row.counter.add(now - row.told);
      row.told = now;
    }
  });
}
