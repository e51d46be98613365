/**
 * Reads a decision log's folder as it stands, journals as well as tables, also while a gateway writes to it. Files that are
 * damaged, as a failing disk or a loss of power may leave them, are passed over and named; the rest is read.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { tablesOfJournal } from '#core/decision-log/joined-tables.js';
import { currentLogFiles, type LogFile } from '#core/decision-log/log-files.js';
import { readJournal } from '#core/decision-log/log-journal.js';
import type { LogTable } from '#core/decision-log/log-tables.js';
import { intarsiaError, messageOf } from '#core/errors.js';
import type { ParquetColumn } from '#core/parquet-column.js';
import { damageOf, readParquetFile } from './read-parquet.js';

export interface DamagedFile {
  readonly file: string;
  readonly reason: string;
}

export interface LogFolderFiles {
  /** Oldest first; journals are not looked into. */
  readonly files: readonly LogFile[];
  readonly damaged: readonly DamagedFile[];
}

/** Columns of a table over all files; a column that a file has not is undefined there. */
export interface LogRows {
  readonly rows: number;
  readonly columns: ReadonlyMap<string, readonly unknown[]>;
  readonly damaged: readonly DamagedFile[];
}

/** A log that is written meanwhile makes tables of its journals: it is looked at again as often. */
const triesMax = 4;

/** Files of the log. @throws NOT_FOUND when the folder cannot be read, or holds no log. */
export function logFilesOf(folder: string): readonly LogFile[] {
  let names: readonly string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    throw intarsiaError('NOT_FOUND', `decision log ${folder} cannot be read: ${messageOf(error)}`, { folder }, error);
  }
  const files = currentLogFiles(names);
  if (files.length > 0) return files;
  throw intarsiaError('NOT_FOUND', `${folder} holds no decision log: a host writes one with --decision-log ${folder}`, {
    folder,
  });
}

/** The files that are whole, and those that are not. @throws NOT_FOUND */
export function wholeLogFiles(folder: string): LogFolderFiles {
  const files: LogFile[] = [];
  const damaged: DamagedFile[] = [];
  for (const file of logFilesOf(folder)) {
    const reason = file.table === 'journal' ? '' : damageOf(join(folder, file.name));
    if (reason === '') files.push(file);
    else if (!isGone(reason)) damaged.push({ file: file.name, reason });
  }
  return { files, damaged };
}

/** A table of the whole log. @throws NOT_FOUND */
export async function readLogTable(folder: string, table: LogTable, wanted?: readonly string[]): Promise<LogRows> {
  for (let tries = 1; ; tries += 1) {
    const read = await readFiles(
      folder,
      logFilesOf(folder).filter((file) => file.table === table || file.table === 'journal'),
      table,
      wanted,
    );
    if (read !== undefined) return read;
    if (tries >= triesMax) {
      throw intarsiaError('UNAVAILABLE', `decision log ${folder} changes faster than it can be read`, { folder });
    }
  }
}

/** Undefined when a file has gone meanwhile. */
async function readFiles(
  folder: string,
  files: readonly LogFile[],
  table: LogTable,
  wanted: readonly string[] | undefined,
): Promise<LogRows | undefined> {
  const columns = new Map<string, unknown[]>();
  const damaged: DamagedFile[] = [];
  let rows = 0;
  const add = (names: ReadonlyMap<string, readonly unknown[]>, count: number): void => {
    for (const [column, values] of names) {
      let whole = columns.get(column);
      if (whole === undefined) columns.set(column, (whole = []));
      whole.length = rows;
      for (const value of values) whole.push(value);
    }
    rows += count;
  };
  for (const file of files) {
    const path = join(folder, file.name);
    const { rows: count, columns: read, reason } = await readOne(path, file, table, wanted);
    if (isGone(reason)) return undefined;
    if (reason !== '') damaged.push({ file: file.name, reason });
    add(read, count);
  }
  return { rows, columns, damaged };
}

/** `reason`: why it, or the rest of it, cannot be read. */
async function readOne(
  path: string,
  file: LogFile,
  table: LogTable,
  wanted: readonly string[] | undefined,
): Promise<Omit<LogRows, 'damaged'> & { readonly reason: string }> {
  if (file.table === 'journal') return readJournalTable(path, file, table, wanted);
  const read = await readParquetFile(path, wanted);
  return read.ok ? { ...read, reason: '' } : { rows: 0, columns: new Map(), reason: read.reason };
}

function readJournalTable(
  path: string,
  { run }: LogFile,
  table: LogTable,
  wanted: readonly string[] | undefined,
): Omit<LogRows, 'damaged'> & { readonly reason: string } {
  const columns = new Map<string, readonly unknown[]>();
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    return { rows: 0, columns, reason: messageOf(error) };
  }
  const contents = readJournal(bytes);
  let rows = 0;
  for (const column of tablesOfJournal(contents, run, [table])[table]) {
    rows = column.values.length;
    if (wanted === undefined || wanted.includes(column.name)) columns.set(column.name, plainValues(column));
  }
  return { rows, columns, reason: contents.damage };
}

/** As a Parquet file gives them back. */
function plainValues({ type, values }: ParquetColumn): readonly unknown[] {
  return Array.from<unknown, unknown>(values as ArrayLike<unknown>, (value) => {
    if (value === null || value === undefined) return null;
    if (type === 'integer') return BigInt(value as number | bigint);
    return type === 'time' ? new Date(Number(value)) : value;
  });
}

function isGone(reason: string): boolean {
  return reason.startsWith('ENOENT');
}
