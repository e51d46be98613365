/**
 * Reads a decision log's folder as it stands, also while a gateway writes to it. Files that are damaged, as a failing disk
 * or a loss of power may leave them, are passed over and named; the rest is read.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { currentLogFiles, type LogFile } from '#core/decision-log/log-files.js';
import type { LogTable } from '#core/decision-log/log-tables.js';
import { intarsiaError, messageOf } from '#core/errors.js';
import { damageOf, readParquetFile } from './read-parquet.js';

export interface DamagedFile {
  readonly file: string;
  readonly reason: string;
}

export interface LogFolderFiles {
  /** Oldest first. */
  readonly files: readonly LogFile[];
  readonly damaged: readonly DamagedFile[];
}

/** Columns of a table over all files; a column that a file has not is undefined there. */
export interface LogRows {
  readonly rows: number;
  readonly columns: ReadonlyMap<string, readonly unknown[]>;
  readonly damaged: readonly DamagedFile[];
}

/** A log that is written meanwhile joins files away: it is looked at again as often. */
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
    const reason = damageOf(join(folder, file.name));
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
      logFilesOf(folder).filter((file) => file.table === table),
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
  wanted: readonly string[] | undefined,
): Promise<LogRows | undefined> {
  const columns = new Map<string, unknown[]>();
  const damaged: DamagedFile[] = [];
  let rows = 0;
  for (const { name } of files) {
    const read = await readParquetFile(join(folder, name), wanted);
    if (!read.ok) {
      if (isGone(read.reason)) return undefined;
      damaged.push({ file: name, reason: read.reason });
      continue;
    }
    for (const [column, values] of read.columns) {
      let whole = columns.get(column);
      if (whole === undefined) columns.set(column, (whole = []));
      whole.length = rows;
      for (const value of values) whole.push(value);
    }
    rows += read.rows;
  }
  return { rows, columns, damaged };
}

function isGone(reason: string): boolean {
  return reason.startsWith('ENOENT');
}
