/**
 * The fluid linear programme of dispatch: rates of models to devices with capacities, at least cost, where what nobody can
 * serve is dropped at a price. A dense simplex that starts from dropping everything: exact for the few dozen models and
 * devices of a fleet, without a solver's package on the serving path.
 */

export interface TransportProblem {
  /** Arriving items per ms, by model. */
  readonly rates: readonly number[];
  /** Busy ms an item takes, by model and device; Infinity where the device does not serve the model. */
  readonly ms: readonly (readonly number[])[];
  /** USD per busy ms, by device. */
  readonly usdPerMs: readonly number[];
  /** USD for an item that is dropped. */
  readonly dropUsd: number;
  /** Share of its time that a device may be busy, above 0. */
  readonly busyShare: number;
}

/** Items per ms by model and device, as one array: model × devices + device. */
export function solveTransport({ rates, ms, usdPerMs, dropUsd, busyShare }: TransportProblem): Float64Array {
  const models = rates.length;
  const devices = usdPerMs.length;
  const rows = models + devices;
  const flows = models * devices;
  // Columns: flows, slack of devices, drops of models, right side. The basis begins as drops and slacks.
  const width = flows + devices + models + 1;
  const table = Array.from({ length: rows + 1 }, () => new Float64Array(width));
  const basis = new Int32Array(rows);
  const goal = table[rows] as Float64Array;
  for (let model = 0; model < models; model += 1) {
    const row = table[model] as Float64Array;
    row[flows + devices + model] = 1;
    row[width - 1] = rates[model] as number;
    basis[model] = flows + devices + model;
    for (let device = 0; device < devices; device += 1) {
      const itemMs = ms[model]?.[device] ?? Infinity;
      if (itemMs === Infinity) continue;
      const column = model * devices + device;
      row[column] = 1;
      (table[models + device] as Float64Array)[column] = itemMs;
      // Reduced cost: serving an item there instead of dropping it.
      goal[column] = itemMs * (usdPerMs[device] as number) - dropUsd;
    }
  }
  for (let device = 0; device < devices; device += 1) {
    const row = table[models + device] as Float64Array;
    row[flows + device] = 1;
    row[width - 1] = busyShare;
    basis[models + device] = flows + device;
  }
  pivotToOptimum(table, basis, width);
  const plan = new Float64Array(flows);
  basis.forEach((column, row) => {
    if (column < flows) plan[column] = Math.max(0, (table[row] as Float64Array)[width - 1] as number);
  });
  return plan;
}

/** Smallest cost that still counts as an improvement, relative to the largest. */
const tolerance = 1e-9;

/** All columns may enter, drops included: serving one model may be worth dropping another. */
function pivotToOptimum(table: Float64Array[], basis: Int32Array, width: number): void {
  const rows = basis.length;
  const goal = table[rows] as Float64Array;
  const scale = goal.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  // Bland's rule ends without cycles; the bound is for rounding.
  const pivotsMax = 50 * (rows + width);
  for (let pivot = 0; pivot < pivotsMax; pivot += 1) {
    let column = -1;
    for (let each = 0; each < width - 1; each += 1) {
      if ((goal[each] as number) < -tolerance * scale) {
        column = each;
        break;
      }
    }
    if (column < 0) return;
    let leaving = -1;
    let least = Infinity;
    for (let row = 0; row < rows; row += 1) {
      const entry = (table[row] as Float64Array)[column] as number;
      if (entry <= 1e-12) continue;
      const ratio = ((table[row] as Float64Array)[width - 1] as number) / entry;
      const wins =
        ratio < least - 1e-15 ||
        (ratio <= least && leaving >= 0 && (basis[row] as number) < (basis[leaving] as number));
      if (wins) {
        leaving = row;
        least = ratio;
      }
    }
    if (leaving < 0) return;
    pivotAt(table, leaving, column);
    basis[leaving] = column;
  }
}

function pivotAt(table: Float64Array[], leaving: number, column: number): void {
  const pivotRow = table[leaving] as Float64Array;
  const scale = 1 / (pivotRow[column] as number);
  for (let index = 0; index < pivotRow.length; index += 1) pivotRow[index] = (pivotRow[index] as number) * scale;
  for (let row = 0; row < table.length; row += 1) {
    if (row === leaving) continue;
    const other = table[row] as Float64Array;
    const factor = other[column] as number;
    if (factor === 0) continue;
    for (let index = 0; index < other.length; index += 1) {
      other[index] = (other[index] as number) - factor * (pivotRow[index] as number);
    }
  }
}
