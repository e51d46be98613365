/**
 * Reads the fields of one message of a configuration: typed, with ranges, each failure with its place. What nobody asked
 * for is an unknown field, and an error: a mistyped field that is silently ignored costs an afternoon.
 */
import { intarsiaError } from './errors.js';
import type { Placed } from './model-config-draft.js';
import type { Place, TextField, TextMessage, TextScalar } from './pbtxt.js';

export class FieldReader {
  readonly place: Place;
  /** What the message is, for error messages: `input`, `dynamic_batching`. */
  readonly what: string;
  readonly #notes: string[];
  readonly #fields = new Map<string, TextField[]>();
  readonly #read = new Set<string>();

  constructor(message: TextMessage, what: string, notes: string[]) {
    this.place = message.place;
    this.what = what;
    this.#notes = notes;
    for (const field of message.fields) {
      const same = this.#fields.get(field.name);
      if (same === undefined) this.#fields.set(field.name, [field]);
      else same.push(field);
    }
  }

  has(name: string): boolean {
    return this.#fields.has(name);
  }

  /** Where a field stands; where the message stands when the field is absent. */
  placeOf(name: string): Place {
    return this.#fields.get(name)?.[0]?.place ?? this.place;
  }

  /** Whether a field is there and is one of these words. */
  isWord(name: string, words: readonly string[]): boolean {
    const value = this.#fields.get(name)?.[0]?.value;
    const found = value !== undefined && value.kind !== 'message' && words.includes(value.text);
    if (found) this.#read.add(name);
    return found;
  }

  string(name: string): string | undefined {
    const scalar = this.#scalar(name);
    return scalar === undefined ? undefined : stringOf(name, scalar);
  }

  placedString(name: string): Placed<string> | undefined {
    const value = this.string(name);
    return value === undefined ? undefined : { value, place: this.placeOf(name) };
  }

  bool(name: string): boolean | undefined {
    const scalar = this.#scalar(name);
    if (scalar === undefined) return undefined;
    const value = booleanWords.get(scalar.text);
    if (value === undefined || scalar.kind === 'string') throw wrong(scalar.place, `${name} is true or false`, scalar);
    return value;
  }

  /** A whole number of `min` to `max`. */
  integer(name: string, range: { readonly min: number; readonly max: number }): number | undefined {
    const scalar = this.#scalar(name);
    return scalar === undefined ? undefined : integerOf(name, scalar, range);
  }

  integers(name: string, range: { readonly min: number; readonly max: number }): number[] {
    return this.#take(name).map((field) => integerOf(name, scalarOf(field), range));
  }

  number(name: string): number | undefined {
    const scalar = this.#scalar(name);
    if (scalar === undefined) return undefined;
    const value = scalar.kind === 'string' ? Number.NaN : numberOf(scalar.text);
    if (Number.isNaN(value)) throw wrong(scalar.place, `${name} is a number`, scalar);
    return value;
  }

