/** Layers of a scorer as plain numbers: first values, one flat vector of all parameters and back, choices from scores. */
import { intarsiaError } from '#core/errors.js';
import type { Chance } from '#core/scheduling/dispatch-view.js';
import type { Random } from '#ports/random.js';
import type { Layer } from '#core/scheduling/network.js';

/** Normal with mean 0 and deviation 1, by Box and Muller's formula. */
export function drawNormal(random: Random): number {
  const radius = Math.sqrt(-2 * Math.log(1 - random.next()));
  return radius * Math.cos(2 * Math.PI * random.next());
}

/** Uniform weights after Glorot, which suits tanh; the last layer a tenth of that, so that all choices begin nearly alike. */
export function initialLayers(random: Random, sizes: readonly number[]): Layer[] {
  return sizes.slice(1).map((outputs, index) => {
    const inputs = sizes[index] ?? 0;
    const isLast = index === sizes.length - 2;
    const bound = Math.sqrt(6 / (inputs + outputs)) * (isLast ? 0.1 : 1);
    const weights = Float32Array.from({ length: inputs * outputs }, () => bound * (2 * random.next() - 1));
    return { in: inputs, out: outputs, weights, bias: new Float32Array(outputs) };
  });
}

export function parameterCount(layers: readonly Layer[]): number {
  return layers.reduce((sum, { weights, bias }) => sum + weights.length + bias.length, 0);
}

/** All parameters in one vector: weights and bias of each layer in turn. */
export function flatten(layers: readonly Layer[]): Float32Array {
  const flat = new Float32Array(parameterCount(layers));
  let offset = 0;
  for (const { weights, bias } of layers) {
    flat.set(weights, offset);
    flat.set(bias, offset + weights.length);
    offset += weights.length + bias.length;
  }
  return flat;
}

/** Layers of the same shape with the parameters of a vector. */
export function unflatten(shape: readonly Layer[], flat: Float32Array): Layer[] {
  const count = parameterCount(shape);
  if (flat.length !== count) {
    throw intarsiaError('INVALID_ARGUMENT', `the network has ${count} parameters; got ${flat.length}`);
  }
  let offset = 0;
  return shape.map(({ in: inputs, out: outputs }) => {
    const weights = flat.slice(offset, offset + inputs * outputs);
    const bias = flat.slice(offset + inputs * outputs, offset + inputs * outputs + outputs);
    offset += inputs * outputs + outputs;
    return { in: inputs, out: outputs, weights, bias };
  });
}

/** The same network with other parameters in its last layer only. */
export function withLastLayer(layers: readonly Layer[], flat: Float32Array): Layer[] {
  const last = layers.slice(-1);
  return [...layers.slice(0, -1), ...unflatten(last, flat)];
}

/** Draws a row from the softmax of scores. `scores` is overwritten with probabilities. */
export function drawChoice(scores: Float32Array, count: number, random: Chance): number {
  toProbabilities(scores, count);
  let left = random.next();
  for (let index = 0; index < count - 1; index += 1) {
    left -= scores[index] ?? 0;
    if (left < 0) return index;
  }
  return count - 1;
}

/** The first highest of `count` scores. */
export function bestChoice(scores: Float32Array, count: number): number {
  let best = 0;
  for (let index = 1; index < count; index += 1) {
    if ((scores[index] ?? 0) > (scores[best] ?? 0)) best = index;
  }
  return best;
}

/** Softmax in place. */
export function toProbabilities(scores: Float32Array, count: number): void {
  let highest = -Infinity;
  for (let index = 0; index < count; index += 1) highest = Math.max(highest, scores[index] ?? 0);
  let sum = 0;
  for (let index = 0; index < count; index += 1) {
    const value = Math.exp((scores[index] ?? 0) - highest);
    scores[index] = value;
    sum += value;
  }
  for (let index = 0; index < count; index += 1) scores[index] = (scores[index] ?? 0) / sum;
}
