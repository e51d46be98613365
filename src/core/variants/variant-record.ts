/**
 * What stands beside a variant's file, in `variant.json`: what it is, what it was made from, how near it comes on each
 * kind of device, and how fast it was there. A registry believes nothing else about a variant, and nothing in a record
 * that names other files.
 *
 * A foreign artefact (a TensorRT plan, an OpenVINO model) is a record without a model file here: the server of a remote
 * device holds it under a name of its own, and the record binds it to that device with an accuracy row.
 */
import { intarsiaError } from '../errors.js';
import { executionProviders, type ExecutionProvider } from '../provider.js';

export const variantKinds = ['fp16', 'int8', 'fixed', 'ort', 'foreign'] as const;
export type VariantKind = (typeof variantKinds)[number];

/** How a variant did on one kind of device. */
export interface VariantRow {
  readonly provider: ExecutionProvider;
  /** Such as `onnxruntime-node 1.30.0`. */
  readonly engine: string;
  readonly verdict: 'equal' | 'different' | 'fails';
  /** Why it is not equal; empty otherwise. */
  readonly reason: string;
  readonly maxAbsoluteError: number;
  readonly maxRelativeError: number;
  /** Largest difference by the largest magnitude of its output. */
  readonly errorShare: number;
  /** Share of rows of scores with the largest in the same place. */
  readonly argMaxAgreement: number;
  readonly cosine: number;
  /** Median milliseconds of a run of the first vector, and of the exact model's; absent when it did not run. */
  readonly runMs?: number;
  readonly exactRunMs?: number;
}

export interface VariantRecord {
  readonly kind: VariantKind;
  /** SHA-256 of the variant's model file; of a foreign artefact whatever its maker gives, or empty. */
  readonly digest: string;
  readonly bytes: number;
  /** The model it was made from. */
  readonly madeFrom: { readonly digest: string; readonly bytes: number };
  /** Largest error that passes, in the unit of its kind: see docs/variants.md. */
  readonly tolerance: number;
  readonly vectors: readonly string[];
  readonly rows: readonly VariantRow[];
  readonly notes: readonly string[];
  /** Of `fixed`: the only sizes it takes. */
  readonly shapes?: Readonly<Record<string, readonly number[]>>;
  /** Of `ort`: the engine and processor that it is for. */
  readonly boundTo?: { readonly engine: string; readonly processor: string };
  /** Of `foreign`: where it runs. */
  readonly remote?: {
    readonly device: string;
    readonly format: string;
    readonly model: string;
    readonly version: string;
  };
}

/** What the comparison on that kind of device gave, in one line; empty when there is no row. */
export function variantGateText({ rows, tolerance }: VariantRecord, provider: string): string {
  const row = rows.find((each) => each.provider === provider && each.verdict === 'equal') ?? rows[0];
  if (row === undefined) return '';
  const { verdict, errorShare, runMs, exactRunMs } = row;
  const error = `largest error ${errorShare.toPrecision(3)} of its output's largest value (${tolerance.toPrecision(3)} passes)`;
  const times =
    runMs === undefined || exactRunMs === undefined
      ? ''
      : `; ${runMs.toPrecision(3)} ms, the exact model ${exactRunMs.toPrecision(3)} ms`;
  return `${verdict === 'equal' ? 'within tolerance' : verdict} on ${row.provider}: ${error}${times}`;
}

const digestPattern = /^[0-9a-f]{64}$/;
const textMax = 10_000;
const listMax = 1_000;

/**
 * Reads a record. @param what Names the file in messages.
 * @throws MODEL_INVALID naming the field, what it has to be, and what it is.
 */
export function parseVariantRecord(text: string, what: string): VariantRecord {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (thrown) {
    throw intarsiaError('MODEL_INVALID', `${what} is no JSON`, {}, thrown);
  }
  const record = new Fields(value, what);
  const kind = record.oneOf('kind', variantKinds);
  const isForeign = kind === 'foreign';
  const from = record.fields('madeFrom');
  const rows = record.list('rows').map((row, index) => readRow(new Fields(row, `${what}: rows[${index}]`)));
  if (rows.length === 0) throw invalid(`${what}: rows is empty: a variant needs an accuracy row`);
  const shapes = kind === 'fixed' ? readShapes(record.fields('shapes')) : undefined;
  const bound = kind === 'ort' ? record.fields('boundTo') : undefined;
  const remote = isForeign ? record.fields('remote') : undefined;
  if (isForeign && rows.some(({ provider }) => provider !== 'remote')) {
    throw invalid(`${what}: a foreign artefact runs on a remote device; its rows must have the provider remote`);
  }
  return {
    kind,
    digest: isForeign ? record.text('digest') : record.digest('digest'),
    bytes: record.number('bytes', 0),
    madeFrom: { digest: from.digest('digest'), bytes: from.number('bytes', 0) },
    tolerance: record.number('tolerance', 0),
    vectors: record.texts('vectors'),
    rows,
    notes: record.texts('notes'),
    ...(shapes === undefined ? {} : { shapes }),
    ...(bound === undefined ? {} : { boundTo: { engine: bound.name('engine'), processor: bound.name('processor') } }),
    ...(remote === undefined
      ? {}
      : {
          remote: {
            device: remote.name('device'),
            format: remote.name('format'),
            model: remote.name('model'),
            version: remote.text('version'),
          },
        }),
  };
}

