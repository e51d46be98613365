/**
 * Reading plain data that was YAML or JSON, field by field. Every mistake names the file, its path in it, what is allowed
 * there and what was found.
 */
import { intarsiaError, messageOf } from '../errors.js';
import { GiB, KiB, MiB } from '../units.js';
import type { PlacementConstraints, Tier } from './records.js';

const listLengthMax = 1_000;
const memoryBytesMax = 2 ** 50;
const textLengthMax = 255;

export const tierNames = ['edge', 'regional', 'core'] as const satisfies readonly Tier[];
const spotNames = ['allowed', 'never', 'only'] as const;

/** Where in the file we are, for messages. */
export class Place {
  readonly #file: string;
  readonly #path: string;

  constructor(file: string, path: string) {
    this.#file = file;
    this.#path = path;
  }

  in(field: string | number): Place {
    if (typeof field === 'number') return new Place(this.#file, `${this.#path}[${field}]`);
    return new Place(this.#file, this.#path === '' ? field : `${this.#path}.${field}`);
  }

  wrong(wanted: string, value: unknown): Error {
    const shown = (JSON.stringify(value) as string | undefined)?.slice(0, 120) ?? 'nothing';
    return intarsiaError(
      'CONFIG_INVALID',
      `${this.#file}: ${this.#path === '' ? '' : `${this.#path}: `}expected ${wanted}; found ${shown}`,
      { file: this.#file, path: this.#path },
    );
  }
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function textOf(value: unknown, at: Place): string {
  if (typeof value !== 'string' || value === '' || value.length > textLengthMax) {
    throw at.wrong(`a text of 1 to ${textLengthMax} characters`, value);
  }
  return value;
}

export function wholeOf(value: unknown, at: Place, [least, most]: readonly [number, number]): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most) {
    throw at.wrong(`a whole number from ${least} to ${most}`, value);
  }
  return value;
}

export function oneOf<Name extends string>(value: unknown, names: readonly Name[], at: Place): Name {
  const found = names.find((name) => name === value);
  if (found === undefined) throw at.wrong(`one of ${names.join(', ')}`, value);
  return found;
}

export function listOf(value: unknown, at: Place, lengthMax: number): readonly unknown[] {
  if (!Array.isArray(value)) throw at.wrong('a list', value);
  if (value.length > lengthMax) throw at.wrong(`at most ${lengthMax} entries`, `${value.length} entries`);
  return value as readonly unknown[];
}

export function filledListOf(value: unknown, at: Place): readonly unknown[] {
  const list = listOf(value, at, listLengthMax);
  if (list.length === 0) throw at.wrong('at least one entry, or no such field', value);
  return list;
}

export function onlyFields(value: Readonly<Record<string, unknown>>, known: readonly string[], at: Place): void {
  for (const field of Object.keys(value)) {
    if (!known.includes(field)) throw at.in(field).wrong(`no such field; known are ${known.join(', ')}`, value[field]);
  }
}

export function checked<Value>(at: Place, text: string, check: (text: string) => Value): Value {
  try {
    return check(text);
  } catch (thrown) {
    throw at.wrong(messageOf(thrown), text);
  }
}

export function constraintsOf(value: unknown, at: Place): PlacementConstraints {
  if (value === undefined) return {};
  if (!isRecord(value)) throw at.wrong('a map of constraints', value);
  onlyFields(value, ['providers', 'tiers', 'zones', 'labels', 'hosts', 'devices', 'spot'], at);
  const texts = (field: 'providers' | 'zones' | 'hosts' | 'devices'): object => {
    if (value[field] === undefined) return {};
    const list = filledListOf(value[field], at.in(field));
    return { [field]: list.map((one, index) => textOf(one, at.in(field).in(index))) };
  };
  const tiers =
    value['tiers'] === undefined
      ? {}
      : {
          tiers: filledListOf(value['tiers'], at.in('tiers')).map((one, index) =>
            oneOf(one, tierNames, at.in('tiers').in(index)),
          ),
        };
  return {
    ...texts('providers'),
    ...tiers,
    ...texts('zones'),
    ...(value['labels'] === undefined ? {} : { labels: labelsOf(value['labels'], at.in('labels')) }),
    ...texts('hosts'),
    ...texts('devices'),
    ...(value['spot'] === undefined ? {} : { spot: oneOf(value['spot'], spotNames, at.in('spot')) }),
  };
}

function labelsOf(value: unknown, at: Place): Readonly<Record<string, string>> {
  if (!isRecord(value)) throw at.wrong('a map from label to text', value);
  const labels = Object.entries(value);
  if (labels.length > listLengthMax) throw at.wrong(`at most ${listLengthMax} labels`, `${labels.length} labels`);
  return Object.fromEntries(labels.map(([label, text]) => [label, textOf(text, at.in(label))]));
}

export function memoryOf(data: Readonly<Record<string, unknown>>, at: Place): number {
  const { memory, memoryBytes } = data;
  if (memory !== undefined && memoryBytes !== undefined) {
    throw at.wrong('at most one of memory and memoryBytes', 'both of them');
  }
  if (memoryBytes !== undefined) return wholeOf(memoryBytes, at.in('memoryBytes'), [0, memoryBytesMax]);
  if (memory === undefined) return 0;
  const match = typeof memory === 'string' ? /^([0-9]+(?:\.[0-9]+)?) ?(KiB|MiB|GiB)$/.exec(memory) : null;
  const bytes = match === null ? NaN : Math.ceil(Number(match[1]) * units[match[2] as keyof typeof units]);
  if (!(bytes <= memoryBytesMax))
    throw at.in('memory').wrong('a size such as 512 MiB or 1.5 GiB, at most 1048576 GiB', memory);
  return bytes;
}

const units = { KiB, MiB, GiB } as const;
