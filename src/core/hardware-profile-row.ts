/** How a built-in profile is written down: one short object a row, completed and frozen here. */
import type {
  HardwareProfile,
  MeasuredFigure,
  ProfileBenchmark,
  ProfileFigure,
  ProfileFigureName,
  ProfileSource,
} from './hardware-profile.js';

/** Month in which the built-in figures were checked. */
export const builtInVersion = '2026-08';

/** A figure as written: a number with the row's sources, or its own sources, range and note. */
export type WrittenFigure =
  | number
  | {
      readonly value?: number;
      readonly range?: readonly [number, number];
      readonly from?: string;
      readonly note?: string;
    };

export interface WrittenProfile {
  readonly key: string;
  readonly name: string;
  readonly vendor: string;
  readonly kind: HardwareProfile['kind'];
  /** Sources of the row, letters separated by spaces; figures without their own take those that are not prices or benchmarks. */
  readonly from: string;
  readonly figures: { readonly [Name in ProfileFigureName]?: WrittenFigure };
  readonly measured?: readonly (readonly [ProfileBenchmark, number, string, string?])[];
  readonly otherPrices?: readonly (readonly [number, string, string])[];
  readonly matches?: readonly string[];
  readonly logicalCores?: number;
  readonly isClass?: boolean;
  readonly note?: string;
}

const priceSources: ReadonlySet<string> = new Set(['P', 'L', 'U', 'G']);
const benchmarkSources: ReadonlySet<string> = new Set(['2', '4', '5']);

/** The complete profile of a written row. */
export function profileOfRow(row: WrittenProfile): HardwareProfile {
  const letters = sourcesOf(row.from);
  const technical = letters.filter((letter) => !priceSources.has(letter) && !benchmarkSources.has(letter));
  const prices = letters.filter((letter) => priceSources.has(letter));
  const figures: { [Name in ProfileFigureName]?: ProfileFigure } = {};
  for (const [name, written] of Object.entries(row.figures) as [ProfileFigureName, WrittenFigure][]) {
    const own = name.startsWith('usd') ? prices : technical;
    figures[name] = figureOf(written, own.length > 0 ? own : letters);
  }
  return Object.freeze({
    key: row.key,
    name: row.name,
    vendor: row.vendor,
    kind: row.kind,
    version: builtInVersion,
    figures: Object.freeze(figures),
    measured: Object.freeze((row.measured ?? []).map(measuredOf)),
    stated: Object.freeze([]),
    otherPrices: Object.freeze(
      (row.otherPrices ?? []).map(([usdPerHour, from, note]) => ({ usdPerHour, sources: sourcesOf(from), note })),
    ),
    matches: Object.freeze([...(row.matches ?? [])]),
    ...(row.logicalCores === undefined ? {} : { logicalCores: row.logicalCores }),
    isClass: row.isClass ?? false,
    note: row.note ?? '',
  });
}

function figureOf(written: WrittenFigure, sources: readonly ProfileSource[]): ProfileFigure {
  if (typeof written === 'number') return Object.freeze({ value: written, sources });
  const { range, note } = written;
  return Object.freeze({
    value: written.value ?? (range === undefined ? 0 : (range[0] + range[1]) / 2),
    ...(range === undefined ? {} : { low: range[0], high: range[1] }),
    sources: written.from === undefined ? sources : sourcesOf(written.from),
    ...(note === undefined ? {} : { note }),
  });
}

function measuredOf([benchmark, value, from, note]: readonly [
  ProfileBenchmark,
  number,
  string,
  string?,
]): MeasuredFigure {
  return Object.freeze({ benchmark, value, sources: sourcesOf(from), ...(note === undefined ? {} : { note }) });
}

function sourcesOf(letters: string): readonly ProfileSource[] {
  return Object.freeze(letters.split(' ') as ProfileSource[]);
}
