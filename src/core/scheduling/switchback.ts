/**
 * Which time slices a policy on trial gets. Whole slices, not single requests: requests share queues, and what one policy
 * does to a queue is felt by the other's requests. All gateways of a grid choose the same slices, by a hash of the slice's
 * number and the seed.
 */

/** Number of the slice that holds this moment. */
export function sliceOf(wallMs: number, sliceSeconds: number): number {
  return Math.floor(wallMs / (sliceSeconds * 1000));
}

/** Whether the slice belongs to the policy on trial. @param percent 0 never, 100 always. */
export function isTrialSlice(slice: number, seed: number, percent: number): boolean {
  return (hash(slice, seed) / 2 ** 32) * 100 < percent;
}

/** 32 bits that are alike for no two neighbours: the finish of MurmurHash3 over number and seed. */
function hash(slice: number, seed: number): number {
  let mixed =
    (Math.imul(seed >>> 0, 0x9e3779b1) ^ (slice >>> 0) ^ Math.imul(Math.floor(slice / 2 ** 32), 0x85ebca6b)) >>> 0;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/**
 * Slices by the monotonic clock: the wall clock is read once, when the trial begins here, so that a wall clock that jumps moves
 * no slice. Hosts whose clocks differ by a second disagree about a second of each slice.
 */
export class Slices {
  readonly #offsetMs: number;
  readonly #sliceSeconds: number;
  readonly #seed: number;
  readonly #percent: number;
  #slice = NaN;
  #isTrial = false;

  constructor(
    { sliceSeconds, seed, percent }: { readonly sliceSeconds: number; readonly seed: number; readonly percent: number },
    wallOffsetMs: number,
  ) {
    this.#offsetMs = wallOffsetMs;
    this.#sliceSeconds = sliceSeconds;
    this.#seed = seed;
    this.#percent = percent;
  }

  /** @param nowMs Monotonic. */
  isTrial(nowMs: number): boolean {
    const slice = sliceOf(nowMs + this.#offsetMs, this.#sliceSeconds);
    if (slice !== this.#slice) {
      this.#slice = slice;
      this.#isTrial = isTrialSlice(slice, this.#seed, this.#percent);
    }
    return this.#isTrial;
  }

  /** Whether a request of that moment tells of its slice's policy alone: queues of the slice before are worked off by then. */
  isSettled(nowMs: number): boolean {
    const lengthMs = this.#sliceSeconds * 1000;
    const wallMs = nowMs + this.#offsetMs;
    return wallMs - sliceOf(wallMs, this.#sliceSeconds) * lengthMs >= lengthMs * settleShare;
  }
}

/** Part of a slice whose answers are not counted. */
const settleShare = 0.1;
