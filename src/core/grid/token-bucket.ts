/**
 * A share of the requests as a budget: each request earns a fraction of a token, each extra attempt takes one. So what is
 * spent beyond the full bucket is at most that share, whatever goes wrong.
 */
export class TokenBucket {
  readonly #tokensMax: number;
  readonly #earned: number;
  #tokens: number;

  /** `tokensMax`: the full bucket, which is what it starts with. `earned`: tokens a request brings, 0 to 1. */
  constructor(tokensMax: number, earned: number) {
    this.#tokensMax = tokensMax;
    this.#earned = earned;
    this.#tokens = tokensMax;
  }

  get tokens(): number {
    return this.#tokens;
  }

  earn(): void {
    if (this.#tokens < this.#tokensMax) this.#tokens = Math.min(this.#tokensMax, this.#tokens + this.#earned);
  }

  /** Whether there was a token; it is spent now. */
  take(): boolean {
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}
