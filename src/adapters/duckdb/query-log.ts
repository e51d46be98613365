/**
 * SQL over a decision log by DuckDB, which users install themselves: it is large, and a host does not need it.
 *
 * A query comes from whoever types it, and sees the log and nothing else: one SELECT, no file outside of the log's folder, no
 * extension, no setting that would change that.
 */
import { resolve } from 'node:path';
import type * as DuckDb from '@duckdb/node-api';
import { emptyTable, logTables, type LogTable } from '#core/decision-log/log-tables.js';
import { intarsiaError, messageOf } from '#core/errors.js';
import type { ParquetColumn } from '#core/parquet-column.js';

/** A whole Parquet file of the log. */
export interface QueriedFile {
  readonly table: LogTable;
  readonly path: string;
}

export interface LogQueryOptions {
  readonly files: readonly QueriedFile[];
  readonly sql: string;
  /** Rows of the answer at most. */
  readonly rowsMax: number;
  /** Time at most, ms. */
  readonly msMax: number;
}

export interface LogAnswer {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly unknown[])[];
  /** There are more rows than were asked for. */
  readonly isCut: boolean;
}

const packageName = '@duckdb/node-api';
const memoryMax = '2GB';

/** @throws UNIMPLEMENTED (DuckDB is not installed), INVALID_ARGUMENT (the query), DEADLINE_EXCEEDED. */
export async function queryLog(options: LogQueryOptions): Promise<LogAnswer> {
  const { DuckDBInstance, StatementType } = await duckdb();
  const { files, sql, rowsMax, msMax } = options;
  const instance = await DuckDBInstance.create(':memory:', {
    threads: '2',
    memory_limit: memoryMax,
    autoinstall_known_extensions: 'false',
    autoload_known_extensions: 'false',
    allow_community_extensions: 'false',
    // Queries that do not fit in memory fail rather than spill files anywhere.
    temp_directory: '',
  });
  const time = { isOver: false };
  const connection = await instance.connect();
  const timer = setTimeout(() => {
    time.isOver = true;
    connection.interrupt();
  }, msMax);
  try {
    await openViews(connection, files);
    await confine(connection, files);
    const statements = await connection.extractStatements(sql);
    if (statements.count !== 1) {
      throw intarsiaError('INVALID_ARGUMENT', `a query is one SELECT; this is ${statements.count} statements`);
    }
    const statement = await statements.prepare(0);
    if (statement.statementType !== StatementType.SELECT) {
      throw intarsiaError('INVALID_ARGUMENT', 'a query is one SELECT: the log is read, never written');
    }
    const reader = await statement.streamAndReadUntil(rowsMax + 1);
    const rows = reader.getRowsJson();
    return { columns: reader.columnNames(), rows: rows.slice(0, rowsMax), isCut: rows.length > rowsMax };
  } catch (error) {
    if (time.isOver)
      throw intarsiaError('DEADLINE_EXCEEDED', `the query took longer than ${msMax} ms`, { msMax }, error);
    if (error instanceof Error && 'code' in error) throw error;
    throw intarsiaError('INVALID_ARGUMENT', messageOf(error), {}, error);
  } finally {
    clearTimeout(timer);
    connection.closeSync();
    instance.closeSync();
  }
}

async function duckdb(): Promise<typeof DuckDb> {
  try {
    return await import('@duckdb/node-api');
  } catch (error) {
    throw intarsiaError(
      'UNIMPLEMENTED',
      `queries need DuckDB, which is not installed here: npm install ${packageName}; or read the Parquet files with pandas`,
      { package: packageName },
      error,
    );
  }
}

async function openViews(connection: DuckDb.DuckDBConnection, files: readonly QueriedFile[]): Promise<void> {
  for (const table of logTables) {
    const paths = files.filter((file) => file.table === table).map(({ path }) => quoted(resolve(path)));
    const source =
      paths.length === 0 ? emptySelect(table) : `SELECT * FROM read_parquet([${paths.join(',')}], union_by_name=true)`;
    await connection.run(`CREATE VIEW ${table} AS ${source}`);
  }
  await connection.run(requestsView);
}

/** After this nothing can be reached but the log, and nothing can change that. */
async function confine(connection: DuckDb.DuckDBConnection, files: readonly QueriedFile[]): Promise<void> {
  const paths = files.map(({ path }) => quoted(resolve(path)));
  await connection.run(`SET allowed_paths=[${paths.join(',')}]`);
  await connection.run('SET enable_external_access=false');
  await connection.run('SET lock_configuration=true');
}

/** A row for each request that ended: what came of it, and its first decision. */
const requestsView = `CREATE VIEW requests AS
  SELECT outcomes.*, first.* EXCLUDE (run, request),
    outcomes.outcome <> 'ok' OR outcomes.duration_ms > first.slo_ms AS missed
  FROM outcomes LEFT JOIN (
    SELECT run, request, count(*) AS decisions, min(decision) AS decision, arg_min(slo_ms, decision) AS slo_ms,
      arg_min(policy, decision) AS policy, arg_min(fallback, decision) AS fallback,
      arg_min(propensity, decision) AS propensity, arg_min(candidates, decision) AS candidates,
      arg_min(device, decision) AS chosen_device, arg_min(reference_usd, decision) AS reference_usd
    FROM decisions GROUP BY run, request
  ) AS first USING (run, request)`;

const sqlTypes: Readonly<Record<ParquetColumn['type'], string>> = {
  text: 'VARCHAR',
  number: 'DOUBLE',
  single: 'FLOAT',
  integer: 'BIGINT',
  integer32: 'INTEGER',
  bytes: 'BLOB',
  boolean: 'BOOLEAN',
  time: 'TIMESTAMP',
};

function emptySelect(table: LogTable): string {
  const columns = emptyTable(table).map(({ name, type }) => `CAST(NULL AS ${sqlTypes[type]}) AS "${name}"`);
  return `SELECT ${columns.join(', ')} WHERE false`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
