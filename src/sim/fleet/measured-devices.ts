/**
 * What a simulated device needs to behave as a measured one: times by batch size, how irregular they are and how much of that
 * lasts, what a run costs beside computing, and which other devices slow it. From the runs of a log, of one model.
 *
 * Tables do not fall with the batch where few runs were seen: they are the nearest ones that rise (pool adjacent violators).
 */
import type { LastingNoise } from './fleet.js';
import { overlapShares, type MeasuredRun } from './measured-runs.js';
import { fitRunTimes, type TimedRun } from './run-time-fit.js';

export interface MeasuredDevice {
  /** Mean ms of a run with nobody in its way, by items of the batch. */
  readonly table: Readonly<Record<string, number>>;
  readonly handOverMs: number;
  /** Sigma of the logarithm of run times. */
  readonly noise: number;
  readonly lasting: LastingNoise;
  /** Factors above 1, by device. */
  readonly slowedBy: ReadonlyMap<string, number>;
}

/** Batch sizes with fewer runs are left to their neighbours, and devices with fewer say nothing. */
const runsMin = 3;
/** Runs that say something of contention: so many, and a slope so many times its error. */
const contentionRunsMin = 50;
const sureErrors = 3;
const factorMax = 4;
const noiseMax = 0.5;
/** Runs between the two that are compared for what lasts: next ones, and some way off. */
const lagFar = 8;

/** Those with enough runs, by name. @param runs In order of their start. */
export function measuredDevices(runs: readonly MeasuredRun[]): ReadonlyMap<string, MeasuredDevice> {
  const counts = new Map<string, number>();
  for (const { device, computeMs } of runs) if (computeMs > 0) counts.set(device, (counts.get(device) ?? 0) + 1);
  const names = [...counts].flatMap(([device, count]) => (count >= runsMin ? [device] : []));
  const measured = new Map<string, MeasuredDevice>();
  for (const name of names) {
    const others = names.filter((other) => other !== name);
    const shares = others.map((other) => overlapShares(runs, name, other));
    const own = runs.filter(({ device }) => device === name);
    const timed = own.map((run, index) => ({ ...run, shares: shares.map((each) => each[index] ?? 0) }));
    const known = timed.filter(({ computeMs }) => computeMs > 0);
    measured.set(name, measuredDevice(known, others));
  }
  return measured;
}

function measuredDevice(runs: readonly (MeasuredRun & TimedRun)[], others: readonly string[]): MeasuredDevice {
  const { logMs, slopes } = fitRunTimes(runs, others.length);
  const sure = slopes.map(({ slope, error }) => {
    const isSure = runs.length >= contentionRunsMin && slope > sureErrors * error;
    return isSure ? Math.min(Math.log(factorMax), slope) : 0;
  });
  // As it would have been with nobody in the way.
  const alone = runs.map(({ computeMs, shares }) =>
    sure.reduce((ms, slope, other) => ms * Math.exp(-slope * (shares[other] ?? 0)), computeMs),
  );
  const expected = runs.map(({ items }) => Math.exp(logMs.get(items) ?? 0));
  const scale = sumOf(alone) / sumOf(expected);
  const deviations = alone.map((ms, index) => Math.log(ms / (scale * (expected[index] ?? 1))));
  const mean = sumOf(deviations) / runs.length;
  const variance = sumOf(deviations.map((deviation) => (deviation - mean) ** 2)) / runs.length;
  return {
    table: risingTable(runs, logMs, scale),
    handOverMs: Math.max(
      0,
      sumOf(runs.map(({ startMs, endMs, computeMs }) => endMs - startMs - computeMs)) / runs.length,
    ),
    noise: Math.min(noiseMax, Math.sqrt(variance)),
    lasting: lastingOf(
      runs.map(({ startMs }, index) => ({ startMs, deviation: (deviations[index] ?? 0) - mean })),
      variance,
    ),
    slowedBy: new Map(
      others.flatMap((other, index) => {
        const slope = sure[index] ?? 0;
        return slope > 0 ? [[other, Math.exp(slope)] as const] : [];
      }),
    ),
  };
}

/** Ms by batch size, never falling. */
function risingTable(
  runs: readonly TimedRun[],
  logMs: ReadonlyMap<number, number>,
  scale: number,
): Readonly<Record<string, number>> {
  const counts = new Map<number, number>();
  for (const { items } of runs) counts.set(items, (counts.get(items) ?? 0) + 1);
  const enough = [...logMs].filter(([items]) => (counts.get(items) ?? 0) >= runsMin);
  const pools: { items: readonly number[]; count: number; sumMs: number }[] = [];
  for (const [items, log] of enough.length > 0 ? enough : logMs) {
    const count = counts.get(items) ?? 1;
    let pool: (typeof pools)[number] = { items: [items], count, sumMs: count * scale * Math.exp(log) };
    for (;;) {
      const last = pools.at(-1);
      if (last === undefined || last.sumMs / last.count <= pool.sumMs / pool.count) break;
      pool = { items: [...last.items, ...pool.items], count: last.count + pool.count, sumMs: last.sumMs + pool.sumMs };
      pools.pop();
    }
    pools.push(pool);
  }
  return Object.fromEntries(
    pools.flatMap(({ items, count, sumMs }) => items.map((size) => [size, sumMs / count] as const)),
  );
}

interface Deviation {
  readonly startMs: number;
  readonly deviation: number;
}

/** How alike runs are that follow each other, and those some way off: an exponential through both. */
function lastingOf(runs: readonly Deviation[], variance: number): LastingNoise {
  const near = alike(runs, 1, variance);
  const far = alike(runs, lagFar, variance);
  if (!(near.correlation > 0) || !(near.apartMs > 0)) return { share: 0, ms: 1 };
  if (!(far.correlation > 0) || far.correlation >= near.correlation) {
    return { share: Math.min(1, near.correlation), ms: Math.max(near.apartMs, far.apartMs) };
  }
  const ms = (far.apartMs - near.apartMs) / Math.log(near.correlation / far.correlation);
  return { share: Math.min(1, near.correlation * Math.exp(near.apartMs / ms)), ms };
}

/** Correlation of runs so many places apart, and how far apart they are (ms, median). */
function alike(
  runs: readonly Deviation[],
  lag: number,
  variance: number,
): { readonly correlation: number; readonly apartMs: number } {
  const pairs = runs.slice(lag).map((run, index) => {
    const before = runs[index] as Deviation;
    return { apartMs: run.startMs - before.startMs, product: run.deviation * before.deviation };
  });
  const apart = pairs.map(({ apartMs }) => apartMs).sort((a, b) => a - b);
  return {
    correlation:
      variance === 0 ? 0 : sumOf(pairs.map(({ product }) => product)) / (Math.max(1, pairs.length) * variance),
    apartMs: apart[Math.floor(apart.length / 2)] ?? 0,
  };
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
