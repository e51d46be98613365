/**
 * Any message of an actor as bytes, and back: plain data, Map, Set, bigint, bytes, IntarsiaError, references to actors.
 *
 * Bytes of tensors are not copied: ranges from `outOfBandBytesMin` on stay by reference beside the encoded value, each to
 * be written at a multiple of 8 bytes; the decoder hands out views on the payload they arrived in. Keys of objects are
 * written once a message. What cannot travel (functions, symbols, instances of classes, cycles) is refused by the
 * encoder, with the way to it, rather than arriving as something else.
 *
 * The decoder trusts nothing: every count is bounded by the bytes that are left, nesting by `depthMax`, so what it makes
 * of n bytes is at most proportional to n. How values are framed and sent is left to others.
 */
import type { ActorAddress } from '../actor-address.js';
import { fromErrorData, IntarsiaError, intarsiaError, toErrorData, type ErrorData } from '../errors.js';
import { writeAscii } from '../ascii.js';
import { alignedBytes, framePadding } from '../frame.js';
import { cachedTextBytesMax, readShortAscii } from '../text-cache.js';

/** Shorter ranges are copied into the encoded value: a range of its own costs more than that. */
export const outOfBandBytesMin = 1024;
/** Arrays, objects, maps and sets within each other. */
const depthMax = 64;
/** Bytes of one bigint; making one is slower than linear in them. */
const bigintBytesMax = 1024;
/** Lists of keys that later objects of the message can refer to; objects with others bring their own. */
const shapesMax = 32;

/** Numbers are part of the format. */
const tag = {
  undefined: 0,
  null: 1,
  false: 2,
  true: 3,
  /** Whole numbers from 0 up, as varint. */
  natural: 4,
  /** Whole numbers below 0: −1 − value as varint. */
  negative: 5,
  double: 6,
  text: 7,
  /** A text with halves of surrogate pairs, two bytes a unit. */
  text16: 8,
  naturalBig: 9,
  negativeBig: 10,
  bytes: 11,
  /** Bytes in the payload, where the previous one ended. */
  payload: 12,
  array: 13,
  object: 14,
  map: 15,
  set: 16,
  error: 17,
  address: 18,
  /** An object of the same keys as an earlier one of this message. */
  shaped: 19,
} as const;

/** A value on its way: what is encoded, and the ranges beside it, with the padding between them. */
export interface EncodedValue {
  readonly header: Uint8Array<ArrayBuffer>;
  readonly payload: readonly Uint8Array[];
  /** Bytes of header and payload. */
  readonly bytes: number;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const loneSurrogate = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;

/** @throws INVALID_ARGUMENT naming what cannot travel, and where in the value it is. */
export function encodeValue(value: unknown): EncodedValue {
  const writer = new ValueWriter();
  writer.value(value, 0);
  return writer.finish();
}

/**
 * The value that was encoded. Its bytes are views on what is given; `reference` makes a reference of an address.
 * @throws INVALID_ARGUMENT when the bytes are not exactly one value.
 */
export function decodeValue(
  header: Uint8Array,
  payload: Uint8Array,
  reference: (address: ActorAddress) => unknown = (address) => ({ address }),
): unknown {
  const reader = new ValueReader(header, payload, reference);
  const value = reader.value(0);
  reader.end();
  return value;
}

/** For the eight bytes of a double, which may lie anywhere. */
const doubleBytes = new Uint8Array(8);
const doubleView = new DataView(doubleBytes.buffer);

/** Encoded values lie one behind the other in shared memory: memory of its own costs a small one more than its encoding. */
const slabBytes = 16_384;
/** With less left a slab is used no more. */
const slabRestBytesMin = 256;
/** Not there while a value is being encoded, nor after one that was refused. */
let freeSlab: { readonly bytes: Uint8Array<ArrayBuffer>; readonly used: number } | undefined;

class ValueWriter {
  #buffer: Uint8Array<ArrayBuffer>;
  /** Where this value begins in the buffer. */
  #start: number;
  #position: number;
  readonly #payload: Uint8Array[] = [];
  #payloadBytes = 0;
  /** Key lists of the first objects that differ in them; the reader numbers them alike. */
  readonly #shapes: (readonly string[])[] = [];

