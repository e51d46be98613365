/**
 * DER, the encoding of certificates: just what writing one and finding the parts of another takes. Signatures are Node's;
 * whether the result is right, OpenSSL says in the tests.
 */
import { intarsiaError } from '#core/errors.js';

const tags = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectId: 0x06,
  utf8: 0x0c,
  sequence: 0x30,
  set: 0x31,
  utcTime: 0x17,
  generalizedTime: 0x18,
} as const;

/** One value: tag, length, content. */
export function element(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), content]);
  const digits: number[] = [];
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) digits.unshift(rest % 256);
  return Buffer.concat([Buffer.from([tag, 0x80 | digits.length, ...digits]), content]);
}

export const sequence = (...parts: readonly Uint8Array[]): Buffer => element(tags.sequence, ...parts);
export const set = (...parts: readonly Uint8Array[]): Buffer => element(tags.set, ...parts);
export const octets = (bytes: Uint8Array): Buffer => element(tags.octetString, bytes);
export const text = (value: string): Buffer => element(tags.utf8, Buffer.from(value, 'utf8'));
export const yes = (): Buffer => element(tags.boolean, Buffer.from([0xff]));
/** `bytes` with the last `unused` bits not counting. */
export const bits = (bytes: Uint8Array, unused = 0): Buffer => element(tags.bitString, Buffer.from([unused]), bytes);
/** `[number]` around parts. */
export const tagged = (number: number, ...parts: readonly Uint8Array[]): Buffer => element(0xa0 | number, ...parts);
/** `[number]` instead of the content's own tag. */
export const implicit = (number: number, bytes: Uint8Array): Buffer => element(0x80 | number, bytes);

/** A number of any size, big-endian, not negative. */
export function integer(bytes: Uint8Array): Buffer {
  const first = bytes.findIndex((byte) => byte !== 0);
  const digits = first < 0 ? Uint8Array.of(0) : bytes.subarray(first);
  const needsZero = ((digits[0] ?? 0) & 0x80) !== 0;
  return element(tags.integer, ...(needsZero ? [Uint8Array.of(0), digits] : [digits]));
}

/** `1.2.840.10045.4.3.2`. */
export function objectId(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const bytes = [first * 40 + second];
  for (const number of rest) {
    const digits = [number & 0x7f];
    for (let left = number >>> 7; left > 0; left >>>= 7) digits.unshift((left & 0x7f) | 0x80);
    bytes.push(...digits);
  }
  return element(tags.objectId, Buffer.from(bytes));
}

/** A moment, to the second: two digits for the year until 2049, as certificates want it. */
export function time(wallMs: number): Buffer {
  const digits = new Date(wallMs).toISOString().replaceAll(/[-:T]|\.\d+/g, '');
  return Number(digits.slice(0, 4)) < 2050
    ? element(tags.utcTime, Buffer.from(digits.slice(2), 'latin1'))
    : element(tags.generalizedTime, Buffer.from(digits, 'latin1'));
}

export interface DerElement {
  readonly tag: number;
  /** Tag and length included. */
  readonly whole: Buffer;
  readonly content: Buffer;
}

/** The values one after the other in some bytes. @throws INVALID_ARGUMENT when they are not DER. */
export function elementsOf(bytes: Buffer): readonly DerElement[] {
  const found: DerElement[] = [];
  for (let at = 0; at < bytes.length;) {
    const tag = bytes[at] ?? 0;
    let length = bytes[at + 1] ?? Number.NaN;
    let start = at + 2;
    if (length >= 0x80) {
      const digits = length & 0x7f;
      length =
        digits === 0 || digits > 4 ? Number.NaN : bytes.readUIntBE(start, Math.min(digits, bytes.length - start));
      start += digits;
    }
    const end = start + length;
    if (!(end <= bytes.length)) throw intarsiaError('INVALID_ARGUMENT', 'these bytes are no certificate');
    found.push({ tag, whole: bytes.subarray(at, end), content: bytes.subarray(start, end) });
    at = end;
  }
  return found;
}
