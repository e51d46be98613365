/** The simulator's chance: the production generator. One seed, and one stream for each source of chance, by label. */
import { RandomStream } from '#core/random.js';
import type { Random } from '#ports/random.js';

/** The root stream of a seed; take `stream('network')`, `stream('arrivals')` and so on from it. */
export function seededRandom(seed: string | number): Random {
  return new RandomStream(seed);
}
