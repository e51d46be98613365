/**
 * One large batch for several devices: which items are to be taken next, which came back because whoever had them failed,
 * and which are done. And the rule of how many items a device takes at a time, in proportion to its measured speed.
 *
 * Devices take from what is left when they are free, so that what a slow one does not get to is done by the others; pieces
 * become smaller towards the end, so that all are done at about the same time. What a piece is run with is others' business.
 */
import { invariant } from '../errors.js';

/** Items `from` to `from + items`, the end excluded. */
export interface ItemRange {
  readonly from: number;
  readonly items: number;
}

export interface ChunkWish {
  /** Items that nobody has taken. */
  readonly remaining: number;
  /** Items that the others have and have not done. */
  readonly underWay: number;
  /** Items per millisecond of the device that asks, and of all that take part, its own included; 0: not known yet. */
  readonly speed: number;
  readonly speeds: readonly number[];
  /** Items of the largest batch. */
  readonly itemsMax: number;
}

/** A device of unknown speed first takes this part of its even share, so that one that is slow is not waited for. */
const tryShare = 1 / 8;
/** A device takes this part of what it would do of all that is left: the rest stays for whoever is free first. */
const leaveShare = 1 / 2;

/** A device leaves the rest to the others when it would need so much longer for one item than they for everything. */
const longerMax = 1.25;

/** Items that the device takes next, at most `itemsMax`; 0 when none are left, or the others are done sooner without it. */
export function chunkItems({ remaining, underWay, speed, speeds, itemsMax }: ChunkWish): number {
  if (remaining <= 0) return 0;
  if (isTooSlow({ work: remaining + underWay, speed, speeds })) return 0;
  const known = speeds.filter((one) => one > 0);
  const mean = known.reduce((sum, one) => sum + one, 0) / Math.max(1, known.length);
  const total = speeds.reduce((sum, one) => sum + (one > 0 ? one : mean), 0);
  const share = speed > 0 && total > 0 ? (speed / total) * leaveShare : tryShare / Math.max(1, speeds.length);
  // The only device left has nobody to leave anything to.
  const wanted = speeds.length <= 1 ? remaining : Math.ceil(remaining * share);
  return Math.max(1, Math.min(wanted, itemsMax, remaining));
}

/** Never true of the fastest, so that somebody takes what is left. */
function isTooSlow({ work, speed, speeds }: Pick<ChunkWish, 'speed' | 'speeds'> & { readonly work: number }): boolean {
  if (speed <= 0 || speeds.some((one) => one <= 0)) return false;
  const others = speeds.reduce((sum, one) => sum + one, 0) - speed;
  const fastest = Math.max(...speeds);
  if (speed >= fastest || others <= 0) return false;
  return 1 / speed > longerMax * Math.max(work / others, 1 / fastest);
}

/** Whether a request that one device could run whole is done sooner by several: by a tenth at least, as far as is known. */
export function isSpreadSooner(speeds: readonly number[]): boolean {
  if (speeds.length < 2) return false;
  if (speeds.some((speed) => speed <= 0)) return true;
  const total = speeds.reduce((sum, speed) => sum + speed, 0);
  return total >= 1.1 * Math.max(...speeds);
}

/** The items of one request. */
export class ChunkBook {
  readonly items: number;
  #next = 0;
  #done = 0;
  readonly #returned: ItemRange[] = [];
  #returnedItems = 0;

  constructor(items: number) {
    this.items = items;
  }

  /** Items that nobody has now and that are not done. */
  get remaining(): number {
    return this.items - this.#next + this.#returnedItems;
  }

  get isComplete(): boolean {
    return this.#done === this.items;
  }

  /** At most so many items in a row; what came back goes first. Undefined when nothing is left. */
  take(itemsMax: number): ItemRange | undefined {
    if (itemsMax < 1) return undefined;
    const back = this.#returned.shift();
    if (back !== undefined) {
      const items = Math.min(back.items, itemsMax);
      this.#returnedItems -= items;
      if (items < back.items) this.#returned.unshift({ from: back.from + items, items: back.items - items });
      return { from: back.from, items };
    }
    const items = Math.min(itemsMax, this.items - this.#next);
    if (items === 0) return undefined;
    const from = this.#next;
    this.#next += items;
    return { from, items };
  }

  /** Whoever took them did not do them. */
  giveBack(range: ItemRange): void {
    this.#returned.push(range);
    this.#returnedItems += range.items;
  }

  /** They are done: told once of each. */
  finish({ items }: ItemRange): void {
    this.#done += items;
    invariant(this.#done <= this.items, 'no item is done twice');
  }
}
