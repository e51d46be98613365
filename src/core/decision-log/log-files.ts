/**
 * Names of a log's files. A run of a gateway writes numbered slices, a file for each table that has rows; small ones are
 * joined later into one file that bears the numbers of the first and the last. A file whose numbers another one covers is
 * left over from a joining that a crash interrupted: it is passed over.
 *
 *     decisions-0mk3x1c2a0_h1_4711-00000001-00000120.parquet
 */
import { logTables, type LogTable } from './log-tables.js';

export interface LogFile {
  readonly name: string;
  readonly table: LogTable;
  readonly run: string;
  /** Slices it holds, both included. */
  readonly first: number;
  readonly last: number;
}

const timeDigits = 9;
const numberDigits = 8;

/** Name of a run: begins with its time, so that names sort by age. */
export function runName(host: string, startWallMs: number, process: number): string {
  const plain = host.replaceAll(/[^A-Za-z0-9.]/gu, '.');
  return `${Math.floor(startWallMs).toString(36).padStart(timeDigits, '0')}_${plain}_${process}`;
}

/** When a run began, ms since 1970. */
export function runStartMs(run: string): number {
  return Number.parseInt(run.slice(0, timeDigits), 36);
}

export function logFileName({ table, run, first, last }: Omit<LogFile, 'name'>): string {
  const digits = (number: number): string => String(number).padStart(numberDigits, '0');
  return `${table}-${run}-${digits(first)}-${digits(last)}.parquet`;
}

/** Undefined for a file that is none of the log's. */
export function parseLogFileName(name: string): LogFile | undefined {
  const [, table, run, first, last] =
    /^([a-z]+)-([0-9a-z]{9}_[A-Za-z0-9.]*_\d+)-(\d{8,})-(\d{8,})\.parquet$/u.exec(name) ?? [];
  const known = logTables.find((each) => each === table);
  if (known === undefined || run === undefined) return undefined;
  return { name, table: known, run, first: Number(first), last: Number(last) };
}

/** The log's files among names, oldest first, without those that others cover. */
export function currentLogFiles(names: Iterable<string>): readonly LogFile[] {
  const files: LogFile[] = [];
  for (const name of names) {
    const file = parseLogFileName(name);
    if (file !== undefined) files.push(file);
  }
  files.sort(byAge);
  const kept: LogFile[] = [];
  for (const file of files) {
    const before = kept.at(-1);
    if (before?.table === file.table && before.run === file.run && file.last <= before.last) continue;
    kept.push(file);
  }
  return kept;
}

function byAge(one: LogFile, other: LogFile): number {
  return (
    compare(one.table, other.table) || compare(one.run, other.run) || one.first - other.first || other.last - one.last
  );
}

function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}
