/** Intervals by resampling: how far a mean would move had the seeds been others. */
import type { Random } from '#ports/random.js';

export interface Interval {
  readonly low: number;
  readonly high: number;
}

export interface BootstrapOptions {
  readonly random: Random;
  readonly resamples: number;
}

/** 95 % interval of the mean by resampling: the 2.5th and 97.5th hundredths of resampled means. */
export function bootstrapMean(values: readonly number[], options: BootstrapOptions): Interval {
  return bootstrapMeanOfGroups([values], options);
}

/** The same for the mean of the groups' means; values are drawn anew within each group. Groups must not be empty. */
export function bootstrapMeanOfGroups(
  groups: readonly (readonly number[])[],
  { random, resamples }: BootstrapOptions,
): Interval {
  const means = Float64Array.from({ length: resamples }, () => {
    let sum = 0;
    for (const values of groups) {
      let own = 0;
      for (let index = 0; index < values.length; index += 1) own += values[random.below(values.length)] ?? 0;
      sum += own / values.length;
    }
    return sum / groups.length;
  }).sort();
  const at = (share: number): number => means[Math.min(resamples - 1, Math.floor(share * resamples))] ?? 0;
  return { low: at(0.025), high: at(0.975) };
}
