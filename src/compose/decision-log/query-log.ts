/**
 * `intarsia telemetry query`: SQL over a log. Journals that nobody has made tables of yet are made into tables beside the
 * log, in a folder of the query's own, so that a query never changes what it reads.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { queryLog as queryByDuckDb, type QueriedFile } from '#adapters/duckdb/query-log.js';
import { convertJournal } from '#adapters/parquet/convert-journal.js';
import { wholeLogFiles, type DamagedFile } from '#adapters/parquet/read-decision-log.js';
import type { LogQueryReport, LogQueryRequest } from '#cli/decision-log-report.js';
import { messageOf } from '#core/errors.js';

/** A log that is written meanwhile makes tables of its journals under a query: it is asked again so often. */
const triesMax = 4;

/** @throws NOT_FOUND (no log there), and what the query throws. */
export async function queryLog({ folder, ...query }: LogQueryRequest): Promise<LogQueryReport> {
  for (let tries = 1; ; tries += 1) {
    const own = await mkdtemp(join(tmpdir(), 'intarsia-query-'));
    try {
      const { files, damaged } = queriedFiles(folder, own);
      return { ...(await queryByDuckDb({ files, ...query })), damaged };
    } catch (error) {
      if (tries >= triesMax || !/No files found|No such file|ENOENT/u.test(messageOf(error))) throw error;
    } finally {
      await rm(own, { recursive: true, force: true });
    }
  }
}

function queriedFiles(
  folder: string,
  own: string,
): { readonly files: readonly QueriedFile[]; readonly damaged: readonly DamagedFile[] } {
  const whole = wholeLogFiles(folder);
  const files: QueriedFile[] = [];
  const damaged = [...whole.damaged];
  for (const file of whole.files) {
    if (file.table !== 'journal') {
      files.push({ table: file.table, path: join(folder, file.name) });
      continue;
    }
    const made = convertJournal(folder, file, own);
    for (const { table, name } of made.files) if (table !== 'journal') files.push({ table, path: join(own, name) });
    if (made.damage !== '') damaged.push({ file: file.name, reason: made.damage });
  }
  return { files, damaged };
}
