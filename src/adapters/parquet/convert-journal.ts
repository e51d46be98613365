/**
 * Makes Parquet files of journals: features are computed and tables encoded here, which takes a hundred times as long as writing the
 * journal took. Files are written beside their names and renamed, and the journal goes last: whenever this is interrupted,
 * each row is still read once. Two that convert the same journal write the same files.
 */
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { tablesOfJournal } from '#core/decision-log/joined-tables.js';
import { currentLogFiles, logFileName, type LogFile } from '#core/decision-log/log-files.js';
import { readJournal } from '#core/decision-log/log-journal.js';
import { logTables } from '#core/decision-log/log-tables.js';
import { encodeParquet } from './write-parquet.js';

/** Name of a file without what marks it as half-written; undefined for one that is whole. */
export function nameOfPartial(name: string): string | undefined {
  return /^(.+)\.\d+\.partial$/u.exec(name)?.[1];
}

/**
 * Makes tables of the oldest closed journal of a folder that can be read, and removes it.
 *
 * @returns Whether there was one.
 * @throws What the file system says.
 */
export function convertOldest(folder: string): boolean {
  for (const file of currentLogFiles(readdirSync(folder))) {
    if (file.table !== 'journal' || file.last === Infinity) continue;
    const { damage } = convertJournal(folder, file, folder);
    if (damage !== '') continue;
    rmSync(join(folder, file.name), { force: true });
    return true;
  }
  return false;
}

/**
 * Writes the tables of a journal that have rows into a folder. A journal that is damaged gives none there where it lies, because it
 * stays; elsewhere what could be read of it.
 *
 * @throws What the file system says.
 */
export function convertJournal(
  folder: string,
  file: LogFile,
  into: string,
): { readonly files: readonly LogFile[]; readonly damage: string } {
  const contents = readJournal(readFileSync(join(folder, file.name)));
  const { damage, frames } = contents;
  const files: LogFile[] = [];
  if (frames.length === 0 || (damage !== '' && folder === into)) return { files, damage };
  const tables = tablesOfJournal(contents, file.run);
  const last = file.first + frames.length - 1;
  for (const table of logTables) {
    if (tables[table][0]?.values.length === 0) continue;
    const made = { table, run: file.run, first: file.first, last: file.last === Infinity ? last : file.last };
    const name = logFileName(made);
    const partial = join(into, `${name}.${process.pid}.partial`);
    try {
      writeFileSync(partial, encodeParquet(tables[table], { statistics: false }));
      renameSync(partial, join(into, name));
    } catch (error) {
      rmSync(partial, { force: true });
      throw error;
    }
    files.push({ ...made, name });
  }
  return { files, damage };
}
