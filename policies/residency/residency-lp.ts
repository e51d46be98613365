/**
 * Residency by linear programming: the whole-number programme with models that may live in parts, rounded. The models that the
 * relaxation wants most on a device are put there first, as long as they fit. Fast at any size, and the baseline that
 * no plan that is put into effect may be worse than.
 */
import type { LinearSolver } from '#ports/linear-solver.js';
import { intarsiaError } from '#core/errors.js';
import { residencyProgram } from './residency-milp.js';
import { checkResidency, costOf, type ResidencyPlanned, type ResidencyProblem } from './residency-problem.js';

/** Smaller parts are the solver's tolerance. */
const partMin = 1e-6;

/** @throws INVALID_ARGUMENT for figures that make no problem, INTERNAL when the solver fails. */
export function relaxedResidency(problem: ResidencyProblem, solver: LinearSolver): ResidencyPlanned {
  checkResidency(problem);
  const { program, lives } = residencyProgram(problem, false);
  const { status, values } = solver.solve(program);
  if (status !== 'optimal') {
    throw intarsiaError('INTERNAL', `the residency relaxation is ${status}, though nothing at all is always a plan`);
  }
  const rounded = problem.devices.map(({ memoryBytes }, device) => {
    const parts = (lives[device] ?? []).map((column, model) => ({ model, part: values[column] ?? 0 }));
    parts.sort((one, other) => other.part - one.part || one.model - other.model);
    const row = problem.models.map(() => false);
    let free = memoryBytes;
    for (const { model, part } of parts) {
      const bytes = problem.models[model]?.bytes ?? 0;
      if (part <= partMin || bytes > free) continue;
      row[model] = true;
      free -= bytes;
    }
    return row;
  });
  return costOf(problem, rounded);
}