  numbers(name: string): number[] {
    return this.#take(name).map((field) => {
      const scalar = scalarOf(field);
      const value = scalar.kind === 'string' ? Number.NaN : numberOf(scalar.text);
      if (Number.isNaN(value)) throw wrong(scalar.place, `${name} is a list of numbers`, scalar);
      return value;
    });
  }

  bools(name: string): boolean[] {
    return this.#take(name).map((field) => {
      const scalar = scalarOf(field);
      const value = scalar.kind === 'string' ? undefined : booleanWords.get(scalar.text);
      if (value === undefined) throw wrong(scalar.place, `${name} is a list of true and false`, scalar);
      return value;
    });
  }

  /** One of an enum's values, by its name or its number. */
  choice<Value>(
    name: string,
    values: ReadonlyMap<string, Value>,
    numbers: ReadonlyMap<number, Value>,
  ): Value | undefined {
    const scalar = this.#scalar(name);
    if (scalar === undefined) return undefined;
    const value =
      scalar.kind === 'string'
        ? undefined
        : (values.get(scalar.text) ?? (/^[0-9]+$/.test(scalar.text) ? numbers.get(Number(scalar.text)) : undefined));
    if (value === undefined) throw wrong(scalar.place, `${name} is one of ${[...values.keys()].join(', ')}`, scalar);
    return value;
  }

  message(name: string): FieldReader | undefined {
    const fields = this.#take(name);
    const [first, second] = fields;
    if (second !== undefined) throw twice(second, this.what);
    return first === undefined ? undefined : this.#reader(first);
  }

  messages(name: string): FieldReader[] {
    return this.#take(name).map((field) => this.#reader(field));
  }

  /** The entries of a map whose values are messages, by key. */
  messageMap(name: string): Map<string, FieldReader> {
    const map = new Map<string, FieldReader>();
    for (const entry of this.messages(name)) {
      const key = entry.#key();
      map.set(
        key,
        entry.message('value') ?? new FieldReader({ kind: 'message', fields: [], place: entry.place }, name, []),
      );
      entry.finish();
    }
    return map;
  }

  /** The entries of a map whose values are texts, by key. */
  stringMap(name: string): Map<string, string> {
    const map = new Map<string, string>();
    for (const entry of this.messages(name)) {
      map.set(entry.#key(), entry.string('value') ?? '');
      entry.finish();
    }
    return map;
  }

  /** Fields of Triton's that mean nothing here: read over, and said in a note. */
  ignore(why: string, ...names: readonly string[]): void {
    for (const name of names) {
      const [first] = this.#take(name);
      // What says nothing, as in a configuration that a server wrote out, needs no note.
      if (first === undefined || (first.value.kind !== 'message' && ['', 'false'].includes(first.value.text))) continue;
      this.#notes.push(`${this.placeOf(name)}: ${name} is ignored: ${why}`);
    }
  }

  /** Fields that only have a meaning here when they are false or empty. */
  refuse(why: string, ...names: readonly string[]): void {
    for (const name of names) {
      for (const { value, place } of this.#take(name)) {
        if (value.kind !== 'message' && value.text === 'false') continue;
        throw intarsiaError('MODEL_INVALID', `${place}: ${name} is not supported: ${why}`, { place, field: name });
      }
    }
  }

  /** @throws MODEL_INVALID when a field was not read. Call it last. */
  finish(): void {
    for (const [name, fields] of this.#fields) {
      if (this.#read.has(name)) continue;
      const place = fields[0]?.place ?? this.place;
      throw intarsiaError(
        'MODEL_INVALID',
        `${place}: unknown field ${JSON.stringify(name.slice(0, 80))} in ${this.what}`,
        {
          place,
          field: name.slice(0, 80),
        },
      );
    }
  }

  #key(): string {
    const scalar = this.#scalar('key');
    if (scalar === undefined) return '';
    return scalar.text;
  }

  #reader(field: TextField): FieldReader {
    if (field.value.kind !== 'message') throw wrong(field.value.place, `${field.name} is a message`, field.value);
    return new FieldReader(field.value, field.name, this.#notes);
  }

  #scalar(name: string): TextScalar | undefined {
    const [first, second] = this.#take(name);
    if (second !== undefined) throw twice(second, this.what);
    return first === undefined ? undefined : scalarOf(first);
  }

  #take(name: string): readonly TextField[] {
    this.#read.add(name);
    return this.#fields.get(name) ?? [];
  }
}

const booleanWords: ReadonlyMap<string, boolean> = new Map([
  ['true', true],
  ['True', true],
  ['t', true],
  ['1', true],
  ['false', false],
  ['False', false],
  ['f', false],
  ['0', false],
]);

function scalarOf({ name, value }: TextField): TextScalar {
  if (value.kind === 'message') {
    throw intarsiaError('MODEL_INVALID', `${value.place}: ${name} is a single value, not a message`, { field: name });
  }
  return value;
}

function stringOf(name: string, scalar: TextScalar): string {
  if (scalar.kind !== 'string' && scalar.kind !== 'loose')
    throw wrong(scalar.place, `${name} is a quoted text`, scalar);
  return scalar.text;
}

function integerOf(name: string, scalar: TextScalar, range: { readonly min: number; readonly max: number }): number {
  const value = scalar.kind === 'string' ? Number.NaN : wholeNumberOf(scalar.text);
  if (!(value >= range.min && value <= range.max)) {
    throw wrong(scalar.place, `${name} is a whole number from ${range.min} to ${range.max}`, scalar);
  }
  return value;
}

/** Decimal, hexadecimal (0x1f) or octal (017), as the text format has them; NaN for anything else. */
function wholeNumberOf(text: string): number {
  const [, sign, digits] = /^(-?)(0[xX][0-9a-fA-F]+|[0-9]+)$/.exec(text) ?? [];
  if (digits === undefined) return Number.NaN;
  const magnitude = /^0[0-9]+$/.test(digits)
    ? /^[0-7]+$/.test(digits)
      ? Number.parseInt(digits, 8)
      : Number.NaN
    : Number(digits);
  if (!Number.isSafeInteger(magnitude)) return Number.NaN;
  return sign === '-' && magnitude !== 0 ? -magnitude : magnitude;
}

function numberOf(text: string): number {
  const infinity = /^(-?)inf(inity)?$/i.exec(text);
  if (infinity !== null) return infinity[1] === '-' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  const whole = wholeNumberOf(text);
  if (!Number.isNaN(whole)) return whole;
  return /^-?[0-9.]/.test(text) ? Number(text.replace(/[fF]$/, '')) : Number.NaN;
}

function wrong(place: Place, wanted: string, found: TextScalar): Error {
  const shown =
    found.kind === 'string' || found.kind === 'loose'
      ? JSON.stringify(found.text.slice(0, 60))
      : found.text.slice(0, 60);
  return intarsiaError('MODEL_INVALID', `${place}: ${wanted}; found ${shown}`, { place });
}

function twice({ name, place }: TextField, what: string): Error {
  return intarsiaError('MODEL_INVALID', `${place}: ${name} appears a second time in ${what}`, { place, field: name });
}
