/** `intarsia simulate`: reads fleet and trace, runs each policy on the same arrivals, compares with what no policy can beat. */
import { basename } from 'node:path';
import type {
  FleetRunReport,
  FleetSimulationReport,
  FleetSimulationRequest,
  ResidencyTrackReport,
} from '#cli/fleet-simulation-report.js';
import { readYamlFile } from '#adapters/yaml/read-yaml.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { intarsiaError } from '#core/errors.js';
import { sloClasses } from '#core/scheduling/slo-class.js';
import type { DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { batchPlayer } from '#policies/learning/batch-player.js';
import { LearnedDispatch } from '#policies/placement/dispatch-learned.js';
import { greedyResidency } from '#policies/residency/residency-greedy.js';
import { plannedResidency } from '#policies/residency/residency-milp.js';
import type { ResidencyProblem } from '#policies/residency/residency-problem.js';
import { replanDefaults } from '#policies/residency/residency-replan.js';
import type { Clock } from '#ports/clock.js';
import type { LinearSolver } from '#ports/linear-solver.js';
import { arrivalProcess } from '#sim/fleet/arrival-process.js';
import { drawArrivals, meanRate, traceArrivals, type Arrivals } from '#sim/fleet/arrivals.js';
import { cheapestFleet, feasibleRate, fluidBound, kindsOf, type Kind } from '#sim/fleet/fleet-bounds.js';
import { fleetDispatch } from '#sim/fleet/fleet-dispatch.js';
import { fleetReport } from '#sim/fleet/fleet-report.js';
import { homeless, residencyProblem, withResidency } from '#sim/fleet/fleet-residency.js';
import type { Fleet } from '#sim/fleet/fleet.js';
import { readFleet } from '#sim/fleet/read-fleet.js';
import { residencyWindows, trackResidency } from '#sim/fleet/residency-track.js';
import { runFleet } from '#sim/fleet/run-fleet.js';
import { fleetPath } from './fleet-path.js';
import { readSimulated } from './learning/contenders.js';
import { traceRows } from './trace-rows.js';

const requestsDefault = 20_000;
/** Windows of the fluid bound: more take longer and are tighter by little. */
const windowsMax = 300;
const windowMsMin = 100;
const hourMs = 3_600_000;

export async function simulateFleet(
  request: FleetSimulationRequest,
  progress: (share: number, words: string) => void,
  clock: Clock,
): Promise<FleetSimulationReport> {
  const path = await fleetPath(request.fleet);
  const isPlanned = request.residency !== 'everywhere';
  const fleet = readFleet(await readYamlFile(path), basename(path), builtInProfiles, { isPlanned });
  const policies = await Promise.all(request.policies.map((name) => readSimulated(name, request.batching)));
  const unscaled = await arrivalsOf(fleet, request, undefined);
  const solver =
    request.bounds || request.load !== undefined || isPlanned || request.replan !== undefined
      ? await (await import('#adapters/highs/highs-solver.js')).loadHighsSolver()
      : undefined;
  const { kinds } = kindsOf(unscaled);
  const feasible = solver === undefined ? 0 : feasibleRate(fleet, kinds, solver);
  if (request.load !== undefined && feasible === 0) {
    throw intarsiaError(
      'FAILED_PRECONDITION',
      `${basename(path)}: some requests can be served in time by no device at all`,
    );
  }
  const arrivals = request.load === undefined ? unscaled : await arrivalsOf(fleet, request, request.load * feasible);
  const ratePerSecond = meanRate(arrivals.atMs);
  // Bounds and references are those of the fleet with everything everywhere: no plan can beat them either.
  const home = isPlanned && solver !== undefined ? settled(fleet, kinds, ratePerSecond, request, solver) : fleet;
  let bound: number | undefined;
  let cheapest: number | undefined;
  if (request.bounds && solver !== undefined) {
    progress(0, 'bounds');
    const windowMs = Math.max(windowMsMin, (arrivals.atMs.at(-1) ?? 0) / windowsMax);
    bound = fluidBound(fleet, arrivals, solver, { windowMs });
    cheapest = feasible > 0 ? cheapestFleet(fleet, kinds, ratePerSecond, solver).usdPerHour : undefined;
  }
  const runs: FleetRunReport[] = [];
  for (const [index, { make, batching }] of policies.entries()) {
    const policy = make();
    const batches = batchPlayer(batching, false);
    const startMs = clock.nowMs();
    const result = await runFleet({
      ...{ fleet: home, arrivals, seed: request.seed },
      dispatch: fleetDispatch(policy),
      batching: batches.make,
      onProgress: (share) => {
        progress((index + share) / policies.length, policy.name);
      },
    });
    const wallMs = clock.nowMs() - startMs;
    const { objective, spanMs, requests: _, ...rest } = fleetReport(fleet, result);
    const { batchDecisions, batchFallbacks } = batches.counts();
    runs.push({
      policy: policy.name,
      batching: batches.make().name,
      ...rest,
      objective: objective.total,
      cost: objective.cost,
      misses: objective.misses + objective.lateness,
      gap: bound === undefined || bound <= 0 ? undefined : objective.total / bound - 1,
      missShare: objective.missShare.map((share) => (Number.isNaN(share) ? null : share)),
      fallbackRate: Math.max(fallbackShare(policy), batchFallbacks / Math.max(1, batchDecisions)),
      virtualMs: spanMs,
      decisionsPerSecond: (result.decisions / wallMs) * 1000,
    });
  }
  return {
    fleet: fleet.name,
    devices: fleet.devices.length,
    requests: arrivals.atMs.length,
    ...{ ratePerSecond, feasiblePerSecond: feasible, capped: arrivals.capped, bound },
    usdPerHour: fleet.devices.reduce((sum, { usdPerHour }) => sum + usdPerHour, 0),
    cheapestUsdPerHour: cheapest,
    residency: isPlanned ? homesOf(home) : undefined,
    ...(request.replan === undefined || solver === undefined
      ? {}
      : {
          residencyOverTime: overTime(
            fleet,
            residencyProblem(fleet, kinds, ratePerSecond),
            request.replan,
            request.seed,
            solver,
          ),
        }),
    ...{ classes: sloClasses, runs },
  };
}

/** Share of decisions that a learned policy's shield left to its rule; 0 for a rule. */
function fallbackShare(policy: DispatchPolicy): number {
  if (!(policy instanceof LearnedDispatch)) return 0;
  const { decisions, fallbacks } = policy.counts;
  return Object.values(fallbacks).reduce((sum, each) => sum + each, 0) / Math.max(1, decisions);
}

/** The fleet with its models where the plan has them. */
function settled(
  fleet: Fleet,
  kinds: readonly Kind[],
  ratePerSecond: number,
  { residency }: FleetSimulationRequest,
  solver: LinearSolver,
): Fleet {
  const problem = residencyProblem(fleet, kinds, ratePerSecond);
  const { lives } = residency === 'greedy' ? greedyResidency(problem) : plannedResidency(problem, solver);
  const home = withResidency(fleet, lives);
  const nowhere = homeless(home);
  if (nowhere.length === 0) return home;
  throw intarsiaError('FAILED_PRECONDITION', `the ${residency} plan has no room for ${nowhere.join(', ')}`, {
    models: nowhere.join(', '),
  });
}

/** An hour of plans made again and again. */
function overTime(
  fleet: Fleet,
  problem: ResidencyProblem,
  seconds: number,
  seed: number,
  solver: LinearSolver,
): readonly ResidencyTrackReport[] {
  const windowMs = seconds * 1000;
  const windows = Math.round(hourMs / windowMs);
  const start = plannedResidency(problem, solver).lives;
  const spot = fleet.devices.map(({ spotHazardPerHour }) => spotHazardPerHour > 0);
  const scenarios = spot.includes(true) ? (['drift', 'spot'] as const) : (['drift'] as const);
  return scenarios.flatMap((scenario) => {
    const course = residencyWindows(scenario, problem, spot, { windowMs, windows, seed });
    const tracks = (['once', 'lp', 'greedy', 'milp'] as const).map((planner) => {
      const replan = planner === 'once' ? undefined : { planner, ...replanDefaults };
      return { planner, ...trackResidency(problem, start, course, solver, { windowMs, replan }) };
    });
    const baseline = tracks.find(({ planner }) => planner === 'lp')?.usd ?? 0;
    return tracks.map(({ planner, usd, missedShare, loads }) => ({
      ...{ scenario, planner, missedShare, loads },
      usdPerHour: (usd * hourMs) / (windows * windowMs),
      change: baseline > 0 ? usd / baseline - 1 : 0,
    }));
  });
}

function homesOf(fleet: Fleet): FleetSimulationReport['residency'] {
  return fleet.devices.map(({ id, service }) => ({
    device: id,
    models: fleet.models.filter((_, index) => service[index] !== undefined).map(({ name }) => name),
  }));
}

async function arrivalsOf(
  fleet: Fleet,
  { trace, arrivals, seed, requests }: FleetSimulationRequest,
  ratePerSecond: number | undefined,
): Promise<Arrivals> {
  const rate = ratePerSecond === undefined ? {} : { ratePerSecond };
  if (trace === '') {
    return drawArrivals(fleet, arrivalProcess(arrivals), { seed, requests: requests ?? requestsDefault, ...rate });
  }
  const rows = await traceRows(trace);
  return traceArrivals(fleet, rows, { seed, ...(requests === undefined ? {} : { requests }), ...rate });
}
