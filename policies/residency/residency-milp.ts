/**
 * Residency by whole-number programming: the best choice there is for the forecast, with the sharing of requests inside.
 *
 * Columns: whether a model lives on a device, how many items of a stream a device serves, how many nobody serves. A device
 * serves only models that live there, no more than its time, and what lives there fits its memory.
 */
import { intarsiaError } from '#core/errors.js';
import { ProgramBuilder, type LinearProgram } from '#core/linear-program.js';
import type { LinearSolver } from '#ports/linear-solver.js';
import { greedyResidency } from './residency-greedy.js';
import {
  checkResidency,
  costOf,
  loadUsd,
  usdPerMs,
  type ResidencyPlanned,
  type ResidencyProblem,
} from './residency-problem.js';

/** Longest time a plan may take; then the best that was found is compared with the greedy one. */
const limitMsDefault = 10_000;

/** The programme, and the column of each model on each device. `whole: false` is its relaxation: a model may live in parts. */
export function residencyProgram(
  problem: ResidencyProblem,
  whole: boolean,
): { readonly program: LinearProgram; readonly lives: readonly (readonly number[])[] } {
  const { devices, models, streams, missUsd, horizonMs, busyShare } = problem;
  const program = new ProgramBuilder();
  const lives = devices.map((_, device) =>
    models.map((__, model) => program.column(loadUsd(problem, device, model), { upper: 1, whole })),
  );
  const busy = devices.map((): [number, number][] => []);
  for (const { model, itemsPerSecond, busyMs } of streams) {
    const rate = itemsPerSecond / 1000;
    const ways: [number, number][] = [[program.column(missUsd * horizonMs), 1]];
    for (const [device, ms] of busyMs.entries()) {
      if (ms === Infinity) continue;
      const column = program.column(ms * usdPerMs(problem, device) * horizonMs);
      ways.push([column, 1]);
      busy[device]?.push([column, ms]);
      // No more than the stream, nor than the device can do: the tighter this is, the sooner it is solved.
      const most = Math.min(rate, busyShare / ms);
      program.row(-Infinity, 0, [
        [column, 1],
        [lives[device]?.[model] as number, -most],
      ]);
    }
    program.row(rate, rate, ways);
  }
  for (const [device, { memoryBytes }] of devices.entries()) {
    const entries = busy[device] ?? [];
    if (entries.length > 0) program.row(-Infinity, busyShare, entries);
    const bytes = models.map((model, index): [number, number] => [
      lives[device]?.[index] as number,
      model.bytes / unitBytes,
    ]);
    program.row(-Infinity, memoryBytes / unitBytes, bytes);
  }
  return { program: program.finish(), lives };
}

/**
 * Never worse than the greedy plan: where time runs out before anything better is found, that is the plan.
 * @throws INVALID_ARGUMENT for figures that make no problem, INTERNAL when the solver fails.
 */
export function plannedResidency(
  problem: ResidencyProblem,
  solver: LinearSolver,
  limitMs = limitMsDefault,
): ResidencyPlanned {
  checkResidency(problem);
  const { devices, models } = problem;
  const { program, lives } = residencyProgram(problem, true);
  const { status, values } = solver.solve(program, limitMs);
  if (status !== 'optimal' && status !== 'limit') {
    throw intarsiaError('INTERNAL', `the residency programme is ${status}, though nothing at all is always a plan`);
  }
  const greedy = greedyResidency(problem);
  if (values.length === 0) return greedy;
  const planned = costOf(
    problem,
    lives.map((row) => row.map((column) => (values[column] ?? 0) > 0.5)),
  );
  const fits = planned.lives.every((row, device) => {
    const bytes = row.reduce((sum, isThere, model) => sum + (isThere ? (models[model]?.bytes ?? 0) : 0), 0);
    return bytes <= (devices[device]?.memoryBytes ?? 0);
  });
  return fits && planned.usd <= greedy.usd ? planned : greedy;
}

/** Memory counts in MiB: figures near 1 keep the solver's tolerances small. */
const unitBytes = 2 ** 20;
