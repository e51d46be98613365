/** What dispatch did, as metrics: read when somebody scrapes, so that the hot path only adds to numbers. */
import { metric } from '#core/metric-catalogue.js';
import { sloClasses, type SloClass } from '#core/scheduling/slo-class.js';
import type { Counter, Metrics } from '#ports/metrics.js';

/** A picker that counts. */
export interface CountingPicker {
  readonly counts: { readonly decisions: number; readonly shed: Readonly<Record<SloClass, number>> };
}

/** `pickers` may grow; `learned` are the counts of a learned policy, if one decides. */
export function exportDispatchMetrics(
  metrics: Metrics,
  pickers: readonly CountingPicker[],
  learned: { readonly fallbacks: Readonly<Record<string, number>> } | undefined,
): void {
  const decisions = metrics.counter(metric('intarsia_dispatch_decisions_total')).bind();
  const shed = metrics.counter(metric('intarsia_shed_total'));
  const fallbacks = metrics.counter(metric('intarsia_dispatch_fallbacks_total'));
  const told = new Map<string, number>();
  const tell = (key: string, counter: Counter, now: number): void => {
    const before = told.get(key) ?? 0;
    if (now === before) return;
    counter.add(now - before);
    told.set(key, now);
  };
  metrics.onCollect(() => {
    pickers.forEach((picker, index) => {
      tell(`decisions ${index}`, decisions, picker.counts.decisions);
      for (const each of sloClasses) tell(`shed ${index} ${each}`, shed.bind(each), picker.counts.shed[each]);
    });
    for (const [reason, count] of Object.entries(learned?.fallbacks ?? {})) {
      tell(`fallback ${reason}`, fallbacks.bind(reason), count);
    }
  });
}
