/**
 * Run times by batch size and by what else computed, from runs that follow each other: least squares over the differences of
 * their logarithms.
 *
 * Means by size would mislead. A machine that is slow for a while builds up queues, and queues make large batches: large ones
 * would seem to take what slow moments take, and a simulator that draws slow moments would count them twice. In differences of
 * neighbours what lasts cancels out.
 */
import { solveEquations } from '#core/linear-equations.js';

/** A run, and by other device the share of its time in which that one computed. */
export interface TimedRun {
  readonly items: number;
  readonly computeMs: number;
  readonly shares: readonly number[];
}

export interface RunTimeFit {
  /** Logarithm of ms with nobody in the way, by items, up to a constant that all sizes have in common. */
  readonly logMs: ReadonlyMap<number, number>;
  /** By other device: what the logarithm grows by when that one computes all the time, and the standard error of that. */
  readonly slopes: readonly { readonly slope: number; readonly error: number }[];
}

/** Holds the constant that differences leave open, and sizes that never changed. */
const ridge = 1e-6;

/** @param runs In order; times above 0. @param others Length of `shares`. */
export function fitRunTimes(runs: readonly TimedRun[], others: number): RunTimeFit {
  const sizes = [...new Set(runs.map(({ items }) => items))].sort((one, other) => one - other);
  const placeOf = new Map(sizes.map((items, place) => [items, place]));
  const width = sizes.length + others;
  const rows = runs.slice(1).map((run, index) => {
    const before = runs[index] as TimedRun;
    const row = new Float64Array(width);
    row[placeOf.get(run.items) ?? 0] = 1;
    const place = placeOf.get(before.items) ?? 0;
    row[place] = (row[place] ?? 0) - 1;
    for (let other = 0; other < others; other += 1) {
      row[sizes.length + other] = (run.shares[other] ?? 0) - (before.shares[other] ?? 0);
    }
    return { row, change: Math.log(run.computeMs / before.computeMs) };
  });
  const matrix = new Float64Array(width * width);
  const right = new Float64Array(width);
  for (let place = 0; place < width; place += 1) matrix[place * width + place] = ridge;
  for (const { row, change } of rows) {
    for (const [one, x] of row.entries()) {
      if (x === 0) continue;
      right[one] = (right[one] ?? 0) + x * change;
      for (const [two, y] of row.entries()) {
        matrix[one * width + two] = (matrix[one * width + two] ?? 0) + x * y;
      }
    }
  }
  const solved = solveEquations(matrix.slice(), right, width);
  const rest = rows.reduce(
    (sum, { row, change }) => sum + (change - row.reduce((all, x, place) => all + x * (solved[place] ?? 0), 0)) ** 2,
    0,
  );
  const variance = rest / Math.max(1, rows.length - width);
  return {
    logMs: new Map(sizes.map((items, place) => [items, solved[place] ?? 0])),
    slopes: Array.from({ length: others }, (_, other) => {
      const place = sizes.length + other;
      const unit = new Float64Array(width);
      unit[place] = 1;
      const column = solveEquations(matrix.slice(), unit, width);
      return { slope: solved[place] ?? 0, error: Math.sqrt(variance * Math.max(0, column[place] ?? 0)) };
    }),
  };
}
