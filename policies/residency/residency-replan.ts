/**
 * One turn of planning residency again: what lives where now, the forecast, and a plan of where to go from here.
 *
 * Three things keep it calm and safe. The gate: a plan that the forecast finds worse than the linear-programming baseline is
 * replaced by that. Hysteresis: nothing moves unless the forecast saves a share of what is spent, loading included. And a bound on moves: the
 * loads that save most go first, the rest waits for the next turn, when the forecast may be another.
 */
import type { LinearSolver } from '#ports/linear-solver.js';
import { greedyResidency } from './residency-greedy.js';
import { relaxedResidency } from './residency-lp.js';
import { plannedResidency } from './residency-milp.js';
import {
  bytesOn,
  costOf,
  type ResidencyChoice,
  type ResidencyPlanned,
  type ResidencyProblem,
} from './residency-problem.js';

export type ResidencyPlanner = 'greedy' | 'milp' | 'lp';

export interface ReplanOptions {
  readonly planner: ResidencyPlanner;
  /** A plan must save this share of what keeping everything costs. */
  readonly hysteresis: number;
  /** Loads of one turn. */
  readonly movesMax: number;
}

export const replanDefaults = { hysteresis: 0.05, movesMax: 4 } as const;

/** What a plan is made of: a model that is brought to a device. */
export interface ResidencyMove {
  readonly device: number;
  readonly model: number;
}

export interface ReplannedResidency extends ResidencyPlanned {
  readonly moves: readonly ResidencyMove[];
  /** Forecast cost of keeping everything, of the baseline, and of the plan that the turn goes towards. */
  readonly keptUsd: number;
  readonly baselineUsd: number;
  readonly wantedUsd: number;
}

/** @throws INVALID_ARGUMENT for figures that make no problem, INTERNAL when the solver fails. */
export function replanResidency(
  problem: ResidencyProblem,
  solver: LinearSolver,
  { planner, hysteresis, movesMax }: ReplanOptions,
): ReplannedResidency {
  const kept = costOf(problem, residentNow(problem));
  const baseline = relaxedResidency(problem, solver);
  const candidate =
    planner === 'lp' ? baseline : planner === 'greedy' ? greedyResidency(problem) : plannedResidency(problem, solver);
  const wanted = candidate.usd <= baseline.usd ? candidate : baseline;
  const figures = { keptUsd: kept.usd, baselineUsd: baseline.usd, wantedUsd: wanted.usd };
  if (!(kept.usd - wanted.usd > hysteresis * kept.usd)) return { ...kept, moves: [], ...figures };
  const moves: ResidencyMove[] = [];
  let now = kept;
  while (moves.length < movesMax) {
    const step = bestStep(problem, now, wanted.lives);
    if (step === undefined) break;
    moves.push(step.move);
    now = step.reached;
  }
  return { ...now, moves, ...figures };
}

/** What lives where, as far as it still fits. */
function residentNow(problem: ResidencyProblem): ResidencyChoice {
  return problem.devices.map(({ resident, memoryBytes }) => {
    const row = problem.models.map((_, model) => resident.includes(model));
    for (const model of resident) if (bytesOn(problem, row) > memoryBytes) row[model] = false;
    return row;
  });
}

/** The load towards the wanted plan that saves most, with what must leave to make room; undefined when none saves. */
function bestStep(
  problem: ResidencyProblem,
  now: ResidencyPlanned,
  wanted: ResidencyChoice,
): { readonly move: ResidencyMove; readonly reached: ResidencyPlanned } | undefined {
  let best: { readonly move: ResidencyMove; readonly reached: ResidencyPlanned } | undefined;
  for (const [device, row] of wanted.entries()) {
    for (const [model, isWanted] of row.entries()) {
      if (!isWanted || now.lives[device]?.[model] === true) continue;
      const with_ = withRoom(problem, device, model, now.lives[device] ?? [], row);
      if (with_ === undefined) continue;
      const reached = costOf(
        problem,
        now.lives.map((each, at) => (at === device ? with_ : each)),
      );
      if (reached.usd < (best?.reached.usd ?? now.usd)) best = { move: { device, model }, reached };
    }
  }
  return best;
}

/** The row with the model; the largest that the plan does not want leave first. Undefined when it cannot fit yet. */
function withRoom(
  problem: ResidencyProblem,
  device: number,
  model: number,
  row: readonly boolean[],
  wanted: readonly boolean[],
): readonly boolean[] | undefined {
  const next = row.map((isThere, index) => isThere || index === model);
  const bytesMax = problem.devices[device]?.memoryBytes ?? 0;
  const leavers = problem.models
    .map(({ bytes }, index) => ({ index, bytes }))
    .filter(({ index }) => next[index] === true && wanted[index] !== true && index !== model)
    .sort((one, other) => other.bytes - one.bytes || one.index - other.index);
  for (const { index } of leavers) {
    if (bytesOn(problem, next) <= bytesMax) break;
    next[index] = false;
  }
  return bytesOn(problem, next) <= bytesMax ? next : undefined;
}
