/** Records as a table: one row a record, for DuckDB, pandas and Polars. Columns that a kind of record lacks are null. */
import type { ParquetColumn } from '../parquet-column.js';
import type { ProfileRecord } from './profile-record.js';
import { timeFigures, timeStats } from './time-stats.js';

type Row = Readonly<Record<string, string | number | boolean | undefined>>;

const columns: readonly (readonly [string, ParquetColumn['type']])[] = [
  ['type', 'text'],
  ['schema', 'integer'],
  ['at', 'time'],
  ['model', 'text'],
  ['nodes', 'integer'],
  ['from_node', 'integer'],
  ['to_node', 'integer'],
  ['node', 'integer'],
  ['method', 'text'],
  ['source', 'text'],
  ['host', 'text'],
  ['device', 'text'],
  ['to_host', 'text'],
  ['to_device', 'text'],
  ['silicon', 'text'],
  ['provider', 'text'],
  ['engine', 'text'],
  ['threads', 'integer'],
  ['emulated', 'boolean'],
  ['precision', 'text'],
  ['optimization', 'text'],
  ['batch', 'integer'],
  ['bytes', 'integer'],
  ['count', 'integer'],
  ['mean_ms', 'number'],
  ['p50_ms', 'number'],
  ['p95_ms', 'number'],
  ['min_ms', 'number'],
  ['max_ms', 'number'],
  ['spread', 'number'],
  ['weight_bytes', 'integer'],
  ['peak_activation_bytes', 'integer'],
  ['loaded_bytes', 'integer'],
  ['input_bytes', 'integer'],
  ['output_bytes', 'integer'],
  ['beside', 'text'],
  ['alone_ms', 'number'],
];

/** A row a shard (alone, and in company), a link, and a node of each nodes record. */
export function profileColumns(records: readonly ProfileRecord[]): readonly ParquetColumn[] {
  const rows = records.flatMap(rowsOf);
  return columns.map(([name, type]) => ({ name, type, values: rows.map((row) => row[name]) }) as ParquetColumn);
}

function rowsOf(record: ProfileRecord): readonly Row[] {
  const { type, schema, atMs: at } = record;
  if (type === 'link') {
    const { from, to, bytes, times } = record;
    const place = { host: from.host, device: from.device, to_host: to.host, to_device: to.device };
    return [{ type, schema, at, ...place, bytes, ...figures(times) }];
  }
  const { model, nodes, host, device, silicon, provider, engine, threads, emulated } = record;
  const { precision, optimization, batch } = record;
  const key = {
    ...{ type, schema, at, model, nodes, host, device, silicon, provider, engine, threads, emulated },
    ...{ precision, optimization, batch },
  };
  if (record.type === 'nodes') {
    const { method, nodeMs } = record;
    return nodeMs.map((ms, node) => ({
      ...key,
      method,
      node,
      ...(ms > 0 ? figures(timeStats([ms])) : { mean_ms: 0 }),
    }));
  }
  if (record.type === 'contention') {
    const { from, to, beside, times, aloneMs } = record;
    const range = { from_node: from, to_node: to, beside: beside.join(', '), alone_ms: aloneMs };
    return [{ ...key, ...range, ...figures(times) }];
  }
  const { from, to, source, times, weightBytes, peakActivationBytes, loadedBytes, inputBytes, outputBytes } = record;
  return [
    {
      ...{ ...key, from_node: from, to_node: to, source, ...figures(times) },
      ...{ weight_bytes: weightBytes, peak_activation_bytes: peakActivationBytes, loaded_bytes: loadedBytes },
      ...{ input_bytes: inputBytes, output_bytes: outputBytes },
    },
  ];
}

function figures(times: Parameters<typeof timeFigures>[0]): Row {
  const { count, meanMs, p50Ms, p95Ms, minMs, maxMs, spread } = timeFigures(times);
  return { count, mean_ms: meanMs, p50_ms: p50Ms, p95_ms: p95Ms, min_ms: minMs, max_ms: maxMs, spread };
}
