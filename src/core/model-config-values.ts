/** Kinds of values that several messages of a configuration share: datatypes, shapes, names of files. */
import { datatypes, tritonDatatypeName, tritonDatatypeNumber, type Datatype } from './datatype.js';
import { intarsiaError } from './errors.js';
import type { FieldReader } from './model-config-fields.js';
import type { Shape } from './tensor.js';

const datatypesByName = new Map(datatypes.map((datatype) => [tritonDatatypeName(datatype), datatype]));
const datatypesByNumber = new Map(datatypes.map((datatype) => [tritonDatatypeNumber[datatype], datatype]));

/** The datatype of a `data_type` field; undefined when it is absent. */
export function readDatatype(reader: FieldReader): Datatype | undefined {
  return reader.choice('data_type', datatypesByName, datatypesByNumber);
}

/** The sizes of a `dims` or `shape` field. */
export function readShape(reader: FieldReader, name: string): Shape {
  return reader.integers(name, { min: -1, max: Number.MAX_SAFE_INTEGER });
}

/** A name that must be there. */
export function requiredString(reader: FieldReader, name: string): string {
  const value = reader.string(name);
  if (value === undefined || value === '') {
    throw intarsiaError('MODEL_INVALID', `${reader.place}: ${name} is missing in ${reader.what}`, {
      place: reader.place,
    });
  }
  return value;
}

/** The name of a file inside one of the model's folders; undefined when absent or empty. */
export function readFileName(reader: FieldReader, name: string): string | undefined {
  const value = reader.string(name);
  if (value === undefined || value === '') return undefined;
  const safe = value.split('/').every((part) => /^[^\\:*?"<>|]+$/.test(part) && part !== '.' && part !== '..');
  if (!safe || value.length > 1024 || hasControlCharacter(value)) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${reader.placeOf(name)}: ${name} is a path inside the model's folder without ".."; found ${JSON.stringify(value.slice(0, 120))}`,
      { place: reader.placeOf(name) },
    );
  }
  return value;
}

function hasControlCharacter(text: string): boolean {
  for (let index = 0; index < text.length; index += 1) {
    if (text.charCodeAt(index) < 0x20) return true;
  }
  return false;
}

/** Fields of which Triton's oneof allows one. */
export function refuseTwoOf(reader: FieldReader, names: readonly string[]): void {
  const [first, second] = names.filter((name) => reader.has(name));
  if (first !== undefined && second !== undefined) {
    throw intarsiaError('MODEL_INVALID', `${reader.placeOf(second)}: ${first} and ${second} exclude each other`, {
      place: reader.placeOf(second),
    });
  }
}

/** `{ key: value }`, or nothing when the value is undefined. */
export function optionalField<Key extends string, Value>(
  key: Key,
  value: Value | undefined,
): Partial<Record<Key, Value>> {
  return value === undefined ? {} : ({ [key]: value } as Partial<Record<Key, Value>>);
}
