/**
 * How long a model runs on a device, by the items of the batch: a table, never a fitted line. Public measurements show why:
 * a CPU may gain nothing from batches, a GPU is nearly flat up to 16, and both have cliffs that a line smooths away.
 */
import { intarsiaError } from '../errors.js';

export interface ServiceProfile {
  /** Ascending whole numbers from 1 on; at least one. */
  readonly batches: readonly number[];
  /** Mean milliseconds of a run with so many items, above 0; as many as `batches`. */
  readonly ms: readonly number[];
  /** (p95 - p50) / p50 of a run's time, 0 or more. */
  readonly spread: number;
}

/** Most points of a table. */
export const profilePointsMax = 256;

/** @throws INVALID_ARGUMENT for a table with holes, one out of order, or with times that are not above 0. */
export function checkServiceProfile(profile: ServiceProfile, owner: string): ServiceProfile {
  const { batches, ms, spread } = profile;
  if (batches.length === 0 || batches.length > profilePointsMax || batches.length !== ms.length) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `profile of ${owner} must have 1 to ${profilePointsMax} batch sizes and a time for each; it has ${batches.length} sizes and ${ms.length} times`,
    );
  }
  batches.forEach((batch, index) => {
    const before = index === 0 ? 0 : (batches[index - 1] ?? 0);
    const time = ms[index] ?? Number.NaN;
    if (!Number.isInteger(batch) || batch <= before) {
      throw intarsiaError('INVALID_ARGUMENT', `profile of ${owner}: batch size ${batch} does not come after ${before}`);
    }
    if (!(time > 0 && time < Infinity)) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `profile of ${owner}: batch of ${batch} takes ${time} ms; it must be above 0`,
      );
    }
  });
  if (!(spread >= 0 && spread < Infinity)) {
    throw intarsiaError('INVALID_ARGUMENT', `profile of ${owner}: spread is ${spread}; it must be 0 or more`);
  }
  return profile;
}

/**
 * Mean milliseconds of a run with so many items; 0 for none. Exact at the table's sizes, linear between them, below the first
 * size that size's time (a smaller batch is padded or never measured), beyond the last along the last slope.
 */
export function serviceMs({ batches, ms }: ServiceProfile, items: number): number {
  if (items <= 0) return 0;
  const last = batches.length - 1;
  if (items <= (batches[0] as number)) return ms[0] as number;
  let right = 1;
  while (right < last && (batches[right] as number) < items) right += 1;
  if (last === 0) return ((ms[0] as number) * items) / (batches[0] as number);
  const leftItems = batches[right - 1] as number;
  const leftMs = ms[right - 1] as number;
  const slope = ((ms[right] as number) - leftMs) / ((batches[right] as number) - leftItems);
  // A falling last slope must not promise that a large batch takes no time.
  if (items > (batches[last] as number))
    return (ms[last] as number) + Math.max(0, slope) * (items - (batches[last] as number));
  return leftMs + slope * (items - leftItems);
}

/** Milliseconds to run so many items in batches of at most `itemsMax`: full ones, then the rest. */
export function drainMs(profile: ServiceProfile, items: number, itemsMax: number): number {
  if (items <= 0) return 0;
  const full = Math.floor(items / itemsMax);
  const rest = items - full * itemsMax;
  return (full > 0 ? full * serviceMs(profile, itemsMax) : 0) + (rest > 0 ? serviceMs(profile, rest) : 0);
}
