/** Energy counters to watts. Intel's and AMD's processors count microjoules and start again at their range (RAPL). */

export interface EnergyReading {
  readonly microjoules: number;
  /** Monotonic milliseconds of the reading. */
  readonly atMs: number;
}

/**
 * Mean watts between two readings of one counter; undefined when no time passed.
 * One wrap of the counter is accounted for: at 400 W a range of 262 kJ lasts eleven minutes, so read more often.
 */
export function wattsBetween(
  earlier: EnergyReading,
  later: EnergyReading,
  rangeMicrojoules: number,
): number | undefined {
  const elapsedMs = later.atMs - earlier.atMs;
  if (!(elapsedMs > 0)) return undefined;
  const difference = later.microjoules - earlier.microjoules;
  const used = difference >= 0 ? difference : difference + rangeMicrojoules + 1;
  return used / 1000 / elapsedMs;
}

/** Share of processor time in use between two sums of ticks, 0 to 1. */
export function utilizationBetween(
  earlier: { readonly busy: number; readonly total: number },
  later: { readonly busy: number; readonly total: number },
): number {
  const total = later.total - earlier.total;
  return total > 0 ? Math.min(1, Math.max(0, (later.busy - earlier.busy) / total)) : 0;
}
