/** HiGHS, compiled to WebAssembly, as the linear solver. */
import loader, { type Highs, type InitOptions } from 'highs';
import { intarsiaError, messageOf } from '#core/errors.js';
import type { LinearProgram, LinearSolution } from '#core/linear-program.js';
import type { LinearSolver } from '#ports/linear-solver.js';

/** Loads the solver; a few hundred milliseconds and tens of megabytes, so that only commands that need it do. */
export async function loadHighsSolver(): Promise<LinearSolver> {
  const highs = await loadHighs();
  return {
    name: `HiGHS ${highs.version.string}`,
    solve: (program, limitMs) => solve(highs, program, limitMs),
  };
}

/** The package's types are those of its CommonJS half; Node loads the other, whose default is the loader itself. */
const loadHighs = loader as unknown as (options?: InitOptions) => Promise<Highs>;

function solve(highs: Highs, program: LinearProgram, limitMs: number | undefined): LinearSolution {
  const model = highs.createModel({
    numCols: program.cost.length,
    numRows: program.rowLower.length,
    colCost: program.cost,
    colLower: program.lower,
    colUpper: program.upper,
    rowLower: program.rowLower,
    rowUpper: program.rowUpper,
    matrix: {
      format: 'csr',
      numRows: program.rowLower.length,
      numCols: program.cost.length,
      starts: program.rowStarts,
      indices: program.columns,
      values: program.values,
    },
    ...(program.whole.includes(true)
      ? { integrality: program.whole.map((whole) => (whole ? integer : continuous)) }
      : {}),
  });
  try {
    if (limitMs !== undefined) model.options.set('time_limit', limitMs / 1000);
    const { modelStatus } = model.run();
    const status = statuses[modelStatus];
    if (status === undefined) throw new Error(`model status ${modelStatus}`);
    if (status === 'infeasible' || status === 'unbounded')
      return { status, cost: Number.NaN, values: new Float64Array() };
    const values = model.getSolution().colValue;
    const cost = values.reduce((sum, value, column) => sum + value * (program.cost[column] ?? 0), 0);
    return { status, cost, values };
  } catch (error) {
    throw intarsiaError('INTERNAL', `the linear solver failed: ${messageOf(error)}`, {}, error);
  } finally {
    model.dispose();
  }
}

const continuous = 0;
const integer = 1;

/** HiGHS's numbers of how a solve ended; others are failures. */
const statuses: Readonly<Record<number, LinearSolution['status']>> = {
  6: 'optimal',
  7: 'optimal',
  8: 'infeasible',
  9: 'infeasible',
  10: 'unbounded',
  13: 'limit',
  14: 'limit',
};
