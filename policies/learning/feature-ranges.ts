/** What values each feature took while a policy was trained: whatever lies far outside was never learned. */
import type { TrainedRanges } from '#core/scheduling/policy-file.js';
import type { Layer } from '#core/scheduling/network.js';
import type { RowSets } from './trainable-network.js';

/** What lies in either. */
export function joinRanges(left: TrainedRanges, right: TrainedRanges): TrainedRanges {
  const least = (name: keyof TrainedRanges): number[] =>
    left[name].map((value, index) => Math.min(value, right[name][index] ?? value));
  const most = (name: keyof TrainedRanges): number[] =>
    left[name].map((value, index) => Math.max(value, right[name][index] ?? value));
  return { least: least('least'), low: least('low'), high: most('high'), greatest: most('greatest') };
}

/** Features are clipped here. */
const featureMost = 3;

/**
 * The ranges of a network's file: what the network gives no weight to cannot lead it astray, wherever it lies. The hour is
 * such a feature after training that never lasts a day.
 */
export function rangesOfNetwork(ranges: TrainedRanges, layers: readonly Layer[]): TrainedRanges {
  const [first] = layers;
  const unless = (values: readonly number[], edge: number): number[] =>
    values.map((value, feature) => {
      const from = feature * (first?.out ?? 0);
      return first?.weights.subarray(from, from + first.out).every((weight) => weight === 0) === true ? edge : value;
    });
  return {
    least: unless(ranges.least, -featureMost),
    low: unless(ranges.low, -featureMost),
    high: unless(ranges.high, featureMost),
    greatest: unless(ranges.greatest, featureMost),
  };
}

/** Rows that are looked at, evenly spread over all. */
const rowsMax = 100_000;

export function featureRanges({ rows }: Pick<RowSets, 'rows'>, featureCount: number): TrainedRanges {
  const count = rows.length / featureCount;
  const step = Math.max(1, Math.floor(count / rowsMax));
  const ranges = { least: [] as number[], low: [] as number[], high: [] as number[], greatest: [] as number[] };
  const values = new Float32Array(Math.ceil(count / step));
  for (let feature = 0; feature < featureCount; feature += 1) {
    for (let index = 0; index < values.length; index += 1)
      values[index] = rows[index * step * featureCount + feature] ?? 0;
    values.sort();
    const at = (share: number): number => values[Math.min(values.length - 1, Math.floor(share * values.length))] ?? 0;
    ranges.least.push(at(0));
    ranges.low.push(at(0.001));
    ranges.high.push(at(0.999));
    ranges.greatest.push(at(1));
  }
  return ranges;
}
