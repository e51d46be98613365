/** Reads Parquet files as columns. A file that is damaged is an answer, not a failure: whoever reads a folder passes it over. */
import { readFileSync } from 'node:fs';
import { parquetMetadata, parquetRead } from 'hyparquet';
import { messageOf } from '#core/errors.js';

export type ReadParquet =
  | { readonly ok: true; readonly rows: number; readonly columns: ReadonlyMap<string, readonly unknown[]> }
  | { readonly ok: false; readonly reason: string };

/** @param wanted Names of columns; all by default. Those that the file has not are left out. */
export async function readParquetFile(path: string, wanted?: readonly string[]): Promise<ReadParquet> {
  try {
    const file = arrayBufferOf(readFileSync(path));
    const metadata = parquetMetadata(file);
    const names = metadata.schema.slice(1).map(({ name }) => name);
    const columns = new Map<string, unknown[]>();
    for (const name of names) if (wanted === undefined || wanted.includes(name)) columns.set(name, []);
    await parquetRead({
      file,
      metadata,
      columns: [...columns.keys()],
      utf8: false,
      onChunk: ({ columnName, columnData, rowStart }) => {
        const column = columns.get(columnName) ?? [];
        for (let index = 0; index < columnData.length; index += 1)
          column[rowStart + index] = columnData[index] as unknown;
      },
    });
    return { ok: true, rows: Number(metadata.num_rows), columns };
  } catch (error) {
    return { ok: false, reason: messageOf(error) };
  }
}

/** Why a file is none that can be read, by its ends alone; empty when it looks whole. Cheaper than reading it. */
export function damageOf(path: string): string {
  try {
    parquetMetadata(arrayBufferOf(readFileSync(path)));
    return '';
  } catch (error) {
    return messageOf(error);
  }
}

function arrayBufferOf(bytes: Buffer): ArrayBuffer {
  const copy = new ArrayBuffer(bytes.byteLength);
  new Uint8Array(copy).set(bytes);
  return copy;
}
