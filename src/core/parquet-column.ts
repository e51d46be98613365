/** Columns of a table on its way into a Parquet file: what adapters/parquet writes and records of the core turn into. */

export type ParquetColumn =
  | Column<'text', string>
  | Column<'number', number>
  /** Whole numbers; bigint beyond 2^53. */
  | Column<'integer', number | bigint>
  /** Whole numbers of 32 bits. */
  | Column<'integer32', number>
  /** Numbers of 32 bits. */
  | Column<'single', number>
  | Column<'bytes', Uint8Array>
  | Column<'boolean', boolean>
  /** Milliseconds since 1970-01-01 UTC. */
  | Column<'time', number>;

interface Column<Type extends string, Value> {
  readonly name: string;
  readonly type: Type;
  /** By row; undefined and null where there is none. */
  readonly values: ArrayLike<Value | null | undefined>;
}
