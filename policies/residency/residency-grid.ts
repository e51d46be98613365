/**
 * Residency of a live grid: what the leader knows of hosts, deployments and demand as a residency problem, and the next plan as
 * places for deployments. Only deployments that ask for it (`residency: { min, max }`) are moved; what else is assigned takes
 * its memory and stays.
 *
 * What it does not know it says so by: a device on which a model never ran is taken to be as much faster or slower than those on
 * which it did as their speeds say; loading takes as long as its bytes at `loadBytesPerMs`; a price that nobody gave is one for all.
 */
import type { DemandRow } from '#core/grid/demand.js';
import { isDeviceAllowed, isHostAllowed } from '#core/grid/placement-rules.js';
import type { Deployment, GridDevice, HostActual, HostAssignment, View } from '#core/grid/records.js';
import type { LinearSolver } from '#ports/linear-solver.js';
import { bytesOn, costOf, type ResidencyChoice, type ResidencyProblem } from './residency-problem.js';
import { replanDefaults, replanResidency } from './residency-replan.js';

export interface GridResidencyInput {
  readonly view: View;
  /** Those that ask for it, each with the bytes of one copy. */
  readonly deployments: readonly { readonly deployment: PlannedDeployment; readonly bytes: number }[];
  readonly assignments: readonly HostAssignment[];
  readonly actuals: readonly HostActual[];
  readonly demand: readonly (DemandRow & { readonly host: string })[];
}

export type PlannedDeployment = Deployment & { readonly residency: NonNullable<Deployment['residency']> };

export interface GridPlace {
  readonly host: string;
  readonly device: string;
}

export interface GridResidency {
  /** Deployments that are to be served elsewhere or by another number of copies. */
  readonly changes: readonly { readonly deployment: PlannedDeployment; readonly places: readonly GridPlace[] }[];
  /** Forecast of a while in US dollars: if all stays, of the linear baseline, and of what was decided. */
  readonly keptUsd: number;
  readonly baselineUsd: number;
  readonly usd: number;
}

/** Devices times models that are planned for at once: a greedy plan tries each. */
export const residencyCellsMax = 4096;

const horizonMs = 600_000;
/** Means alone would fill devices to the brim. */
const busyShare = 0.5;
/** An item that nobody serves costs so many times the dearest that somebody does. */
const missWeight = 10;
const unknownUsdPerHour = 0.1;
const unknownMsPerItem = 10;
const loadMsMin = 500;
const loadBytesPerMs = 200_000;

interface Seat extends GridPlace {
  readonly silicon: GridDevice;
  readonly allows: readonly boolean[];
}

/** @throws INTERNAL when the solver fails. */
export function planGridResidency(input: GridResidencyInput, solver: LinearSolver): GridResidency {
  const { deployments } = input;
  const seats = seatsOf(input);
  const problem = problemOf(input, seats);
  const nothing = { changes: [], keptUsd: 0, baselineUsd: 0, usd: 0 };
  if (deployments.length === 0 || seats.length === 0 || seats.length * deployments.length > residencyCellsMax)
    return nothing;
  const { lives, keptUsd, baselineUsd } = replanResidency(problem, solver, { planner: 'greedy', ...replanDefaults });
  const now = problem.devices.map(({ resident }) => deployments.map((_, model) => resident.includes(model)));
  const bounded = withinBounds(problem, input, lives);
  const { usd } = costOf(problem, bounded);
  const isNeeded = deployments.some(({ deployment }, model) => !isKept(deployment, countOf(now, model), seats));
  // Bounds may undo what a plan was to save.
  const next = isNeeded || keptUsd - usd > replanDefaults.hysteresis * keptUsd ? bounded : now;
  const changes = deployments.flatMap(({ deployment }, model) => {
    const places = seats
      .filter((_, device) => next[device]?.[model] === true)
      .map(({ host, device }) => ({ host, device }));
    const isSame = seats.every((_, device) => next[device]?.[model] === now[device]?.[model]);
    return places.length === 0 || (isSame && isWritten(deployment, places)) ? [] : [{ deployment, places }];
  });
  return { changes, keptUsd, baselineUsd, usd: next === now ? keptUsd : usd };
}

/** The deployment as it is to be written: served at these places, as far as its constraints can say so. */
export function deploymentAt(deployment: PlannedDeployment, places: readonly GridPlace[]): Deployment {
  const { hosts, devices } = namesOf(places);
  return {
    ...deployment,
    replicas: places.length,
    constraints: { ...deployment.residency.constraints, hosts, devices },
  };
}

function namesOf(places: readonly GridPlace[]): {
  readonly hosts: readonly string[];
  readonly devices: readonly string[];
} {
  return {
    hosts: [...new Set(places.map(({ host }) => host))].sort(),
    devices: [...new Set(places.map(({ device }) => device))].sort(),
  };
}

function isWritten({ replicas, constraints }: Deployment, places: readonly GridPlace[]): boolean {
  const { hosts, devices } = namesOf(places);
  return (
    replicas === places.length &&
    constraints.hosts?.join() === hosts.join() &&
    constraints.devices?.join() === devices.join()
  );
}

/** Enough copies, and nowhere that is gone. */
function isKept({ residency, constraints }: PlannedDeployment, copies: number, seats: readonly Seat[]): boolean {
  const isThere = (constraints.hosts ?? []).every((name) => seats.some(({ host }) => host === name));
  return copies >= residency.min && copies <= residency.max && isThere;
}

