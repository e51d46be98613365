/**
 * How much retrying a client may do: gRPC's token bucket, and exponential back-off with full jitter.
 *
 * When everything fails, retries multiply the load of servers that are in trouble already. The bucket bounds that: each
 * failed attempt takes a token, each success gives a fraction back, and nothing is retried while at most half is left.
 * See gRFC A6, "Throttling Retry Attempts and Hedged RPCs".
 */
import type { Random } from '#ports/random.js';
import type { RetryOptions } from './options.js';

export class RetryBudget {
  readonly #options: RetryOptions;
  /** Between 0 and `tokensMax`. */
  #tokens: number;

  constructor(options: RetryOptions) {
    this.#options = options;
    this.#tokens = options.tokensMax;
  }

  get tokens(): number {
    return this.#tokens;
  }

  /** Whether another attempt may be made now. */
  get allowsRetry(): boolean {
    return this.#tokens > this.#options.tokensMax / 2;
  }

  succeeded(): void {
    this.#tokens = Math.min(this.#options.tokensMax, this.#tokens + this.#options.tokensPerSuccess);
  }

  /** An attempt failed in a way a retry could help with. */
  failed(): void {
    this.#tokens = Math.max(0, this.#tokens - 1);
  }
}

/** Milliseconds to wait before attempt number `attempt` (2 is the first retry): uniform from 0 to a bound that doubles. */
export function backoffMs(options: RetryOptions, attempt: number, random: Random): number {
  const bound = Math.min(options.backoffMsMax, options.backoffMsMin * 2 ** (attempt - 2));
  return random.next() * bound;
}
