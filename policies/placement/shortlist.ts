/**
 * The candidates worth scoring when there are many: the soonest, and of those that are in time the cheapest. A decision then
 * costs the same in a fleet of forty devices and of four hundred.
 */
import {
  expectedMs,
  marginalUsd,
  type DispatchCandidate,
  type DispatchRequest,
  type FleetView,
} from '#core/scheduling/dispatch-view.js';
import { leftMs } from './least-of.js';

/** Of each kind; together at most twice as many are scored. */
const ofEachKind = 16;
export const shortlistMax = 2 * ofEachKind;

export class Shortlist {
  /** Indices of the candidates, ascending as far as `length`. */
  readonly indices = new Int32Array(shortlistMax);
  length = 0;
  readonly #soonest = new Least(ofEachKind);
  readonly #cheapest = new Least(ofEachKind);

  /** All that are not masked when they fit, else the best of both kinds. Allocates nothing. */
  fill(request: DispatchRequest, candidates: readonly DispatchCandidate[], fleet: FleetView): void {
    const { indices } = this;
    this.length = 0;
    let able = 0;
    for (let index = 0; index < candidates.length; index += 1) {
      if ((candidates[index] as DispatchCandidate).masked !== '') continue;
      if (able < shortlistMax) indices[able] = index;
      able += 1;
    }
    this.length = Math.min(able, shortlistMax);
    if (able <= shortlistMax) return;
    this.#soonest.clear();
    this.#cheapest.clear();
    const limitMs = leftMs(request);
    for (let index = 0; index < candidates.length; index += 1) {
      const candidate = candidates[index] as DispatchCandidate;
      if (candidate.masked !== '') continue;
      const ms = expectedMs(candidate);
      this.#soonest.offer(index, ms);
      if (ms <= limitMs) this.#cheapest.offer(index, marginalUsd(candidate, fleet));
    }
    this.length = 0;
    for (let at = 0; at < this.#soonest.length; at += 1) this.#add(this.#soonest.indices[at] as number);
    for (let at = 0; at < this.#cheapest.length; at += 1) {
      const index = this.#cheapest.indices[at] as number;
      if (!this.#soonest.has(index)) this.#add(index);
    }
    indices.subarray(0, this.length).sort();
  }

  #add(index: number): void {
    this.indices[this.length] = index;
    this.length += 1;
  }
}

/** The so many least values offered, by insertion. */
class Least {
  readonly indices: Int32Array;
  length = 0;
  readonly #values: Float64Array;

  constructor(max: number) {
    this.indices = new Int32Array(max);
    this.#values = new Float64Array(max);
  }

  clear(): void {
    this.length = 0;
  }

  has(index: number): boolean {
    for (let at = 0; at < this.length; at += 1) if (this.indices[at] === index) return true;
    return false;
  }

  offer(index: number, value: number): void {
    const values = this.#values;
    const max = values.length;
    // NaN is kept only while there is room: a row with it then goes to the rule.
    if (this.length === max && !(value < (values[max - 1] as number))) return;
    let at = this.length < max ? this.length : max - 1;
    while (at > 0 && value < (values[at - 1] as number)) {
      values[at] = values[at - 1] as number;
      this.indices[at] = this.indices[at - 1] as number;
      at -= 1;
    }
    values[at] = value;
    this.indices[at] = index;
    if (this.length < max) this.length += 1;
  }
}
