/** Networks for tests. */
import type { Network } from '#core/scheduling/network.js';
import { seededRandom } from '#sim/random.js';

/** A network of these widths with weights by chance, as trained ones have them. */
export function anyNetwork(widths: readonly number[], seed: number, spread = 1): Network {
  const random = seededRandom(seed);
  const draw = (count: number, scale: number): Float32Array =>
    Float32Array.from({ length: count }, () => (random.next() * 2 - 1) * scale);
  const layers = widths.slice(1).map((out, index) => {
    const inputs = widths[index] as number;
    return { in: inputs, out, weights: draw(inputs * out, spread / Math.sqrt(inputs)), bias: draw(out, 0.5) };
  });
  return { layers, activation: 'tanh' };
}
