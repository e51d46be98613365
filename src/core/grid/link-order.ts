/**
 * Order over several channels. Small messages travel on the control channel, large ones on bulk channels, each of which
 * keeps its own order; a receiver must see what was sent to it in the order of sending.
 *
 * - Everything large for one receiver goes over the same bulk channel.
 * - A large message names how many small ones were sent before it, and waits until so many have arrived.
 * - A small message names the latest large one to its receiver that may still be on its way, and waits for that.
 * Nobody else waits, so a small message passes every tensor but those of its own receiver. Numbers count modulo 2^32.
 */
import { Deque } from '../deque.js';

/** `tag` of a small message that waits for nothing. */
export const waitsForNone = 0xffff;

function isReached(count: number, number: number): boolean {
  return ((count - number) | 0) >= 0;
}

/** The sender's side: which channel, and what a message must wait for. */
export class OutgoingOrder {
  readonly #channels: number;
  #small = 0;
  /** Large messages sent and taken, by bulk channel. */
  readonly #sent: number[];
  readonly #taken: number[];
  /** Number of the latest large message to a receiver, while it may be on its way. */
  readonly #latest = new Map<string, { readonly channel: number; readonly number: number }>();
  readonly #onTheirWay: Deque<string>[];

  constructor(bulkChannels: number) {
    this.#channels = bulkChannels;
    this.#sent = new Array<number>(bulkChannels).fill(0);
    this.#taken = new Array<number>(bulkChannels).fill(0);
    this.#onTheirWay = Array.from({ length: bulkChannels }, () => new Deque<string>());
  }

  /** What a small message to that receiver must wait for. */
  small(receiver: string): { readonly tag: number; readonly number: number } {
    this.#small = (this.#small + 1) >>> 0;
    const latest = this.#latest.size === 0 ? undefined : this.#latest.get(receiver);
    return latest === undefined ? { tag: waitsForNone, number: 0 } : { tag: latest.channel, number: latest.number };
  }

  /** The bulk channel of a large message to that receiver, and the small ones it must wait for. */
  large(receiver: string): { readonly channel: number; readonly number: number } {
    const known = this.#latest.get(receiver);
    const channel = known?.channel ?? hash(receiver) % this.#channels;
    const number = ((this.#sent[channel] ?? 0) + 1) >>> 0;
    this.#sent[channel] = number;
    this.#latest.set(receiver, { channel, number });
    this.#onTheirWay[channel]?.push(receiver);
    return { channel, number: this.#small };
  }

  /** The latest large message of every bulk channel that has any on its way. */
  allLarge(): readonly (readonly [number, number])[] {
    const waits: [number, number][] = [];
    for (let channel = 0; channel < this.#channels; channel += 1) {
      if ((this.#onTheirWay[channel]?.length ?? 0) > 0) waits.push([channel, this.#sent[channel] ?? 0]);
    }
    return waits;
  }

  /** So many more large messages of the channel were taken over there. */
  taken(channel: number, count: number): void {
    const receivers = this.#onTheirWay[channel];
    if (receivers === undefined) return;
    for (let left = count; left > 0 && receivers.length > 0; left -= 1) {
      const number = ((this.#taken[channel] ?? 0) + 1) >>> 0;
      this.#taken[channel] = number;
      const receiver = receivers.shift();
      const latest = this.#latest.get(receiver);
      if (latest?.channel === channel && latest.number === number) this.#latest.delete(receiver);
    }
  }
}

function hash(text: string): number {
  let value = 7;
  for (let index = 0; index < text.length; index += 1) value = (Math.imul(value, 31) + text.charCodeAt(index)) | 0;
  return value >>> 0;
}

interface HeldSmall<Item> {
  readonly item: Item;
  readonly waits: readonly (readonly [number, number])[];
}

/** The receiver's side: hands over what has nothing to wait for any more. */
export class IncomingOrder<Item> {
  readonly #take: (item: Item, channel: number) => void;
  #small = 0;
  readonly #large: number[];
  readonly #heldLarge: Deque<{ readonly item: Item; readonly number: number }>[];
  #heldSmall: HeldSmall<Item>[] = [];

  /** `take` is given the item and its channel: −1 for the control channel, else the bulk channel. */
  constructor(bulkChannels: number, take: (item: Item, channel: number) => void) {
    this.#take = take;
    this.#large = new Array<number>(bulkChannels).fill(0);
    this.#heldLarge = Array.from({ length: bulkChannels }, () => new Deque());
  }

  /** A small message has arrived. `counted`: false for what is no message, and which large ones do not wait for. */
  small(item: Item, waits: readonly (readonly [number, number])[], counted = true): void {
    if (counted) this.#small = (this.#small + 1) >>> 0;
    if (waits.length === 0 || this.#isTaken(waits)) this.#take(item, -1);
    else this.#heldSmall.push({ item, waits });
    if (counted) for (let channel = 0; channel < this.#heldLarge.length; channel += 1) this.#drain(channel);
  }

  /** A large message has arrived on a bulk channel. */
  large(item: Item, channel: number, number: number): void {
    this.#heldLarge[channel]?.push({ item, number });
    this.#drain(channel);
  }

  #drain(channel: number): void {
    const held = this.#heldLarge[channel];
    if (held === undefined) return;
    for (let head = held.peek(); head !== undefined && isReached(this.#small, head.number); head = held.peek()) {
      held.shift();
      this.#large[channel] = ((this.#large[channel] ?? 0) + 1) >>> 0;
      this.#take(head.item, channel);
      if (this.#heldSmall.length > 0) this.#release();
    }
  }

  #release(): void {
    const ready = this.#heldSmall.filter(({ waits }) => this.#isTaken(waits));
    if (ready.length === 0) return;
    this.#heldSmall = this.#heldSmall.filter((held) => !ready.includes(held));
    for (const { item } of ready) this.#take(item, -1);
  }

  #isTaken(waits: readonly (readonly [number, number])[]): boolean {
    return waits.every(([channel, number]) => isReached(this.#large[channel] ?? 0, number));
  }
}
