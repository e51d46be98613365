/**
 * Scores rows of features, many at once, while the caller waits: decisions of dispatch and batching are made on the hot path,
 * where a promise costs more than the arithmetic.
 */
export interface Scorer {
  /** Elements of a row. */
  readonly inputs: number;
  /** Scores of a row; more than one where several heads vote. */
  readonly outputs: number;
  /**
   * `rows` holds `count` rows one after the other; `out` receives `count` times `outputs` scores, row by row. Synchronous,
   * allocates nothing. Rows with NaN give NaN; whoever asks checks.
   */
  score(rows: Float32Array, count: number, out: Float32Array): void;
}
