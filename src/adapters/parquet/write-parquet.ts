/**
 * Tables as Parquet files, which DuckDB, pandas and Polars read. Written beside the target and renamed over it, so that a
 * reader never sees half a file. What columns mean is the caller's.
 */
import { rename, rm, writeFile } from 'node:fs/promises';
import { parquetWriteBuffer, type ColumnSource } from 'hyparquet-writer';
import { intarsiaError, messageOf } from '#core/errors.js';
import type { ParquetColumn } from '#core/parquet-column.js';

/** Rows of one file: the file is made in memory before it is written. */
export const parquetRowsMax = 5_000_000;

export interface EncodeOptions {
  /** Least and greatest values of columns, and an index of pages: readers skip more, writing takes longer. Default true. */
  readonly statistics?: boolean;
  /** By Snappy; default true. */
  readonly compressed?: boolean;
}

/**
 * A Parquet file of columns. Integers are 64 bits wide, times are UTC with milliseconds; undefined
 * and null values become null.
 *
 * @throws INVALID_ARGUMENT when columns are missing, differ in length, share a name or have more than `parquetRowsMax`
 * rows.
 */
export function encodeParquet(columns: readonly ParquetColumn[], options: EncodeOptions = {}): Uint8Array {
  const rows = columns[0]?.values.length ?? 0;
  const names = new Set(columns.map(({ name }) => name));
  if (columns.length === 0 || names.size < columns.length) {
    throw intarsiaError('INVALID_ARGUMENT', 'a Parquet file has at least one column, and each a name of its own');
  }
  if (rows > parquetRowsMax) {
    throw intarsiaError('INVALID_ARGUMENT', `a Parquet file of ${rows} rows; ${parquetRowsMax} are written at most`);
  }
  for (const { name, values } of columns) {
    if (values.length !== rows) {
      throw intarsiaError('INVALID_ARGUMENT', `column ${name} has ${values.length} values, the first has ${rows}`);
    }
  }
  const { statistics = true, compressed = true } = options;
  const codec = compressed ? 'SNAPPY' : 'UNCOMPRESSED';
  const columnData = columns.map((column) => ({ ...columnSource(column), offsetIndex: statistics }));
  return new Uint8Array(parquetWriteBuffer({ columnData, statistics, codec, createdBy: 'intarsia' }));
}

/**
 * Writes columns to a file; an existing one is replaced.
 * @returns Its bytes.
 * @throws What `encodeParquet` throws; INVALID_ARGUMENT when the file cannot be written.
 */
export async function writeParquet(path: string, columns: readonly ParquetColumn[]): Promise<number> {
  const bytes = encodeParquet(columns);
  const partial = `${path}.${process.pid}.partial`;
  try {
    await writeFile(partial, bytes);
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true }).catch(() => undefined);
    throw intarsiaError('INVALID_ARGUMENT', `${path} cannot be written: ${messageOf(error)}`, { path }, error);
  }
  return bytes.byteLength;
}

function columnSource({ name, type, values }: ParquetColumn): ColumnSource {
  // Numbers in arrays of their own kind are written as they are.
  if (values instanceof Float64Array && type === 'number')
    return { name, data: values, type: 'DOUBLE', nullable: false };
  if (values instanceof Float32Array && type === 'single')
    return { name, data: values, type: 'FLOAT', nullable: false };
  if (values instanceof Int32Array && type === 'integer32')
    return { name, data: values, type: 'INT32', nullable: false };
  const given: ArrayLike<Cell> = values;
  const data = Array.from(given, (value) => stored(type, value));
  const isNullable = data.includes(null);
  switch (type) {
    case 'text':
      return { name, data, type: 'STRING', nullable: isNullable };
    case 'number':
      return { name, data, type: 'DOUBLE', nullable: isNullable };
    case 'integer':
      return { name, data, type: 'INT64', nullable: isNullable };
    case 'integer32':
      return { name, data, type: 'INT32', nullable: isNullable };
    case 'single':
      return { name, data, type: 'FLOAT', nullable: isNullable };
    case 'bytes':
      return { name, data, type: 'BYTE_ARRAY', nullable: isNullable, encoding: 'PLAIN' };
    case 'boolean':
      return { name, data, type: 'BOOLEAN', nullable: isNullable };
    case 'time':
      return { name, data, type: 'TIMESTAMP', nullable: isNullable };
  }
}

type Cell = string | number | bigint | boolean | Uint8Array | null | undefined;

function stored(type: ParquetColumn['type'], value: Cell): unknown {
  if (value === undefined || value === null) return null;
  if (type === 'integer') return BigInt(value as number | bigint);
  if (type === 'time') return new Date(Number(value));
  return value;
}
