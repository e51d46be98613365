/** As many linear equations as unknowns, for the few of a regression. Larger problems are for a library. */

/**
 * Gauss elimination with pivots; both arrays are used up. Not a number where the equations do not settle an unknown.
 * @param matrix Row by row, `size` × `size`.
 */
export function solveEquations(matrix: Float64Array, right: Float64Array, size: number): Float64Array {
  const at = (row: number, column: number): number => matrix[row * size + column] as number;
  for (let column = 0; column < size; column += 1) {
    let pivot = column;
    for (let row = column + 1; row < size; row += 1) {
      if (Math.abs(at(row, column)) > Math.abs(at(pivot, column))) pivot = row;
    }
    for (let other = 0; other < size; other += 1) {
      const kept = at(column, other);
      matrix[column * size + other] = at(pivot, other);
      matrix[pivot * size + other] = kept;
    }
    const keptRight = right[column] as number;
    right[column] = right[pivot] as number;
    right[pivot] = keptRight;
    for (let row = column + 1; row < size; row += 1) {
      const factor = at(row, column) / at(column, column);
      if (factor === 0) continue;
      for (let other = column; other < size; other += 1) {
        matrix[row * size + other] = at(row, other) - factor * at(column, other);
      }
      right[row] = (right[row] as number) - factor * (right[column] as number);
    }
  }
  const solution = new Float64Array(size);
  for (let row = size - 1; row >= 0; row -= 1) {
    let sum = right[row] as number;
    for (let column = row + 1; column < size; column += 1) sum -= at(row, column) * (solution[column] as number);
    solution[row] = sum / at(row, row);
  }
  return solution;
}
