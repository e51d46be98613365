/**
 * Solves linear and mixed-integer programmes. Slow-side only: a call may take seconds and blocks the thread it is made on.
 *
 * Promises: the same programme gives the same answer; what is called optimal is within the solver's tolerances (1e-6) of it.
 */
import type { LinearProgram, LinearSolution } from '#core/linear-program.js';

export interface LinearSolver {
  /** Name and version, for reports. */
  readonly name: string;
  /** @param limitMs Most milliseconds; without it as long as it takes. @throws INTERNAL when the solver itself fails. */
  solve(program: LinearProgram, limitMs?: number): LinearSolution;
}
