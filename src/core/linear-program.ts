/**
 * A linear or mixed-integer programme as plain arrays, and a builder that fills them: minimise `cost · x` such that every row
 * and every column lies between its bounds. Whoever solves it is a port (ports/linear-solver.ts).
 */

export interface LinearProgram {
  readonly cost: readonly number[];
  /** Bounds of the columns; infinite where there are none. */
  readonly lower: readonly number[];
  readonly upper: readonly number[];
  /** Columns whose values must be whole. */
  readonly whole: readonly boolean[];
  readonly rowLower: readonly number[];
  readonly rowUpper: readonly number[];
  /** Row by row: where each begins in `columns` and `values`, and one more for the end. */
  readonly rowStarts: readonly number[];
  readonly columns: readonly number[];
  readonly values: readonly number[];
}

export interface LinearSolution {
  /** `limit`: time ran out; then `values` are the best found, if any were. */
  readonly status: 'optimal' | 'infeasible' | 'unbounded' | 'limit';
  /** Of `values`; NaN without any. */
  readonly cost: number;
  /** By column; empty when there is no solution. */
  readonly values: Float64Array;
}

export class ProgramBuilder {
  readonly #cost: number[] = [];
  readonly #lower: number[] = [];
  readonly #upper: number[] = [];
  readonly #whole: boolean[] = [];
  readonly #rowLower: number[] = [];
  readonly #rowUpper: number[] = [];
  readonly #rowStarts: number[] = [0];
  readonly #columns: number[] = [];
  readonly #values: number[] = [];

  /** Number of the new column. */
  column(
    cost: number,
    bounds: { readonly lower?: number; readonly upper?: number; readonly whole?: boolean } = {},
  ): number {
    this.#lower.push(bounds.lower ?? 0);
    this.#upper.push(bounds.upper ?? Infinity);
    this.#whole.push(bounds.whole ?? false);
    return this.#cost.push(cost) - 1;
  }

  /** `lower ≤ sum of value × column ≤ upper`. A column occurs once in a row. */
  row(lower: number, upper: number, entries: readonly (readonly [column: number, value: number])[]): void {
    for (const [column, value] of entries) {
      this.#columns.push(column);
      this.#values.push(value);
    }
    this.#rowLower.push(lower);
    this.#rowUpper.push(upper);
    this.#rowStarts.push(this.#columns.length);
  }

  finish(): LinearProgram {
    return {
      cost: this.#cost,
      lower: this.#lower,
      upper: this.#upper,
      whole: this.#whole,
      rowLower: this.#rowLower,
      rowUpper: this.#rowUpper,
      rowStarts: this.#rowStarts,
      columns: this.#columns,
      values: this.#values,
    };
  }
}
