/** One map of a fleet file: reads its fields with their ranges, and says where it is when something is wrong. */
import { intarsiaError, type IntarsiaError } from '#core/errors.js';

type Row = Readonly<Record<string, unknown>>;

export class FleetFile {
  /** Words for where we are, such as `model resnet50`. */
  readonly place: string;
  readonly #file: string;
  readonly #row: Row;

  /** @throws CONFIG_INVALID when it is no map, or has a field that is not among `known`. */
  constructor(file: string, place: string, row: unknown, known?: readonly string[]) {
    this.#file = file;
    this.place = place;
    this.#row = isRow(row) ? row : {};
    if (!isRow(row)) throw this.wrong('', 'a map of fields', row);
    for (const field of Object.keys(row)) {
      if (known !== undefined && !known.includes(field)) {
        throw this.wrong(field, `no such field; known are ${known.join(', ')}`, row[field]);
      }
    }
  }

  fields(): readonly string[] {
    return Object.keys(this.#row);
  }

  /** Without a default the field must be there. */
  text(field: string, fallback?: string): string {
    const value = this.#row[field] ?? fallback;
    if (typeof value !== 'string' || (value === '' && fallback === undefined)) throw this.wrong(field, 'a text', value);
    return value;
  }

  number(field: string, min: number, max: number, fallback?: number): number {
    const value = this.#row[field] ?? fallback;
    if (typeof value !== 'number' || !(value >= min && value <= max)) {
      throw this.wrong(field, `a number from ${min} to ${max}`, value);
    }
    return value;
  }

  whole(field: string, min: number, max: number, fallback?: number): number {
    const value = this.number(field, min, max, fallback);
    if (!Number.isInteger(value)) throw this.wrong(field, 'a whole number', value);
    return value;
  }

  flag(field: string, fallback: boolean): boolean {
    const value = this.#row[field] ?? fallback;
    if (typeof value !== 'boolean') throw this.wrong(field, 'true or false', value);
    return value;
  }

  oneOf<Word extends string, Fallback extends Word | undefined>(
    field: string,
    words: readonly Word[],
    fallback: Fallback,
  ): Word | Fallback {
    const value = this.#row[field];
    if (value === undefined) return fallback;
    const found = words.find((word) => word === value);
    if (found === undefined) throw this.wrong(field, `one of ${words.join(', ')}`, value);
    return found;
  }

  names(field: string): readonly string[] | undefined {
    const value = this.#row[field];
    if (value === undefined) return undefined;
    if (!Array.isArray(value) || !value.every((each) => typeof each === 'string')) {
      throw this.wrong(field, 'a list of names', value);
    }
    return value;
  }

  list(field: string, min: number, max: number): readonly unknown[] {
    const value = this.#row[field];
    if (!Array.isArray(value) || value.length < min || value.length > max) {
      throw this.wrong(field, `a list of ${min} to ${max}`, Array.isArray(value) ? value.length : value);
    }
    return value;
  }

  /** Undefined when it is absent. */
  record(field: string, known?: readonly string[]): FleetFile | undefined {
    const value = this.#row[field];
    if (value === undefined) return undefined;
    return new FleetFile(this.#file, this.place === '' ? field : `${this.place}, ${field}`, value, known);
  }

  wrong(field: string, wanted: string, value: unknown): IntarsiaError {
    const where = [this.place, field === '' ? '' : `field ${field}`].filter((part) => part !== '').join(', ');
    const shown = (JSON.stringify(value) as string | undefined)?.slice(0, 80) ?? 'nothing';
    return intarsiaError(
      'CONFIG_INVALID',
      `${this.#file}: ${where === '' ? '' : `${where}: `}expected ${wanted}; found ${shown}`,
      {
        file: this.#file,
        place: this.place,
        field,
      },
    );
  }
}

function isRow(value: unknown): value is Row {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
