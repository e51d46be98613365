/**
 * The operator's profiles file, already read as plain data: profiles to add, figures and prices to override.
 *
 *     profiles:
 *       nvidia-l4:            # a built-in key: what is given replaces the built-in figure
 *         usdPerHour: 0.55
 *         origin: contract 4711
 *       acme-npu:             # a new key: name, vendor, kind and matches are needed
 *         name: ACME NPU
 *         vendor: ACME
 *         kind: npu
 *         matches: [acme npu]
 *         memoryGiB: 16
 *         tdpWatts: 25
 */
import { intarsiaError } from './errors.js';
import { profileFigureNames } from './hardware-profile.js';
import type { HardwareProfile, ProfileBook, ProfileFigure, ProfileFigureName } from './hardware-profile.js';

const kinds = ['cpu', 'gpu', 'npu'] as const;
const textFields = ['name', 'vendor', 'kind', 'version', 'origin', 'note'] as const;
const keyPattern = /^[a-z0-9][a-z0-9.+-]{0,63}$/;
const profilesMax = 10_000;
const figureMax = 1e9;

/** A book with the file's profiles added to it. @throws CONFIG_INVALID naming the row and the field. */
export function addProfilesOfFile(book: ProfileBook, data: unknown, fileName: string): ProfileBook {
  const at = new Place(fileName);
  if (!isRecord(data) || !isRecord(data['profiles']))
    throw at.wrong('', 'an object with `profiles:`, a map from key to profile', data);
  for (const name of Object.keys(data))
    if (name !== 'profiles') throw at.wrong(name, 'no such field; only `profiles` is known', data[name]);
  const rows = Object.entries(data['profiles']);
  if (rows.length > profilesMax) throw at.wrong('profiles', `at most ${profilesMax} profiles`, rows.length);
  const extended = new Map(book);
  for (const [key, row] of rows) {
    const place = new Place(fileName, key);
    if (!keyPattern.test(key)) throw place.wrong('', 'a key of at most 64 lower-case letters, digits, . + -', key);
    if (!isRecord(row)) throw place.wrong('', 'a map of fields', row);
    extended.set(key, profileOf(key, row, book.get(key), place));
  }
  return extended;
}

function profileOf(
  key: string,
  row: Readonly<Record<string, unknown>>,
  known: HardwareProfile | undefined,
  at: Place,
): HardwareProfile {
  const allowed = new Set<string>([...textFields, ...profileFigureNames, 'matches', 'logicalCores']);
  for (const field of Object.keys(row)) {
    if (!allowed.has(field)) throw at.wrong(field, `no such field; known are ${[...allowed].join(', ')}`, row[field]);
  }
  const text = (field: (typeof textFields)[number], fallback: string | undefined): string => {
    const value = row[field] ?? fallback;
    if (typeof value !== 'string' || value === '') throw at.wrong(field, 'a text (a new profile needs it)', value);
    return value;
  };
  const kind = text('kind', known?.kind);
  if (!isKind(kind)) throw at.wrong('kind', `one of ${kinds.join(', ')}`, kind);
  const version = text('version', known?.version ?? 'unknown');
  const figures: { [Name in ProfileFigureName]?: ProfileFigure } = { ...known?.figures };
  const origin = row['origin'] === undefined ? {} : { note: text('origin', undefined) };
  for (const name of profileFigureNames) {
    if (row[name] === undefined) continue;
    const statedValue = known?.figures[name]?.statedValue;
    figures[name] = {
      value: positive(row[name], name, at),
      sources: ['file'],
      ...origin,
      ...(statedValue === undefined ? {} : { statedValue }),
    };
  }
  const logicalCores =
    row['logicalCores'] === undefined ? known?.logicalCores : positive(row['logicalCores'], 'logicalCores', at);
  return Object.freeze({
    key,
    name: text('name', known?.name),
    vendor: text('vendor', known?.vendor),
    kind,
    version,
    figures: Object.freeze(figures),
    measured: known?.measured ?? [],
    stated: known?.stated ?? [],
    otherPrices: known?.otherPrices ?? [],
    matches: row['matches'] === undefined ? (known?.matches ?? []) : wordsOf(row['matches'], at),
    ...(logicalCores === undefined ? {} : { logicalCores }),
    isClass: known?.isClass ?? false,
    note: row['note'] === undefined ? (known?.note ?? '') : text('note', undefined),
  });
}

function positive(value: unknown, field: string, at: Place): number {
  if (typeof value !== 'number' || !(value >= 0 && value <= figureMax)) {
    throw at.wrong(field, `a number from 0 to ${figureMax}`, value);
  }
  return value;
}

function wordsOf(value: unknown, at: Place): readonly string[] {
  if (!Array.isArray(value) || !value.every((one): one is string => typeof one === 'string' && one.trim() !== '')) {
    throw at.wrong('matches', 'a list of texts, each the words of a driver name', value);
  }
  return Object.freeze([...value]);
}

/** Where in the file we are, for messages. */
class Place {
  readonly #file: string;
  readonly #key: string;

  constructor(file: string, key = '') {
    this.#file = file;
    this.#key = key;
  }

  wrong(field: string, wanted: string, value: unknown): Error {
    const where = [this.#key === '' ? '' : `profile ${this.#key}`, field === '' ? '' : `field ${field}`]
      .filter((part) => part !== '')
      .join(', ');
    const shown = (JSON.stringify(value) as string | undefined)?.slice(0, 80) ?? 'nothing';
    return intarsiaError(
      'CONFIG_INVALID',
      `${this.#file}: ${where === '' ? '' : `${where}: `}expected ${wanted}; found ${shown}`,
      {
        file: this.#file,
        profile: this.#key,
        field,
      },
    );
  }
}

function isKind(text: string): text is (typeof kinds)[number] {
  return (kinds as readonly string[]).includes(text);
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
