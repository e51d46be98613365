/**
 * Names of a log's files. A run of a gateway writes numbered slices into a journal; a journal that is closed bears the numbers
 * of its first and its last slice, and is made into a file for each table later. Tables whose numbers a journal covers are left over from a making
 * that a crash interrupted: they are passed over.
 *
 *     journal-0mk3x1c2a0_h1_4711-00000121-open.bin
 *     journal-0mk3x1c2a0_h1_4711-00000121-00000240.bin
 *     decisions-0mk3x1c2a0_h1_4711-00000001-00000120.parquet
 */
import { logTables, type LogTable } from './log-tables.js';

export interface LogFile {
  readonly name: string;
  readonly table: LogTable | 'journal';
  readonly run: string;
  /** Slices it holds, both included. The last of a journal that is written to is infinite. */
  readonly first: number;
  readonly last: number;
}

const timeDigits = 9;
const numberDigits = 8;
const open = 'open';

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
  const digits = (number: number): string => (number === Infinity ? open : String(number).padStart(numberDigits, '0'));
  return `${table}-${run}-${digits(first)}-${digits(last)}.${table === 'journal' ? 'bin' : 'parquet'}`;
}

/** Undefined for a file that is none of the log's. */
export function parseLogFileName(name: string): LogFile | undefined {
  const [, table, run, first, last, ending] =
    /^([a-z]+)-([0-9a-z]{9}_[A-Za-z0-9.]*_\d+)-(\d{8,})-(\d{8,}|open)\.(parquet|bin)$/u.exec(name) ?? [];
  const known = (['journal', ...logTables] as const).find((each) => each === table);
  if (known === undefined || run === undefined) return undefined;
  if ((known === 'journal') !== (ending === 'bin') || (last === open && known !== 'journal')) return undefined;
  return { name, table: known, run, first: Number(first), last: last === open ? Infinity : Number(last) };
}

/** The log's files among names, by run, oldest first, without those that others cover. */
export function currentLogFiles(names: Iterable<string>): readonly LogFile[] {
  const files: LogFile[] = [];
  for (const name of names) {
    const file = parseLogFileName(name);
    if (file !== undefined) files.push(file);
  }
  files.sort(byAge);
  const kept: LogFile[] = [];
  const covers = new Map<string, LogFile>();
  for (const file of files) {
    const isCovered = [file.table, 'journal'].some((by) => {
      const before = covers.get(`${by} ${file.run}`);
      return before !== undefined && file.last <= before.last;
    });
    if (isCovered) continue;
    covers.set(`${file.table} ${file.run}`, file);
    kept.push(file);
  }
  return kept;
}

/** Of files that begin with the same slice the longest comes first, and a journal before tables. */
function byAge(one: LogFile, other: LogFile): number {
  return (
    compare(one.run, other.run) ||
    one.first - other.first ||
    compare(other.last, one.last) ||
    Number(other.table === 'journal') - Number(one.table === 'journal') ||
    compare(one.table, other.table)
  );
}

function compare<Value extends string | number>(one: Value, other: Value): number {
  return one < other ? -1 : one > other ? 1 : 0;
}
