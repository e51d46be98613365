/**
 * JSON of plain data that also has maps, sets, bigints, bytes and numbers that are not finite: each is an object with one
 * key that begins with `$`. Keys of plain objects never begin with `$` here; such data is refused.
 */
import { intarsiaError } from '../errors.js';

const depthMax = 64;

/** @throws INVALID_ARGUMENT for what is no data: functions, symbols, keys that begin with `$`, nesting deeper than 64. */
export function toTaggedJson(value: unknown): string {
  return JSON.stringify(tagged(value, 0));
}

/** @throws INVALID_ARGUMENT for a text that `toTaggedJson` does not write. */
export function fromTaggedJson(text: string): unknown {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw intarsiaError('INVALID_ARGUMENT', 'the text is not JSON', { length: text.length }, error);
  }
  return untagged(parsed, 0);
}

function tagged(value: unknown, depth: number): unknown {
  if (depth > depthMax) throw notData(`data nested deeper than ${depthMax}`);
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number')
    return Number.isFinite(value) && !Object.is(value, -0) ? value : { $number: numberText(value) };
  if (typeof value === 'bigint') return { $bigint: String(value) };
  if (typeof value !== 'object') throw notData(`a ${typeof value}`);
  const deeper = (each: unknown): unknown => tagged(each, depth + 1);
  if (Array.isArray(value)) return value.map(deeper);
  if (value instanceof Map) return { $map: [...value].map(([key, each]) => [deeper(key), deeper(each)]) };
  if (value instanceof Set) return { $set: [...value].map(deeper) };
  if (value instanceof Uint8Array) return { $bytes: hexOf(value) };
  const fields: Record<string, unknown> = {};
  for (const [key, each] of Object.entries(value)) {
    if (key.startsWith('$')) throw notData(`a key that begins with $: ${key.slice(0, 80)}`);
    if (each !== undefined) fields[key] = deeper(each);
  }
  return fields;
}

function untagged(value: unknown, depth: number): unknown {
  if (depth > depthMax * 2) throw notData(`data nested deeper than ${depthMax}`);
  if (typeof value !== 'object' || value === null) return value;
  const deeper = (each: unknown): unknown => untagged(each, depth + 1);
  if (Array.isArray(value)) return value.map(deeper);
  const entries = Object.entries(value);
  const [only] = entries;
  if (only?.[0].startsWith('$') === true && entries.length === 1) return special(only[0], only[1], deeper);
  // Not assignment: `__proto__` is a key like any other.
  return Object.fromEntries(entries.map(([key, each]) => [key, deeper(each)]));
}

function special(tag: string, value: unknown, deeper: (each: unknown) => unknown): unknown {
  if (tag === '$number' && typeof value === 'string') return Number(value);
  if (tag === '$bigint' && typeof value === 'string' && /^-?[0-9]+$/.test(value)) return BigInt(value);
  if (tag === '$bytes' && typeof value === 'string' && /^(?:[0-9a-f]{2})*$/.test(value)) return bytesOf(value);
  if (Array.isArray(value)) {
    const list: readonly unknown[] = value;
    if (tag === '$set') return new Set(list.map(deeper));
    if (tag === '$map' && list.every((pair) => Array.isArray(pair) && pair.length === 2)) {
      return new Map((list as (readonly [unknown, unknown])[]).map(([key, each]) => [deeper(key), deeper(each)]));
    }
  }
  throw notData(`an object tagged ${tag.slice(0, 80)}`);
}

function numberText(value: number): string {
  return Object.is(value, -0) ? '-0' : String(value);
}

function hexOf(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
}

function bytesOf(hex: string): Uint8Array {
  const bytes = new Uint8Array(hex.length / 2);
  for (let index = 0; index < bytes.length; index += 1)
    bytes[index] = parseInt(hex.slice(index * 2, index * 2 + 2), 16);
  return bytes;
}

function notData(what: string): Error {
  return intarsiaError('INVALID_ARGUMENT', `${what} cannot be written as tagged JSON`);
}