  constructor() {
    const slab = freeSlab;
    freeSlab = undefined;
    this.#buffer = slab?.bytes ?? new Uint8Array(slabBytes);
    this.#start = slab?.used ?? 0;
    this.#position = this.#start;
  }

  finish(): EncodedValue {
    const header = this.#buffer.subarray(this.#start, this.#position);
    if (this.#position + slabRestBytesMin <= this.#buffer.byteLength) {
      freeSlab = { bytes: this.#buffer, used: alignedBytes(this.#position) };
    }
    return { header, payload: this.#payload, bytes: header.byteLength + this.#payloadBytes };
  }

  value(value: unknown, depth: number): void {
    switch (typeof value) {
      case 'string':
        this.#text(value);
        return;
      case 'number':
        this.#number(value);
        return;
      case 'boolean':
        this.#byte(value ? tag.true : tag.false);
        return;
      case 'undefined':
        this.#byte(tag.undefined);
        return;
      case 'bigint':
        this.#bigint(value);
        return;
      case 'object':
        if (value === null) this.#byte(tag.null);
        else this.#object(value, depth);
        return;
      default:
        throw refused(`a ${typeof value}`);
    }
  }

  #object(value: object, depth: number): void {
    if (depth >= depthMax) throw refused(`a value nested deeper than ${depthMax} levels`);
    if (Array.isArray(value)) {
      this.#head(tag.array, value.length);
      this.#items(value, depth);
      return;
    }
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype === Object.prototype || prototype === null) {
      const address = addressOf(value);
      if (address === undefined) this.#record(value as Record<string, unknown>, depth);
      else this.#address(address);
    } else if (value instanceof Uint8Array) this.#bytes(value);
    else if (value instanceof Map) {
      this.#head(tag.map, value.size);
      for (const [key, held] of value as ReadonlyMap<unknown, unknown>) {
        this.#inside(key, depth, 'key of a map');
        this.#inside(held, depth, 'value of a map');
      }
    } else if (value instanceof Set) {
      this.#head(tag.set, value.size);
      for (const held of value as ReadonlySet<unknown>) this.#inside(held, depth, 'value of a set');
    } else this.#instance(value, depth);
  }

  #items(items: readonly unknown[], depth: number): void {
    let index = 0;
    try {
      for (; index < items.length; index += 1) this.value(items[index], depth + 1);
    } catch (error) {
      throw passing(error, index);
    }
  }

