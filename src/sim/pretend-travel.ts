/**
 * What becomes of a message on its way to another host: bytes by the codec of the real links and back, or a copy that is made
 * at once. Of both the receiver gets the same, and what cannot travel is refused by both; a copy costs a fraction, and thousands
 * of simulated grids are little else but messages.
 */
import type { ActorAddress } from '#core/actor-address.js';
import { fromErrorData, intarsiaError, toErrorData } from '#core/errors.js';
import { joinRanges } from '#core/frame.js';
import { addressOf, decodeValue, encodeValue } from '#core/grid/value-codec.js';

/** A message on its way. */
export interface Travelling {
  /** About what it takes of a queue. */
  readonly bytes: number;
  /** The message as it arrives; once. `reference` makes a reference of an address. */
  arrive(reference: (address: ActorAddress) => unknown): unknown;
}

/** Sends a message on its way. @throws INVALID_ARGUMENT for what cannot travel. */
export type Dispatch = (message: unknown) => Travelling;

export const asBytes: Dispatch = (message) => {
  const { header, payload, bytes } = encodeValue(message);
  return { bytes, arrive: (reference) => decodeValue(header, joinRanges(payload), reference) };
};

export const asCopy: Dispatch = (message) => {
  const copier = new Copier();
  const copy = copier.copy(message, 0);
  if (copier.isBeyond) return asBytes(message);
  return {
    bytes: copier.bytes,
    arrive: (reference) => {
      for (const { holder, key, address } of copier.references) holder[key] = reference(address);
      return copy;
    },
  };
};

/** As deep as the codec goes. */
const depthMax = 64;

interface Place {
  readonly holder: Record<string | number, unknown>;
  readonly key: string | number;
  readonly address: ActorAddress;
}

class Copier {
  bytes = 64;
  /** It holds what only bytes show as it arrives. Rare. */
  isBeyond = false;
  /** Where the receiver's references belong. */
  readonly references: Place[] = [];

  copy(value: unknown, depth: number): unknown {
    if (typeof value === 'function' || typeof value === 'symbol') throw refused(`a ${typeof value}`);
    if (typeof value === 'bigint') this.isBeyond = true;
    if (typeof value !== 'object' || value === null) return value;
    if (depth >= depthMax) throw refused(`a value nested deeper than ${depthMax} levels`);
    if (Array.isArray(value)) return this.#items(value, depth);
    if (addressOf(value) !== undefined) return (this.isBeyond = true);
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype !== Object.prototype && prototype !== null) return this.#instance(value, depth);
    return this.#record(value as Record<string, unknown>, depth);
  }

  #record(value: Record<string, unknown>, depth: number): unknown {
    const copy: Record<string, unknown> = { ...value };
    for (const key in copy) {
      const held = copy[key];
      // Nearly everything is a number or a text, and there already.
      if (typeof held === 'number' || typeof held === 'string') continue;
      if (key === '__proto__') this.isBeyond = true;
      this.#put(copy, key, held, depth);
    }
    return copy;
  }

  #items(items: readonly unknown[], depth: number): unknown {
    const copy = [...items];
    for (let index = 0; index < copy.length; index += 1) {
      this.#put(copy as unknown as Record<number, unknown>, index, copy[index], depth);
    }
    return copy;
  }

  #put(holder: Record<string | number, unknown>, key: string | number, held: unknown, depth: number): void {
    const address = typeof held === 'object' && held !== null ? addressOf(held) : undefined;
    if (address === undefined) holder[key] = this.copy(held, depth + 1);
    else this.references.push({ holder, key, address });
  }

  #instance(value: object, depth: number): unknown {
    if (value instanceof Uint8Array) {
      this.bytes += value.byteLength;
      return new Uint8Array(value);
    }
    if (value instanceof Map) {
      return new Map([...value].map(([key, held]) => [this.copy(key, depth + 1), this.copy(held, depth + 1)]));
    }
    if (value instanceof Set) return new Set([...value].map((held) => this.copy(held, depth + 1)));
    if (value instanceof Error) return fromErrorData(toErrorData(value));
    throw refused(`an instance of ${value.constructor.name}`);
  }
}

function refused(what: string): Error {
  return intarsiaError('INVALID_ARGUMENT', `a message to another host cannot hold ${what}`);
}
