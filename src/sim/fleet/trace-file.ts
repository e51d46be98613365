/**
 * Traces of requests as text, to rows: the Azure LLM inference trace of 2023 (CSV), Mooncake's traces (JSON lines), a plain
 * CSV of our own. A row that is unsorted, negative or lacks a field is refused with its line: a trace that was repaired
 * silently is another trace.
 *
 *     at_ms,model,class,items                  plain CSV; all but at_ms may be left out
 *     at_ms,context_tokens,generated_tokens
 */
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import { sloClasses } from '#core/scheduling/slo-class.js';

export interface TraceRow {
  /** In the file, from 1. */
  readonly line: number;
  /** Milliseconds since some moment; ascending. */
  readonly atMs: number;
  readonly model?: string;
  /** Index of the class. */
  readonly sloClass?: number;
  readonly items?: number;
  readonly contextTokens?: number;
  readonly generatedTokens?: number;
}

export type TraceFormat = 'azure' | 'mooncake' | 'csv';

const rowsMax = 50_000_000;
const tokensMax = 1e9;

/** Rows of a trace; the format is told by the first line. @throws INVALID_ARGUMENT naming the file and the line. */
export function readTrace(text: string, fileName: string): readonly TraceRow[] {
  const lines = text.split(/\r?\n/);
  while (lines.at(-1) === '') lines.pop();
  const [head] = lines;
  if (head === undefined || lines.length > rowsMax) {
    throw intarsiaError('INVALID_ARGUMENT', `${fileName}: a trace has 1 to ${rowsMax} lines; it has ${lines.length}`);
  }
  const columns = head
    .replace(/^\uFEFF/, '')
    .split(',')
    .map((name) => name.trim());
  const format = formatOf(head, columns);
  if (format === undefined) {
    throw wrong(
      { fileName, line: 1 },
      'TIMESTAMP,ContextTokens,GeneratedTokens; or at_ms and optional model, class, items, context_tokens, generated_tokens; or JSON lines',
      head,
    );
  }
  const rows: TraceRow[] = [];
  let lastMs = -Infinity;
  for (let index = format === 'mooncake' ? 0 : 1; index < lines.length; index += 1) {
    const at: Where = { fileName, line: index + 1 };
    const line = lines[index] as string;
    const row =
      format === 'mooncake'
        ? mooncakeRow(at, line)
        : format === 'azure'
          ? azureRow(at, line)
          : csvRow(at, line, columns);
    if (row.atMs < lastMs) throw wrong(at, `a time not before the row above, ${lastMs} ms`, `${row.atMs} ms`);
    lastMs = row.atMs;
    rows.push(row);
  }
  if (rows.length === 0) throw wrong({ fileName, line: 1 }, 'at least one row', head);
  return rows;
}

const plainColumns = ['at_ms', 'model', 'class', 'items', 'context_tokens', 'generated_tokens'];

function formatOf(head: string, columns: readonly string[]): TraceFormat | undefined {
  if (head.startsWith('{')) return 'mooncake';
  if (columns.join(',') === 'TIMESTAMP,ContextTokens,GeneratedTokens') return 'azure';
  return columns.includes('at_ms') && columns.every((name) => plainColumns.includes(name)) ? 'csv' : undefined;
}

interface Where {
  readonly fileName: string;
  readonly line: number;
}

function azureRow(at: Where, line: string): TraceRow {
  const [time = '', context = '', generated = ''] = cells(at, line, 3);
  return {
    line: at.line,
    atMs: dateMs(at, time),
    contextTokens: count(at, 'ContextTokens', context),
    generatedTokens: count(at, 'GeneratedTokens', generated),
  };
}

/** `2023-11-16 18:15:46.6805900`, with 100 ns digits, in ms. */
function dateMs(at: Where, text: string): number {
  const match = /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d{1,9})?$/.exec(text);
  const second = match === null ? Number.NaN : Date.parse(`${match[1]}T${match[2]}Z`);
  if (Number.isNaN(second)) throw wrong(at, 'a TIMESTAMP such as 2023-11-16 18:15:46.6805900', text);
  return second + Number(match?.[3] ?? 0) * 1000;
}

function mooncakeRow(at: Where, line: string): TraceRow {
  let row: unknown;
  try {
    row = JSON.parse(line);
  } catch {
    throw wrong(at, 'an object of JSON', line);
  }
  const field = (name: string): string => {
    const value = (row as Record<string, unknown> | null)?.[name];
    if (typeof value !== 'number') throw wrong(at, `a number ${name}`, value);
    return String(value);
  };
  return {
    line: at.line,
    atMs: moment(at, 'timestamp', field('timestamp')),
    contextTokens: count(at, 'input_length', field('input_length')),
    generatedTokens: count(at, 'output_length', field('output_length')),
  };
}

function csvRow(at: Where, line: string, columns: readonly string[]): TraceRow {
  const values = cells(at, line, columns.length);
  const of = (name: string): string | undefined => {
    const index = columns.indexOf(name);
    return index < 0 ? undefined : values[index];
  };
  const model = of('model');
  const sloClass = of('class');
  const items = of('items');
  const context = of('context_tokens');
  const generated = of('generated_tokens');
  if (model === '') throw wrong(at, 'a model', model);
  if (items === '0') throw wrong(at, 'items of 1 or more', items);
  return {
    line: at.line,
    atMs: moment(at, 'at_ms', of('at_ms') ?? ''),
    ...(model === undefined ? {} : { model }),
    ...(sloClass === undefined ? {} : { sloClass: classIndex(at, sloClass) }),
    ...(items === undefined ? {} : { items: count(at, 'items', items) }),
    ...(context === undefined ? {} : { contextTokens: count(at, 'context_tokens', context) }),
    ...(generated === undefined ? {} : { generatedTokens: count(at, 'generated_tokens', generated) }),
  };
}

function cells(at: Where, line: string, wanted: number): readonly string[] {
  const values = line.split(',').map((value) => value.trim());
  if (values.length !== wanted) throw wrong(at, `${wanted} fields`, `${values.length}: ${line}`);
  return values;
}

function classIndex(at: Where, text: string): number {
  const index = (sloClasses as readonly string[]).indexOf(text);
  if (index < 0) throw wrong(at, `a class: ${sloClasses.join(', ')}`, text);
  return index;
}

function moment(at: Where, name: string, text: string): number {
  const value = text === '' ? Number.NaN : Number(text);
  if (!(value >= 0 && value < 1e15)) throw wrong(at, `${name}: milliseconds of 0 or more`, text);
  return value;
}

function count(at: Where, name: string, text: string): number {
  const value = text === '' ? Number.NaN : Number(text);
  if (!(Number.isInteger(value) && value >= 0 && value <= tokensMax)) {
    throw wrong(at, `${name}: a whole number from 0 to ${tokensMax}`, text);
  }
  return value;
}

function wrong(at: Where, wanted: string, value: unknown): IntarsiaError {
  const shown = (JSON.stringify(value) as string | undefined)?.slice(0, 80) ?? 'nothing';
  return intarsiaError('INVALID_ARGUMENT', `${at.fileName}, line ${at.line}: expected ${wanted}; found ${shown}`, {
    file: at.fileName,
    line: at.line,
  });
}
