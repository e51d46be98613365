/**
 * What policies are judged on: every fleet with every kind of arrivals at every load, and the stress suite. Loads are shares of
 * the rate that fluid devices can serve in time (LB4). Of a trace only the last fifth is taken: training has the part before.
 */
import { intarsiaError } from '#core/errors.js';
import type { LinearSolver } from '#ports/linear-solver.js';
import { arrivalProcess } from '#sim/fleet/arrival-process.js';
import { traceArrivals } from '#sim/fleet/arrivals.js';
import { feasibleRate, kindsOf, mixOf, type Kind } from '#sim/fleet/fleet-bounds.js';
import type { Fleet } from '#sim/fleet/fleet.js';
import type { EvaluationCell } from './evaluate.js';
import { plainScenario, requestsIn, type FleetScenario, type FleetWorldData } from './fleet-environment.js';
import { stressSuite } from './stress.js';

/** Share of a trace that nobody trains on: it begins here. */
export const judgedTraceFrom = 0.8;

/** Of a run whose length is given in seconds. */
const requestsMost = 10_000_000;

export interface JudgePlan {
  readonly fleets: readonly Fleet[];
  readonly traces: FleetWorldData['traces'];
  /** Streams, as `arrivalProcess` reads them. */
  readonly streams: readonly string[];
  readonly loads: readonly number[];
  readonly seeds: number;
  /** Of an episode; of a short trace all that is left. */
  readonly requests: number;
  /** Above 0: takes the place of `requests`, virtual seconds of arrivals. */
  readonly seconds?: number;
  readonly seed: number;
}

export interface JudgedCells {
  /** The plan's fleets, then those of the stress suite. */
  readonly fleets: readonly Fleet[];
  readonly cells: readonly EvaluationCell<FleetScenario>[];
}

/** @throws FAILED_PRECONDITION for a fleet that can serve some requests in time by no device; INVALID_ARGUMENT for a stream. */
export function gridCells(plan: JudgePlan, solver: LinearSolver): readonly EvaluationCell<FleetScenario>[] {
  for (const stream of plan.streams) arrivalProcess(stream);
  return plan.fleets.flatMap((fleet, index) => {
    const sources = [
      ...plan.traces.map(({ name }, trace) => ({ name, arrivals: trace })),
      ...plan.streams.map((stream) => ({ name: stream, arrivals: stream })),
    ];
    return sources.flatMap(({ name, arrivals }) => {
      const capacity = capacityFor(plan, fleet, arrivals, solver);
      return plan.loads.map((load) => ({
        name: `${fleet.name} / ${name} / ${load}`,
        scenarios: scenariosOf(plan, { fleet: index, load, ratePerSecond: load * capacity }, arrivals),
      }));
    });
  });
}

/** The stress suite on each fleet at the middle load, with Poisson arrivals. */
export function stressCells(plan: JudgePlan, solver: LinearSolver): JudgedCells {
  const load = [...plan.loads].sort((left, right) => left - right)[plan.loads.length >> 1] ?? plainScenario.load;
  const fleets = [...plan.fleets];
  const cells = plan.fleets.flatMap((original, index) =>
    stressSuite.map(({ name, fleet: makeFleet, change }) => {
      const fleet = makeFleet?.(original) ?? original;
      const number = makeFleet === undefined ? index : fleets.push(fleet) - 1;
      const ratePerSecond = load * capacityFor(plan, fleet, plainScenario.arrivals as string, solver);
      const requests = lengthOf(plan, ratePerSecond);
      const changed = change?.({ fleet, requests, spanMs: (requests / ratePerSecond) * 1000 }) ?? {};
      const base = { fleet: number, load, ratePerSecond };
      return {
        name: `${original.name} / ${name}`,
        scenarios: scenariosOf(plan, base, plainScenario.arrivals as string).map((scenario) => ({
          ...scenario,
          ...changed,
        })),
      };
    }),
  );
  return { fleets, cells };
}

/** Equal seeds for all cells of a plan: load changes the rate, never what is drawn. */
function scenariosOf(
  plan: JudgePlan,
  base: Pick<FleetScenario, 'fleet' | 'load'> & { readonly ratePerSecond: number },
  arrivals: string | number,
): readonly FleetScenario[] {
  const { traces, seeds, seed } = plan;
  const requests = lengthOf(plan, base.ratePerSecond);
  const left = typeof arrivals === 'number' ? lastRows(traces[arrivals]?.rows.length ?? 0) : Number.POSITIVE_INFINITY;
  return Array.from({ length: seeds }, (_, number) => ({
    ...plainScenario,
    ...base,
    requests: Math.min(requests, left),
    seed: `judge ${seed} ${number}`,
    arrivals:
      typeof arrivals === 'string'
        ? arrivals
        : { trace: arrivals, fromShare: (number + 0.5) / seeds, after: judgedTraceFrom },
  }));
}

function lengthOf({ requests, seconds = 0 }: JudgePlan, ratePerSecond: number): number {
  return requestsIn(seconds, ratePerSecond, seconds > 0 ? requestsMost : requests);
}

function lastRows(rows: number): number {
  return rows - Math.floor(judgedTraceFrom * rows);
}

/** Requests a second, for the sizes that come. */
function capacityFor(
  { traces, seed }: JudgePlan,
  fleet: Fleet,
  arrivals: string | number,
  solver: LinearSolver,
): number {
  let kinds: readonly Kind[] = mixOf(fleet);
  if (typeof arrivals === 'number') {
    const rows = traces[arrivals]?.rows ?? [];
    kinds = kindsOf(traceArrivals(fleet, rows, { seed, from: rows.length - lastRows(rows.length) })).kinds;
  }
  const capacity = feasibleRate(fleet, kinds, solver);
  if (capacity > 0) return capacity;
  throw intarsiaError(
    'FAILED_PRECONDITION',
    `fleet ${fleet.name} cannot serve the load: some requests can be served in time by no device at all`,
    { fleet: fleet.name },
  );
}