  #instance(value: object, depth: number): void {
    const address = addressOf(value);
    if (address !== undefined) this.#address(address);
    else if (value instanceof Error) {
      const { code, message, details } = toErrorData(value);
      this.#byte(tag.error);
      this.#text(code);
      this.#text(message);
      this.#record(details, depth);
    } else throw refused(`an instance of ${value.constructor.name}`);
  }

  #record(value: Readonly<Record<string, unknown>>, depth: number): void {
    const keys = Object.keys(value);
    const known = this.#shapeOf(keys);
    if (known < 0) {
      if (this.#shapes.length < shapesMax) this.#shapes.push(keys);
      this.#head(tag.object, keys.length);
      for (const key of keys) this.#text(key);
    } else this.#head(tag.shaped, known);
    // All at once: looking them up one by one, in objects of ever other kinds, takes several times as long.
    const values = Object.values(value);
    let at = 0;
    try {
      for (; at < values.length; at += 1) this.value(values[at], depth + 1);
    } catch (error) {
      throw passing(error, keys[at] ?? '');
    }
  }

  #shapeOf(keys: readonly string[]): number {
    for (let index = 0; index < this.#shapes.length; index += 1) {
      if (isSameList(this.#shapes[index] as readonly string[], keys)) return index;
    }
    return -1;
  }

  /** A refusal gathers the way to it on its way out, so that the others pay nothing for it. */
  #inside(value: unknown, depth: number, step: string | number): void {
    try {
      this.value(value, depth + 1);
    } catch (error) {
      throw passing(error, step);
    }
  }

  #address(address: ActorAddress): void {
    this.#byte(tag.address);
    this.#text(address.host);
    this.#text(address.path);
    this.#varint(address.incarnation);
  }

  #bytes(value: Uint8Array): void {
    const { byteLength } = value;
    if (byteLength >= outOfBandBytesMin) {
      this.#head(tag.payload, byteLength);
      const padding = framePadding(this.#payloadBytes);
      if (padding.byteLength > 0) this.#payload.push(padding);
      this.#payload.push(value);
      this.#payloadBytes += padding.byteLength + byteLength;
      return;
    }
    this.#head(tag.bytes, byteLength);
    this.#reserve(byteLength);
    this.#buffer.set(value, this.#position);
    this.#position += byteLength;
  }

  #number(value: number): void {
    if (value > 0 && value < 0x80 && (value | 0) === value) {
      this.#reserve(2);
      this.#buffer[this.#position] = tag.natural;
      this.#buffer[this.#position + 1] = value;
      this.#position += 2;
      return;
    }
    if (Number.isSafeInteger(value) && !Object.is(value, -0)) {
      this.#head(value < 0 ? tag.negative : tag.natural, value < 0 ? -1 - value : value);
      return;
    }
    this.#byte(tag.double);
    this.#reserve(8);
    doubleView.setFloat64(0, value, true);
    for (let index = 0; index < 8; index += 1) this.#buffer[this.#position + index] = doubleBytes[index] as number;
    this.#position += 8;
  }

  #bigint(value: bigint): void {
    const magnitude = value < 0n ? -1n - value : value;
    const digits = magnitude.toString(16);
    const count = (digits.length + 1) >> 1;
    if (count > bigintBytesMax) throw refused(`a bigint of ${count} bytes, of at most ${bigintBytesMax}`);
    this.#head(value < 0n ? tag.negativeBig : tag.naturalBig, count);
    this.#reserve(count);
    const even = digits.padStart(count * 2, '0');
    for (let index = 0; index < count; index += 1) {
      this.#buffer[this.#position] = parseInt(even.slice(index * 2, index * 2 + 2), 16);
      this.#position += 1;
    }
  }

  #text(text: string): void {
    const { length } = text;
    if (length < 128) {
      this.#reserve(length + 2);
      const buffer = this.#buffer;
      if (writeAscii(text, buffer, this.#position + 2)) {
        buffer[this.#position] = tag.text;
        buffer[this.#position + 1] = length;
        this.#position += length + 2;
        return;
      }
    }
    if (loneSurrogate.test(text)) {
      this.#head(tag.text16, length);
      this.#reserve(length * 2);
      const view = new DataView(this.#buffer.buffer);
      for (let index = 0; index < length; index += 1) {
        view.setUint16(this.#position, text.charCodeAt(index), true);
        this.#position += 2;
      }
      return;
    }
    const encoded = encoder.encode(text);
    this.#head(tag.text, encoded.byteLength);
    this.#reserve(encoded.byteLength);
    this.#buffer.set(encoded, this.#position);
    this.#position += encoded.byteLength;
  }

  #head(kind: number, count: number): void {
    this.#byte(kind);
    this.#varint(count);
  }

  #byte(value: number): void {
    this.#reserve(1);
    this.#buffer[this.#position] = value;
    this.#position += 1;
  }

  #varint(value: number): void {
    this.#reserve(8);
    if (value < 0x80) {
      this.#buffer[this.#position] = value;
      this.#position += 1;
      return;
    }
    let rest = value;
    while (rest >= 0x80) {
      this.#buffer[this.#position] = (rest % 128) | 0x80;
      this.#position += 1;
      rest = Math.floor(rest / 128);
    }
    this.#buffer[this.#position] = rest;
    this.#position += 1;
  }

  #reserve(bytes: number): void {
    const needed = this.#position + bytes;
    if (needed <= this.#buffer.byteLength) return;
    const written = this.#position - this.#start;
    const larger = new Uint8Array(Math.max((written + bytes) * 2, slabBytes));
    larger.set(this.#buffer.subarray(this.#start, this.#position));
    this.#buffer = larger;
    this.#start = 0;
    this.#position = written;
  }
}

class ValueReader {
  readonly #source: Uint8Array;
  readonly #payload: Uint8Array;
  readonly #reference: (address: ActorAddress) => unknown;
  readonly #shapes: string[][] = [];
  #position = 0;
  #payloadPosition = 0;

  constructor(source: Uint8Array, payload: Uint8Array, reference: (address: ActorAddress) => unknown) {
    this.#source = source;
    this.#payload = payload;
    this.#reference = reference;
  }

  end(): void {
    if (this.#position !== this.#source.byteLength) throw malformed('bytes follow the value', this.#position);
    if (this.#payloadPosition !== this.#payload.byteLength) {
      throw malformed(`${this.#payload.byteLength} bytes of payload, of which the value names another number`, 0);
    }
  }

  value(depth: number): unknown {
    if (depth > depthMax) throw malformed(`nesting deeper than ${depthMax} levels`, this.#position);
    const kind = this.#byte();
    switch (kind) {
      case tag.undefined:
        return undefined;
      case tag.null:
        return null;
      case tag.false:
        return false;
      case tag.true:
        return true;
      case tag.natural:
        return this.#varint();
      case tag.negative:
        return -1 - this.#varint();
      case tag.double:
        return this.#double();
      case tag.text:
      case tag.text16:
        return this.#text(kind);
      case tag.naturalBig:
        return this.#bigint();
      case tag.negativeBig:
        return -1n - this.#bigint();
      case tag.bytes:
        return this.#bytes(this.#varint());
      case tag.payload:
        return this.#outOfBand(this.#varint());
      case tag.array: {
        const items: unknown[] = [];
        for (let left = this.#count(1); left > 0; left -= 1) items.push(this.value(depth + 1));
        return items;
      }
      case tag.object:
        return this.#record(this.#newShape(), depth);
      case tag.shaped:
        return this.#record(this.#knownShape(), depth);
      case tag.map: {
        const map = new Map<unknown, unknown>();
        for (let left = this.#count(2); left > 0; left -= 1) map.set(this.value(depth + 1), this.value(depth + 1));
        return map;
      }
      case tag.set: {
        const set = new Set<unknown>();
        for (let left = this.#count(1); left > 0; left -= 1) set.add(this.value(depth + 1));
        return set;
      }
      case tag.error:
        return this.#error(depth);
      case tag.address:
        return this.#reference({
          host: this.#taggedText(),
          path: this.#taggedText(),
          incarnation: this.#varint(),
        });
      default:
        throw malformed(`unknown tag ${kind}`, this.#position - 1);
    }
  }

  #newShape(): string[] {
    const keys: string[] = [];
    for (let left = this.#count(2); left > 0; left -= 1) keys.push(this.#taggedText());
    if (this.#shapes.length < shapesMax) this.#shapes.push(keys);
    return keys;
  }

  /** An earlier list of keys. A list without keys costs no bytes to use, but each use is a tag, so the whole is bounded. */
  #knownShape(): string[] {
    const index = this.#varint();
    const keys = this.#shapes[index];
    if (keys === undefined) throw malformed(`object shape ${index} of ${this.#shapes.length}`, this.#position);
    return keys;
  }

  #record(keys: readonly string[], depth: number): Record<string, unknown> {
    const record: Record<string, unknown> = {};
    for (const key of keys) {
      const value = this.value(depth + 1);
      if (key === '__proto__') {
        Object.defineProperty(record, key, { value, enumerable: true, configurable: true, writable: true });
      } else record[key] = value;
    }
    return record;
  }

  #error(depth: number): IntarsiaError {
    const code = this.#taggedText();
    const message = this.#taggedText();
    const given = this.value(depth + 1);
    if (typeof given !== 'object' || given === null) throw malformed('details of an error', this.#position);
    // Not by assignment: a detail may be named like a prototype.
    const details = Object.fromEntries(Object.entries(given).filter(isDetail));
    return fromErrorData({ code: code as ErrorData['code'], message, details });
  }

  #outOfBand(bytes: number): Uint8Array {
    const start = alignedBytes(this.#payloadPosition);
    if (bytes > this.#payload.byteLength - start) throw malformed(`${bytes} bytes run past the payload`, start);
    this.#payloadPosition = start + bytes;
    return this.#payload.subarray(start, start + bytes);
  }

  #bytes(bytes: number): Uint8Array {
    const start = this.#advance(bytes);
    return this.#source.subarray(start, start + bytes);
  }

  /** Passes over so many bytes; where they begin. */
  #advance(bytes: number): number {
    const start = this.#position;
    if (bytes > this.#source.byteLength - start) throw malformed(`${bytes} bytes run past the end`, start);
    this.#position = start + bytes;
    return start;
  }

  #taggedText(): string {
    return this.#text(this.#byte());
  }

  #text(kind: number): string {
    if (kind === tag.text16) {
      const units = this.#bytes(this.#varint() * 2);
      let text = '';
      for (let at = 0; at < units.byteLength; at += 2) {
        text += String.fromCharCode((units[at] as number) | ((units[at + 1] as number) << 8));
      }
      return text;
    }
    if (kind !== tag.text) throw malformed('a text is expected', this.#position - 1);
    const length = this.#varint();
    const start = this.#advance(length);
    const known = length <= cachedTextBytesMax ? readShortAscii(this.#source, start, length) : undefined;
    if (known !== undefined) return known;
    try {
      return decoder.decode(this.#source.subarray(start, start + length));
    } catch {
      throw malformed('a text is not UTF-8', start);
    }
  }

  #bigint(): bigint {
    const count = this.#varint();
    if (count > bigintBytesMax) throw malformed(`a bigint of ${count} bytes`, this.#position);
    let digits = '';
    for (const byte of this.#bytes(count)) digits += byte.toString(16).padStart(2, '0');
    return count === 0 ? 0n : BigInt(`0x${digits}`);
  }

  #double(): number {
    const start = this.#advance(8);
    for (let index = 0; index < 8; index += 1) doubleBytes[index] = this.#source[start + index] as number;
    return doubleView.getFloat64(0, true);
  }

  /** A number of elements, each of which takes at least that many bytes. */
  #count(bytesEach: number): number {
    const count = this.#varint();
    if (count * bytesEach > this.#source.byteLength - this.#position) {
      throw malformed(`${count} elements run past the end`, this.#position);
    }
    return count;
  }

  #byte(): number {
    const byte = this.#source[this.#position];
    if (byte === undefined) throw malformed('the value is cut short', this.#position);
    this.#position += 1;
    return byte;
  }

  #varint(): number {
    let value = 0;
    let scale = 1;
    for (let count = 0; count < 8; count += 1) {
      const byte = this.#byte();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) break;
        return value;
      }
      scale *= 128;
    }
    throw malformed('a number exceeds 2^53', this.#position);
  }
}

function isSameList(left: readonly string[], right: readonly string[]): boolean {
  if (left.length !== right.length) return false;
  for (let index = 0; index < left.length; index += 1) if (left[index] !== right[index]) return false;
  return true;
}

/** The address of a reference to an actor; undefined of anything else. Data that merely has such a field is no reference. */
export function addressOf(value: object): ActorAddress | undefined {
  if (!('address' in value) || !('tell' in value)) return undefined;
  const { address, tell } = value;
  if (typeof tell !== 'function' || typeof address !== 'object' || address === null) return undefined;
  const { host, path, incarnation } = address as Partial<ActorAddress>;
  if (typeof host !== 'string' || typeof path !== 'string') return undefined;
  if (!Number.isSafeInteger(incarnation) || (incarnation as number) < 0) return undefined;
  return { host, path, incarnation: incarnation as number };
}

/** An error that learns where it happened while it passes through the levels. */
class Refusal extends IntarsiaError {
  readonly way: string[] = [];
  readonly what: string;

  constructor(what: string) {
    super('INVALID_ARGUMENT', '');
    this.what = what;
    Object.defineProperty(this, 'message', {
      get: () => `a message to another host cannot hold ${what}${this.way.length === 0 ? '' : ` (at ${this.place()})`}`,
    });
  }

  place(): string {
    return this.way.slice(-8).reverse().join('.').slice(0, 200);
  }
}

function refused(what: string): Refusal {
  return new Refusal(what);
}

/** What was thrown, having learnt of one more step on its way out. */
function passing(error: unknown, step: string | number): unknown {
  if (error instanceof Refusal) error.way.push(String(step));
  return error;
}

function malformed(what: string, offset: number): IntarsiaError {
  return intarsiaError('INVALID_ARGUMENT', `encoded value is malformed: ${what} at byte ${offset}`, { offset });
}

function isDetail(entry: [string, unknown]): entry is [string, string | number | boolean] {
  return ['string', 'number', 'boolean'].includes(typeof entry[1]);
}
