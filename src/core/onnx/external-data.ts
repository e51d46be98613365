/**
 * Weights in other files: where they may lie. A location is untrusted text from a model file; it must name a file inside
 * the model's own folder. Whoever opens the file checks links as well; here only the text is judged, for every system
 * alike, so that a model is not valid on one and dangerous on another.
 */
import { intarsiaError } from '../errors.js';
import type { ExternalData } from './tensor-proto.js';

const locationLengthMax = 1024;

/**
 * The `external_data` pairs of a tensor, checked.
 * @throws MODEL_INVALID when the location leaves the model's folder or a number is not one.
 */
export function readExternalData(tensor: string, pairs: ReadonlyMap<string, string>): ExternalData {
  const location = pairs.get('location') ?? '';
  const problem = locationProblem(location);
  if (problem !== '') {
    throw intarsiaError(
      'MODEL_INVALID',
      `tensor ${JSON.stringify(tensor)} has its data at ${JSON.stringify(location.slice(0, 200))}: ${problem}`,
      { tensor, location: location.slice(0, 200) },
    );
  }
  const offset = decimal(tensor, 'offset', pairs.get('offset'));
  const length = decimal(tensor, 'length', pairs.get('length'));
  return {
    location: location
      .split('/')
      .filter((part) => part !== '.')
      .join('/'),
    offset: offset ?? 0,
    ...(length === undefined ? {} : { length }),
  };
}

/** Why a location may not be used; empty when it may. */
function locationProblem(location: string): string {
  if (location === '') return 'a location is missing';
  if (location.length > locationLengthMax) return `a location has at most ${locationLengthMax} characters`;
  for (const character of location) {
    const code = character.codePointAt(0) ?? 0;
    if (code < 0x20 || code === 0x7f) return 'a location has no control characters';
  }
  if (location.includes('\\')) return 'a location has no backslashes';
  // ONNX Runtime reads a location that begins with "*/" as an address in its own memory.
  if (location.startsWith('*')) return 'a location names a file';
  if (location.startsWith('/') || /^[A-Za-z]:/.test(location)) return "a location is relative to the model's folder";
  const parts = location.split('/');
  if (parts.includes('..')) return "a location stays inside the model's folder";
  if (parts.includes('')) return 'a location has no empty parts';
  if (parts[parts.length - 1] === '.') return 'a location names a file';
  return '';
}

function decimal(tensor: string, key: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) {
    throw intarsiaError(
      'MODEL_INVALID',
      `tensor ${JSON.stringify(tensor)} has the external ${key} ${JSON.stringify(text.slice(0, 40))}, which is not a whole number of bytes`,
      { tensor, key },
    );
  }
  return value;
}
