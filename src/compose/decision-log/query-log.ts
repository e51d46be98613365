/** `intarsia telemetry query`: SQL over the whole files of a log. */
import { queryLog as queryByDuckDb } from '#adapters/duckdb/query-log.js';
import { wholeLogFiles } from '#adapters/parquet/read-decision-log.js';
import type { LogQueryReport, LogQueryRequest } from '#cli/decision-log-report.js';
import { messageOf } from '#core/errors.js';

/** A log that is written meanwhile joins files away under a query: it is asked again so often. */
const triesMax = 4;

/** @throws NOT_FOUND (no log there), and what the query throws. */
export async function queryLog({ folder, ...query }: LogQueryRequest): Promise<LogQueryReport> {
  for (let tries = 1; ; tries += 1) {
    const { files, damaged } = wholeLogFiles(folder);
    try {
      return { ...(await queryByDuckDb({ folder, files, ...query })), damaged };
    } catch (error) {
      if (tries >= triesMax || !/No files found|No such file/u.test(messageOf(error))) throw error;
    }
  }
}