function readRow(row: Fields): VariantRow {
  const verdict = row.oneOf('verdict', ['equal', 'different', 'fails'] as const);
  const runMs = row.optionalNumber('runMs');
  const exactRunMs = row.optionalNumber('exactRunMs');
  // What fails has no errors: JSON has no infinity either.
  const error = (name: string): number => (row.has(name) || verdict === 'equal' ? row.number(name, 0) : Infinity);
  return {
    provider: row.oneOf('provider', executionProviders),
    engine: row.text('engine'),
    verdict,
    reason: row.text('reason'),
    maxAbsoluteError: error('maxAbsoluteError'),
    maxRelativeError: error('maxRelativeError'),
    errorShare: error('errorShare'),
    argMaxAgreement: row.number('argMaxAgreement', 0, 1),
    cosine: row.number('cosine', -1, 1),
    ...(runMs === undefined ? {} : { runMs }),
    ...(exactRunMs === undefined ? {} : { exactRunMs }),
  };
}

function readShapes(fields: Fields): Readonly<Record<string, readonly number[]>> {
  return Object.fromEntries(
    fields.names().map((name) => [
      name,
      fields.list(name).map((size) => {
        if (Number.isSafeInteger(size) && (size as number) > 0) return size as number;
        throw invalid(`${fields.what}.${name}: a size is ${show(size)}; it must be a whole number above 0`);
      }),
    ]),
  );
}

/** One object of the record, read field by field. */
class Fields {
  readonly what: string;
  readonly #value: Readonly<Record<string, unknown>>;

  constructor(value: unknown, what: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw invalid(`${what} is ${show(value)}; it must be an object`);
    }
    this.what = what;
    this.#value = value as Readonly<Record<string, unknown>>;
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#value, name) && this.#value[name] !== null;
  }

  names(): readonly string[] {
    return Object.keys(this.#value);
  }

  fields(name: string): Fields {
    return new Fields(this.#own(name), `${this.what}.${name}`);
  }

  text(name: string): string {
    const value = this.#own(name);
    if (typeof value === 'string' && value.length <= textMax) return value;
    throw this.#wrong(name, value, `a text of at most ${textMax} characters`);
  }

  /** A text that says something. */
  name(name: string): string {
    const value = this.text(name);
    if (value === '') throw this.#wrong(name, value, 'a text that is not empty');
    return value;
  }

  digest(name: string): string {
    const value = this.#own(name);
    if (typeof value === 'string' && digestPattern.test(value)) return value;
    throw this.#wrong(name, value, 'a SHA-256 of 64 hexadecimal digits');
  }

  number(name: string, least: number, most = Infinity): number {
    const value = this.#own(name);
    if (typeof value === 'number' && value >= least && value <= most) return value;
    throw this.#wrong(name, value, `a number from ${least}${most === Infinity ? '' : ` to ${most}`}`);
  }

  optionalNumber(name: string): number | undefined {
    return this.has(name) ? this.number(name, 0) : undefined;
  }

  oneOf<Choice extends string>(name: string, choices: readonly Choice[]): Choice {
    const value = this.#own(name);
    const found = choices.find((choice) => choice === value);
    if (found !== undefined) return found;
    throw this.#wrong(name, value, `one of ${choices.join(', ')}`);
  }

  list(name: string): readonly unknown[] {
    const value = this.#own(name);
    if (Array.isArray(value) && value.length <= listMax) return value;
    throw this.#wrong(name, value, `a list of at most ${listMax}`);
  }

  texts(name: string): readonly string[] {
    return this.list(name).map((value) => {
      if (typeof value === 'string' && value.length <= textMax) return value;
      throw this.#wrong(name, value, 'a list of texts');
    });
  }

  #own(name: string): unknown {
    return Object.hasOwn(this.#value, name) ? this.#value[name] : undefined;
  }

  #wrong(name: string, value: unknown, wanted: string): Error {
    return invalid(`${this.what}: ${name} is ${show(value)}; it must be ${wanted}`);
  }
}

function show(value: unknown): string {
  return value === undefined ? 'missing' : JSON.stringify(value).slice(0, 120);
}

function invalid(problem: string): Error {
  return intarsiaError('MODEL_INVALID', problem);
}
