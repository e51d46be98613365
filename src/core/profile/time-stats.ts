/**
 * Times of one kind of work, kept so that two sets of them add up to what one set of all would be: count, sum, squares,
 * extremes, and a histogram whose classes are 4 % wide. No sample is kept, and no curve is fitted.
 */

export interface TimeStats {
  readonly count: number;
  /** Milliseconds. */
  readonly sumMs: number;
  /** Sum of the squared differences from the mean, ms². */
  readonly squaresMs2: number;
  readonly minMs: number;
  readonly maxMs: number;
  /** [class, count], classes ascending: class i holds times from 1.04^i to 1.04^(i+1) ms. */
  readonly classes: readonly (readonly [number, number])[];
}

const growth = Math.log(1.04);
/** Classes at both ends: times under 0.1 µs and over 11 days count in the last one there. */
const classMin = -235;
const classMax = 530;

export const noTimes: TimeStats = { count: 0, sumMs: 0, squaresMs2: 0, minMs: 0, maxMs: 0, classes: [] };

/** Of measured times in ms; those that are no positive finite number are left out. */
export function timeStats(times: readonly number[]): TimeStats {
  const counts = new Map<number, number>();
  let sumMs = 0;
  let minMs = Infinity;
  let maxMs = 0;
  const good = times.filter((ms) => ms > 0 && Number.isFinite(ms));
  for (const ms of good) {
    sumMs += ms;
    minMs = Math.min(minMs, ms);
    maxMs = Math.max(maxMs, ms);
    const index = classOf(ms);
    counts.set(index, (counts.get(index) ?? 0) + 1);
  }
  const count = good.length;
  if (count === 0) return noTimes;
  const mean = sumMs / count;
  const squaresMs2 = good.reduce((sum, ms) => sum + (ms - mean) ** 2, 0);
  return { count, sumMs, squaresMs2, minMs, maxMs, classes: sortedClasses(counts) };
}

/** So many runs that took `ms` on average, where no more is known: their spread counts as none. */
export function timesOfMean(ms: number, count: number): TimeStats {
  if (!(ms > 0) || !(count > 0)) return noTimes;
  return { count, sumMs: ms * count, squaresMs2: 0, minMs: ms, maxMs: ms, classes: [[classOf(ms), count]] };
}

export function addTimes(a: TimeStats, b: TimeStats): TimeStats {
  if (a.count === 0) return b;
  if (b.count === 0) return a;
  const counts = new Map(a.classes);
  for (const [index, count] of b.classes) counts.set(index, (counts.get(index) ?? 0) + count);
  const between = b.sumMs / b.count - a.sumMs / a.count;
  return {
    count: a.count + b.count,
    sumMs: a.sumMs + b.sumMs,
    squaresMs2: a.squaresMs2 + b.squaresMs2 + (between ** 2 * a.count * b.count) / (a.count + b.count),
    minMs: Math.min(a.minMs, b.minMs),
    maxMs: Math.max(a.maxMs, b.maxMs),
    classes: sortedClasses(counts),
  };
}

/** What people and tables read: milliseconds. */
export interface TimeFigures {
  readonly count: number;
  readonly meanMs: number;
  /** Within 2 %. */
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly minMs: number;
  readonly maxMs: number;
  /** Standard deviation by the mean; 0 for a single time. */
  readonly spread: number;
  /** Standard error of the mean by the mean; 1 for a single time, of which nobody knows how far off it is. */
  readonly relativeError: number;
}

export function timeFigures(stats: TimeStats): TimeFigures {
  const { count, sumMs, squaresMs2, minMs, maxMs } = stats;
  const meanMs = count === 0 ? 0 : sumMs / count;
  const spread = count < 2 || meanMs === 0 ? 0 : Math.sqrt(squaresMs2 / (count - 1)) / meanMs;
  return {
    count,
    meanMs,
    p50Ms: quantileMs(stats, 0.5),
    p95Ms: quantileMs(stats, 0.95),
    minMs,
    maxMs,
    spread,
    relativeError: count < 2 ? 1 : spread / Math.sqrt(count),
  };
}

/** The time that a share of all are at most, within 2 %; 0 without times. */
export function quantileMs({ count, classes, minMs, maxMs }: TimeStats, share: number): number {
  let left = Math.max(1, Math.ceil(share * count));
  for (const [index, inside] of classes) {
    left -= inside;
    if (left <= 0) return Math.min(maxMs, Math.max(minMs, Math.exp((index + 0.5) * growth)));
  }
  return maxMs;
}

function classOf(ms: number): number {
  return Math.min(classMax, Math.max(classMin, Math.floor(Math.log(ms) / growth)));
}

function sortedClasses(counts: ReadonlyMap<number, number>): readonly (readonly [number, number])[] {
  return [...counts].sort(([a], [b]) => a - b);
}

/** The middle one, of an even number the larger of two; 0 of none. */
export function medianOf(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? 0;
}
