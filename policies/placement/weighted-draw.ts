/**
 * Draws an index with a chance in proportion to its weight, in constant time: Vose's alias method. Making it costs as much
 * as there are weights.
 */
import type { Random } from '#ports/random.js';

export class WeightedDraw {
  readonly #keep: Float64Array;
  readonly #alias: Int32Array;

  /** At least one weight; what is not a number above 0 counts as the smallest of the others. */
  constructor(weights: readonly number[]) {
    const count = weights.length;
    const usable = weights.filter((weight) => weight > 0 && weight < Infinity);
    const least = usable.length === 0 ? 1 : Math.min(...usable);
    const clean = weights.map((weight) => (weight > 0 && weight < Infinity ? weight : least));
    const sum = clean.reduce((total, weight) => total + weight, 0);
    const scaled = Float64Array.from(clean, (weight) => (weight * count) / sum);
    this.#keep = new Float64Array(count).fill(1);
    this.#alias = Int32Array.from({ length: count }, (_, index) => index);
    const small: number[] = [];
    const large: number[] = [];
    scaled.forEach((share, index) => (share < 1 ? small : large).push(index));
    for (let under = small.pop(); under !== undefined; under = small.pop()) {
      const over = large.at(-1);
      // Rounding may leave one with nearly a whole share: it keeps to itself.
      if (over === undefined) break;
      this.#keep[under] = scaled[under] ?? 1;
      this.#alias[under] = over;
      const left = (scaled[over] ?? 1) - (1 - (scaled[under] ?? 1));
      scaled[over] = left;
      if (left < 1) {
        large.pop();
        small.push(over);
      }
    }
  }

  draw(random: Random): number {
    const index = random.below(this.#keep.length);
    return random.next() < (this.#keep[index] ?? 1) ? index : (this.#alias[index] ?? index);
  }
}
