/**
 * The batching policy of a device whose host follows promotions: what was promoted with the dispatch policy forms batches when
 * and only when that one decides, in the same time slices. While it is a shadow, and where a version brings no file of its own,
 * the device goes on as its host was started. A change takes effect between two batches.
 */
import type { PolicyPointer } from '#core/scheduling/promotion.js';
import { Slices } from '#core/scheduling/switchback.js';
import type { BatchingPolicy, LaunchChoice, LaunchView } from './batching-policy.js';

/** Makes a policy that knows nothing yet. */
type MakeBatching = () => BatchingPolicy;

export interface FollowedBatching {
  readonly pointer: Pick<PolicyPointer, 'mode' | 'sliceSeconds' | 'seed' | 'percent'>;
  /** Of the policy on trial or promoted, and of its base; undefined: as the host was started. */
  readonly policy: MakeBatching | undefined;
  readonly base: MakeBatching | undefined;
  /** Wall clock less monotonic clock, ms. */
  readonly wallOffsetMs: number;
}

export class PromotedBatching implements BatchingPolicy {
  /** Kept all the while: what it has learned stays. */
  readonly #own: BatchingPolicy;
  #followed: FollowedBatching | undefined;
  #slices: Slices | undefined;
  #make: MakeBatching | undefined;
  #deciding: BatchingPolicy;

  constructor(own: BatchingPolicy) {
    this.#own = own;
    this.#deciding = own;
  }

  /** Whoever decides now. */
  get name(): string {
    return this.#deciding.name;
  }

  /** With a share of the time it is asked about every batch: else no slice would begin. */
  get decidesAlone(): boolean {
    return this.#slices !== undefined || this.#deciding.decidesAlone;
  }

  get sheds(): boolean {
    return this.#deciding.sheds === true;
  }

  /** From the next batch on. */
  follow(followed: FollowedBatching): void {
    const { pointer, policy, base, wallOffsetMs } = followed;
    this.#followed = followed;
    const isShared = pointer.mode === 'share' && policy !== base;
    this.#slices = isShared ? new Slices(pointer, wallOffsetMs) : undefined;
    if (!isShared) this.#take(pointer.mode === 'all' ? policy : base);
  }

  choose(views: readonly LaunchView[], nowMs: number, choice: LaunchChoice): void {
    if (this.#slices !== undefined) {
      this.#take(this.#slices.isTrial(nowMs) ? this.#followed?.policy : this.#followed?.base);
      if (views.length === 1 && !this.#deciding.decidesAlone) {
        choice.queue = 0;
        choice.itemsMax = Infinity;
        return;
      }
    }
    this.#deciding.choose(views, nowMs, choice);
  }

  ended(view: LaunchView, items: number, inTime: boolean): void {
    this.#deciding.ended?.(view, items, inTime);
  }

  /** One that has not seen what happened meanwhile would reckon with arrivals of before: it begins anew in each of its slices. */
  #take(make: MakeBatching | undefined): void {
    if (make === this.#make) return;
    this.#make = make;
    this.#deciding = make === undefined ? this.#own : make();
  }
}
