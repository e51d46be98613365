/**
 * The table of a model on a device for dispatch, from what was measured: by this very device where it was, else by others of
 * the same silicon, provider and threads. Only where the measured batches reach far enough: from one small batch alone a large one
 * would be reckoned as that many small ones, and answers teach better than that.
 */
import type { ServiceTable, DeviceSelector } from '../profile/service-table.js';
import type { ServiceProfile } from './service-profile.js';

export interface LiveProfile {
  readonly profile: ServiceProfile;
  /** Bytes that the largest measured run needs beyond what the loaded model holds already; 0 when that is none or unknown. */
  readonly needBytes: number;
}

/** Times from production are means of intervals and say nothing of the spread of runs: what measured fleets show. */
const usualSpread = 0.2;
/** The largest measured batch must be at least this share of the largest there may be. */
const reachMin = 0.5;

/** Undefined where too little was measured. @param selectors The nearest first. */
export function liveProfile(
  table: ServiceTable,
  selectors: readonly DeviceSelector[],
  itemsMax: number,
): LiveProfile | undefined {
  const whole = { from: 0, to: table.nodes ?? 0 };
  for (const selector of selectors) {
    const cells = table
      .batches(selector, whole)
      .flatMap((batch) => table.cell(selector, whole, batch) ?? [])
      .filter(({ meanMs, batch }) => meanMs > 0 && Number.isInteger(batch));
    const last = cells.at(-1);
    if (last === undefined || last.batch < itemsMax * reachMin) continue;
    const profiled = cells.filter(({ source }) => source === 'profiled');
    const spreads = profiled.map(({ p50Ms, p95Ms }) => (p50Ms > 0 ? Math.max(0, p95Ms - p50Ms) / p50Ms : 0));
    const { weightBytes, peakActivationBytes, loadedBytes } = last;
    return {
      profile: {
        batches: cells.map(({ batch }) => batch),
        ms: cells.map(({ meanMs }) => meanMs),
        spread: spreads.length === 0 ? usualSpread : spreads.reduce((sum, value) => sum + value, 0) / spreads.length,
      },
      needBytes:
        peakActivationBytes > 0 && loadedBytes > 0 ? Math.max(0, weightBytes + peakActivationBytes - loadedBytes) : 0,
    };
  }
  return undefined;
}
