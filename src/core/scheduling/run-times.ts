/**
 * Run times of one model on one device as an array by items, so that a decision looks them up instead of searching a table:
 * filled from a profile, or learned from answers where there is none.
 */
import { serviceMs, type ServiceProfile } from './service-profile.js';

/** Longest array, items; larger batches are asked of the last slope. */
const lengthMax = 1024;
/** Weight of the newest run in the mean of its batch size. */
const newestWeight = 0.2;
/** Batch sizes that are learned: powers of two, and what lies between counts for the next larger one. */
const sizesMax = 11;

export class RunTimes {
  /** Whether anything is known. */
  known: boolean;
  /** (p95 - p50) / p50; learned ones assume what measured fleets show. */
  spread: number;
  /** Batches are no larger than this. */
  readonly itemsMax: number;
  readonly #learns: boolean;
  readonly #ms: Float64Array;
  readonly #sizeMs = new Float64Array(sizesMax);
  readonly #sizeItems = new Float64Array(sizesMax);

  constructor(profile: ServiceProfile | undefined, itemsMax: number) {
    this.itemsMax = Math.max(1, Math.floor(itemsMax));
    this.#learns = profile === undefined;
    this.known = profile !== undefined;
    this.spread = profile?.spread ?? 0.2;
    this.#ms = new Float64Array(Math.min(this.itemsMax, lengthMax) + 1);
    if (profile !== undefined) {
      for (let items = 1; items < this.#ms.length; items += 1) this.#ms[items] = serviceMs(profile, items);
    }
  }

  /** Mean ms of a run with so many items; 0 for none or while nothing is known. A single request may exceed `itemsMax`. */
  at(items: number): number {
    const last = this.#ms.length - 1;
    if (items <= last) return this.#ms[items] as number;
    return ((this.#ms[last] as number) * items) / last;
  }

  /** Ms to run so many items in batches of at most `itemsMax`. */
  drain(items: number): number {
    if (items <= this.itemsMax) return this.at(items);
    const full = Math.floor(items / this.itemsMax);
    return full * this.at(this.itemsMax) + this.at(items - full * this.itemsMax);
  }

  /** Takes in a run that was measured. Only where no profile is: a profile's drift is the device's ratio. */
  learn(items: number, ms: number): void {
    if (!this.#learns || !(items >= 1) || !(ms > 0)) return;
    const size = Math.min(sizesMax - 1, Math.ceil(Math.log2(items)));
    const before = this.#sizeMs[size] as number;
    if (before === 0) {
      this.#sizeMs[size] = ms;
      this.#sizeItems[size] = items;
    } else {
      this.#sizeMs[size] = before + newestWeight * (ms - before);
      this.#sizeItems[size] =
        (this.#sizeItems[size] as number) + newestWeight * (items - (this.#sizeItems[size] as number));
    }
    this.known = true;
    this.#spreadOut();
  }

  /** Fills the array from the sizes measured: linear between them, flat below, in proportion beyond the largest. */
  #spreadOut(): void {
    let leftItems = 0;
    let leftMs = 0;
    let next = 1;
    const end = this.#ms.length;
    for (let size = 0; size < sizesMax; size += 1) {
      const rightItems = this.#sizeItems[size] as number;
      if (rightItems === 0) continue;
      const rightMs = this.#sizeMs[size] as number;
      for (; next < end && next <= rightItems; next += 1) {
        this.#ms[next] =
          leftItems === 0 ? rightMs : leftMs + ((rightMs - leftMs) * (next - leftItems)) / (rightItems - leftItems);
      }
      leftItems = rightItems;
      leftMs = rightMs;
    }
    for (; next < end; next += 1) this.#ms[next] = (leftMs * next) / leftItems;
  }
}