/** Devices that may serve, in the order of their names. */
function seatsOf({ view, deployments }: GridResidencyInput): readonly Seat[] {
  return [...view.hosts.values()]
    .filter(({ state, cordoned }) => state === 'up' && !cordoned)
    .flatMap((host) =>
      host.record.devices.map((silicon) => ({
        ...{ host: host.record.host, device: silicon.id, silicon },
        allows: deployments.map(({ deployment: { residency } }) => {
          return isHostAllowed(host, residency.constraints) && isDeviceAllowed(silicon, residency.constraints);
        }),
      })),
    )
    .sort((one, other) => compare(one.host, other.host) || compare(one.device, other.device));
}

function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

function problemOf(input: GridResidencyInput, seats: readonly Seat[]): ResidencyProblem {
  const { deployments, assignments, actuals, demand } = input;
  const names = deployments.map(({ deployment }) => deployment.name);
  // What was said by hosts that are gone is asked of others by now.
  const hosts = new Set(seats.map(({ host }) => host));
  const usdPerHour = seats.map(({ silicon }) => (silicon.pricePerHour > 0 ? silicon.pricePerHour : unknownUsdPerHour));
  const streams = deployments.map(({ deployment }, model) => {
    const own = demand.filter(
      ({ host, model: name, version }) =>
        name === deployment.model && version === deployment.version && hosts.has(host),
    );
    const known = seats.map(
      ({ host, device }) => own.find((row) => row.host === host && row.device === device)?.msPerItem ?? 0,
    );
    // Of a device of speed 1.
    const plain = known.flatMap((ms, at) => (ms > 0 ? [ms * speedOf(seats[at])] : []));
    const usual = plain.length === 0 ? unknownMsPerItem : plain.reduce((sum, ms) => sum + ms, 0) / plain.length;
    return {
      model,
      itemsPerSecond: own.reduce((sum, { itemsPerSecond }) => sum + itemsPerSecond, 0),
      busyMs: seats.map((seat, at) => {
        const ms = known[at] ?? 0;
        return seat.allows[model] !== true ? Infinity : ms > 0 ? ms : usual / speedOf(seat);
      }),
    };
  });
  const dearest = Math.max(
    ...streams.flatMap(({ busyMs }) => busyMs.map((ms, at) => (ms < Infinity ? ms * (usdPerHour[at] ?? 0) : 0))),
    1e-9,
  );
  return {
    devices: seats.map(({ host, device, silicon }, at) => {
      const assigned = assignments.find((each) => each.host === host)?.replicas ?? [];
      const others = (actuals.find((each) => each.host === host)?.replicas ?? [])
        .filter((replica) => replica.device === device && !names.includes(replica.deployment))
        .reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
      return {
        id: `${host}/${device}`,
        memoryBytes: Math.max(0, silicon.memoryBytes - others),
        usdPerHour: usdPerHour[at] ?? 0,
        resident: names.flatMap((name, model) =>
          assigned.some((replica) => replica.deployment === name && replica.device === device) ? [model] : [],
        ),
      };
    }),
    models: deployments.map(({ deployment, bytes }) => {
      return { name: deployment.name, bytes, loadMs: Math.max(loadMsMin, bytes / loadBytesPerMs) };
    }),
    streams,
    missUsd: (missWeight * dearest) / 3_600_000,
    ...{ horizonMs, busyShare },
  };
}

function speedOf(seat: Seat | undefined): number {
  return seat !== undefined && seat.silicon.speed > 0 ? seat.silicon.speed : 1;
}

function countOf(lives: ResidencyChoice, model: number): number {
  return lives.filter((row) => row[model] === true).length;
}

/** The plan with as many copies of each as its bounds allow: one by one those are added or left out that cost least by that. */
function withinBounds(
  problem: ResidencyProblem,
  { deployments }: GridResidencyInput,
  lives: ResidencyChoice,
): ResidencyChoice {
  let bounded = lives;
  // First what is too much: that makes room for what is missing.
  for (const isThere of [true, false]) {
    for (const [model, { deployment }] of deployments.entries()) {
      const { min, max } = deployment.residency;
      const isWrong = (count: number): boolean => (isThere ? count > max : count < min);
      while (isWrong(countOf(bounded, model))) {
        const next = bestFlip(problem, bounded, model, isThere);
        if (next === undefined) break;
        bounded = next;
      }
    }
  }
  return bounded;
}

/** The choice with one copy more, or one less, that costs least; undefined when there is none. */
function bestFlip(
  problem: ResidencyProblem,
  lives: ResidencyChoice,
  model: number,
  isThere: boolean,
): ResidencyChoice | undefined {
  let best: ResidencyChoice | undefined;
  let leastUsd = Infinity;
  for (const [device, row] of lives.entries()) {
    if (row[model] !== isThere || problem.streams[model]?.busyMs[device] === Infinity) continue;
    const flipped = row.map((each, at) => (at === model ? !isThere : each));
    if (!isThere && bytesOn(problem, flipped) > (problem.devices[device]?.memoryBytes ?? 0)) continue;
    const tried = lives.map((each, at) => (at === device ? flipped : each));
    const { usd } = costOf(problem, tried);
    if (usd < leastUsd) [best, leastUsd] = [tried, usd];
  }
  return best;
}
