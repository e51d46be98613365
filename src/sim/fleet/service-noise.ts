/**
 * How irregular the runs of a simulated device are: a lognormal factor with mean 1, so that a device is not slower on average
 * because it is less regular. A share of it lasts, as on real machines, where whatever slows one run slows the next, too:
 * logarithms follow an Ornstein-Uhlenbeck process and white noise beside it.
 */
import type { Random } from '#ports/random.js';
import type { LastingNoise } from './fleet.js';

export class ServiceNoise {
  readonly #random: Random;
  readonly #sigma: number;
  readonly #lasting: LastingNoise;
  /** Of the part that lasts, in units of its own spread, and when it was looked at. */
  #state = 0;
  #stateMs = -Infinity;

  constructor(random: Random, sigma: number, lasting: LastingNoise) {
    this.#random = random;
    this.#sigma = sigma;
    this.#lasting = lasting;
  }

  /** Of a run that begins at that moment. Draws from the stream. */
  factor(nowMs: number): number {
    const sigma = this.#sigma;
    if (sigma === 0) return 1;
    const { share } = this.#lasting;
    const deviation =
      share === 0 ? this.#normal() : Math.sqrt(share) * this.#last(nowMs) + Math.sqrt(1 - share) * this.#normal();
    return Math.exp(sigma * deviation - (sigma * sigma) / 2);
  }

  #last(nowMs: number): number {
    const kept = Math.exp(-Math.max(0, nowMs - this.#stateMs) / this.#lasting.ms);
    this.#state = kept * this.#state + Math.sqrt(1 - kept * kept) * this.#normal();
    this.#stateMs = nowMs;
    return this.#state;
  }

  #normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.#random.next()));
    return radius * Math.cos(2 * Math.PI * this.#random.next());
  }
}
