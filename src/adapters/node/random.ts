/** Chance for the running system: the core's generator, seeded by the operator or, when no seed is given, by the system. */
import { randomBytes } from 'node:crypto';
import { RandomStream } from '#core/random.js';
import type { Random } from '#ports/random.js';

export class SeededRandom extends RandomStream implements Random {
  /** The seed in use, to be logged: a run can then be repeated. */
  readonly seed: string | number;

  constructor(seed: string | number = randomBytes(8).toString('hex')) {
    super(seed);
    this.seed = seed;
  }
}
