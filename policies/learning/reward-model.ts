/**
 * A simple model of rewards: linear in the features of the row that was chosen, by least squares with a small ridge. It is
 * not meant to be right; it takes away the part of the variance that features explain.
 */
import { intarsiaError } from '#core/errors.js';
import { solveEquations } from '#core/linear-equations.js';

export interface RewardModel {
  /** One number a feature, and the constant last. */
  readonly weights: Float64Array;
}

/**
 * @param rows One row of `featureCount` a reward. @param ridge Added to the diagonal, as a share of the number of rows.
 * @throws INVALID_ARGUMENT for sizes that do not fit or values that are not finite.
 */
export function fitRewards(rows: Float32Array, rewards: Float64Array, featureCount: number, ridge = 1e-4): RewardModel {
  const count = rewards.length;
  if (rows.length !== count * featureCount || count === 0) {
    throw intarsiaError('INVALID_ARGUMENT', `${rows.length} numbers are not ${count} rows of ${featureCount}`);
  }
  const size = featureCount + 1;
  const normal = new Float64Array(size * size);
  const right = new Float64Array(size);
  const row = new Float64Array(size);
  row[featureCount] = 1;
  for (let index = 0; index < count; index += 1) {
    for (let feature = 0; feature < featureCount; feature += 1) {
      row[feature] = rows[index * featureCount + feature] as number;
    }
    for (let one = 0; one < size; one += 1) {
      const value = row[one] as number;
      if (value === 0) continue;
      right[one] = (right[one] as number) + value * (rewards[index] as number);
      for (let other = 0; other < size; other += 1) {
        normal[one * size + other] = (normal[one * size + other] as number) + value * (row[other] as number);
      }
    }
  }
  for (let at = 0; at < size; at += 1) normal[at * size + at] = (normal[at * size + at] as number) + ridge * count;
  const weights = solveEquations(normal, right, size);
  if (weights.every(Number.isFinite)) return { weights };
  throw intarsiaError('INVALID_ARGUMENT', 'rewards or rows hold values that are not finite');
}

/** Reward of each row. */
export function predictRewards({ weights }: RewardModel, rows: Float32Array): Float64Array {
  const featureCount = weights.length - 1;
  const predicted = new Float64Array(rows.length / featureCount);
  for (let index = 0; index < predicted.length; index += 1) {
    let sum = weights[featureCount] as number;
    for (let feature = 0; feature < featureCount; feature += 1) {
      sum += (weights[feature] as number) * (rows[index * featureCount + feature] as number);
    }
    predicted[index] = sum;
  }
  return predicted;
}
