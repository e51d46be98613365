import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parquetReadObjects } from 'hyparquet';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encodeParquet, writeParquet } from '#adapters/parquet/write-parquet.js';
import type { ParquetColumn } from '#core/parquet-column.js';

const columns: readonly ParquetColumn[] = [
  { name: 'model', type: 'text', values: ['a', 'b', 'ü'] },
  { name: 'ms', type: 'number', values: Float64Array.of(0.25, 2, 1e9) },
  { name: 'bytes', type: 'integer', values: [0, 2 ** 40, 2n ** 60n] },
  { name: 'emulated', type: 'boolean', values: [true, false, null] },
  { name: 'at', type: 'time', values: [0, 1_700_000_000_123, undefined] },
];
const rows = [
  { model: 'a', ms: 0.25, bytes: 0n, emulated: true, at: new Date(0) },
  { model: 'b', ms: 2, bytes: 2n ** 40n, emulated: false, at: new Date(1_700_000_000_123) },
  { model: 'ü', ms: 1e9, bytes: 2n ** 60n, emulated: null, at: null },
];

describe('Parquet files', () => {
  let folder = '';
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'parquet-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it('come back as they were written, types and nulls included', async () => {
    const bytes = encodeParquet(columns);
    const file = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
    expect((await parquetReadObjects({ file })).map(plain)).toEqual(rows);
  });

  it('replace an older file and leave nothing else behind', async () => {
    const path = join(folder, 'table.parquet');
    await writeParquet(path, columns.slice(0, 1));
    const size = await writeParquet(path, columns);
    const bytes = await readFile(path);
    expect(bytes.byteLength).toBe(size);
    const file = new Uint8Array(bytes).buffer;
    expect((await parquetReadObjects({ file })).map(plain)).toEqual(rows);
    expect(await readdir(folder)).toEqual(['table.parquet']);
  });

  it('hold a table without rows', async () => {
    const bytes = encodeParquet(columns.map((column) => ({ ...column, values: [] })));
    const file = new Uint8Array(bytes).buffer;
    expect(await parquetReadObjects({ file })).toEqual([]);
  });

  it('are refused when columns do not make a table', () => {
    expect(() => encodeParquet([])).toThrow(/at least one column/);
    expect(() =>
      encodeParquet([
        { name: 'a', type: 'number', values: [1, 2] },
        { name: 'b', type: 'number', values: [1] },
      ]),
    ).toThrow(/column b has 1 values, the first has 2/);
    expect(() =>
      encodeParquet([
        { name: 'a', type: 'number', values: [1] },
        { name: 'a', type: 'number', values: [1] },
      ]),
    ).toThrow(/a name of its own/);
  });

  it('are refused where they cannot be written', async () => {
    await expect(writeParquet(join(folder, 'nowhere', 'table.parquet'), columns)).rejects.toThrow(/cannot be written/);
  });

  const duckdb = '@duckdb/node-api';
  it('are read by DuckDB where its package is installed', async (context) => {
    const api = (await import(duckdb).catch(() => undefined)) as DuckDb | undefined;
    if (api === undefined) return context.skip('the optional package @duckdb/node-api is not installed');
    const path = join(folder, 'duck.parquet');
    await writeParquet(path, columns);
    const instance = await api.DuckDBInstance.create(':memory:');
    const connection = await instance.connect();
    const reader = await connection.runAndReadAll(
      `select model, ms, bytes, emulated, epoch_ms("at") as "at" from '${path}' order by ms`,
    );
    expect(reader.getRowObjects()).toEqual(
      rows.map(({ at, ...row }) => ({ ...row, at: at === null ? null : BigInt(at.getTime()) })),
    );
    connection.closeSync();
    instance.closeSync();
  });
});

interface DuckDb {
  readonly DuckDBInstance: {
    create(path: string): Promise<{
      connect(): Promise<{
        runAndReadAll(sql: string): Promise<{ getRowObjects(): readonly unknown[] }>;
        closeSync(): void;
      }>;
      closeSync(): void;
    }>;
  };
}

/** hyparquet leaves absent values undefined or null. */
function plain(row: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, value ?? null]));
}
