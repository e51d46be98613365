/**
 * The cross-entropy method: draw vectors around a mean, keep the best, move mean and spread towards them (Rubinstein, 1999).
 *
 * It needs nothing but an objective, so it looks at the policy exactly as it will be used (the best score wins, nothing is
 * sampled). For vectors of up to some 200 numbers, such as the last layer of a network that imitation has taught already.
 * All vectors of an iteration meet the same arrivals (common random numbers); those change from iteration to iteration.
 */
import type { Random } from '#ports/random.js';
import { drawNormal } from './layers.js';

export interface CemOptions {
  /** Vectors drawn in an iteration; the mean itself is one of them. */
  readonly population: number;
  readonly eliteShare: number;
  /** How far mean and spread move towards the elite's, 0 to 1. */
  readonly smoothing: number;
  readonly deviationStart: number;
  /** Where a weight's size times this is more than `deviationStart`, it is what that weight begins with. */
  readonly deviationShare: number;
  readonly deviationMin: number;
  readonly iterations: number;
  /** Iterations after which the spread is half of that of the beginning again, around what was found; 0: never. */
  readonly widenEvery: number;
}

export const cemDefaults: CemOptions = {
  population: 24,
  eliteShare: 0.3,
  smoothing: 0.7,
  deviationStart: 0.1,
  deviationShare: 0,
  deviationMin: 0.01,
  iterations: 20,
  widenEvery: 0,
};

/** All there is to know between two iterations: kept in checkpoints. */
export interface CemState {
  readonly iteration: number;
  readonly mean: Float64Array;
  readonly deviation: Float64Array;
}

export interface CemIteration {
  readonly state: CemState;
  /** Objective of the mean before this iteration, and the mean objective of the elite; lower is better. */
  readonly meanObjective: number;
  readonly eliteObjective: number;
}

export function startCem(mean: Float32Array, options: CemOptions): CemState {
  return { iteration: 0, mean: Float64Array.from(mean), deviation: firstDeviation(mean, options) };
}

function firstDeviation(mean: ArrayLike<number>, { deviationStart, deviationShare }: CemOptions): Float64Array {
  return Float64Array.from(mean, (weight) => Math.max(deviationStart, deviationShare * Math.abs(weight)));
}

/** One iteration. `evaluate` gives the objective of each vector; it is called once. */
export async function iterateCem(
  state: CemState,
  options: CemOptions,
  random: Random,
  evaluate: (vectors: readonly Float32Array[]) => Promise<readonly number[]>,
): Promise<CemIteration> {
  const draw = random.stream(`cem ${state.iteration}`);
  const vectors = Array.from({ length: options.population }, (_, number) =>
    Float32Array.from(state.mean, (mean, index) =>
      number === 0 ? mean : mean + (state.deviation[index] ?? 0) * drawNormal(draw),
    ),
  );
  const objectives = await evaluate(vectors);
  const order = vectors.map((_, index) => index);
  order.sort((left, right) => (objectives[left] ?? Infinity) - (objectives[right] ?? Infinity) || left - right);
  const elite = order.slice(0, Math.max(2, Math.round(options.population * options.eliteShare)));

  const mean = state.mean.map((old, index) => {
    const wanted = elite.reduce((sum, member) => sum + (vectors[member]?.[index] ?? 0), 0) / elite.length;
    return old + options.smoothing * (wanted - old);
  });
  const deviation = state.deviation.map((old, index) => {
    const centre = elite.reduce((sum, member) => sum + (vectors[member]?.[index] ?? 0), 0) / elite.length;
    const squares = elite.reduce((sum, member) => sum + ((vectors[member]?.[index] ?? 0) - centre) ** 2, 0);
    const wanted = Math.sqrt(squares / elite.length);
    return Math.max(options.deviationMin, old + options.smoothing * (wanted - old));
  });
  const isWidened = options.widenEvery > 0 && (state.iteration + 1) % options.widenEvery === 0;
  return {
    state: {
      iteration: state.iteration + 1,
      mean,
      deviation: isWidened ? firstDeviation(mean, options).map((each) => each / 2) : deviation,
    },
    meanObjective: objectives[0] ?? Infinity,
    eliteObjective: elite.reduce((sum, member) => sum + (objectives[member] ?? Infinity), 0) / elite.length,
  };
}
