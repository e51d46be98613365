/**
 * The world that policies are trained and judged in: fleets on virtual time, run by the production gateway, device actors and
 * batch formers. A scenario names a fleet, a load, arrivals and how the world strays from what senders know of it.
 */
import { intarsiaError } from '#core/errors.js';
import { RandomStream } from '#core/random.js';
import type { DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { planFeatureCount } from '#core/scheduling/features.js';
import { serviceMs } from '#core/scheduling/service-profile.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { dispatchFromFile } from '#policies/placement/dispatch-from-file.js';
import type { LinearSolver } from '#ports/linear-solver.js';
import { arrivalProcess } from '#sim/fleet/arrival-process.js';
import { drawArrivals, traceArrivals, type Arrivals } from '#sim/fleet/arrivals.js';
import { fleetDispatch } from '#sim/fleet/fleet-dispatch.js';
import type { FleetFault } from '#sim/fleet/fleet-faults.js';
import { fluidBound } from '#sim/fleet/fleet-bounds.js';
import { lostUsdOf, objectiveRows } from '#sim/fleet/fleet-report.js';
import { fleetClasses, linkMs, type Fleet } from '#sim/fleet/fleet.js';
import { runFleet } from '#sim/fleet/run-fleet.js';
import type { TraceRow } from '#sim/fleet/trace-file.js';
import { batchPlayer } from './batch-player.js';
import { ChoiceWitness } from './choice-witness.js';
import { dispatchPlayer } from './dispatch-player.js';
import {
  DecisionRecorder,
  type Environment,
  type EpisodeOrder,
  type EpisodeRecord,
  type Player,
} from './environment.js';
import { capacityOf } from './fleet-capacity.js';
import { drawNormal } from './layers.js';

/** What every thread that plays is given. Plain data. */
export interface FleetWorldData {
  readonly fleets: readonly Fleet[];
  readonly traces: readonly { readonly name: string; readonly rows: readonly TraceRow[] }[];
  /** How devices form batches, as `batchingByName` reads it. */
  readonly batching: string;
  /** The fluid programme that networks see fills devices to this share of their time. Default 1. */
  readonly planShare?: number;
}

/** Rows of a trace: where the window begins, as a share of where it may. */
export interface TraceWindow {
  readonly trace: number;
  readonly fromShare: number;
  /** Share of the trace from which on rows are taken; nothing before it is touched. Default 0. */
  readonly after?: number;
}

/** What a world needs for players and figures that are not plain data. */
export interface FleetTools {
  /** Loads somebody's own policy. */
  readonly loadPolicy?: (path: string) => Promise<() => DispatchPolicy>;
  /** For bounds. */
  readonly solver?: () => Promise<LinearSolver>;
}

export interface FleetScenario {
  /** Index of the fleet. */
  readonly fleet: number;
  /** Arriving work over what the fleet, as it is in this scenario, can do in time. */
  readonly load: number;
  /** At most. */
  readonly requests: number;
  /** Above 0: it ends after so many virtual seconds of arrivals, or with the last of `requests`. */
  readonly seconds?: number;
  /** Takes the place of `load`: requests a second. */
  readonly ratePerSecond?: number;
  /** A stream, as `arrivalProcess` reads it, or rows of a trace. */
  readonly arrivals: string | TraceWindow;
  readonly seed: string;
  /** Sigma of the factors by which senders err in run times, by type of device. */
  readonly profileError: number;
  /** Senders take run times for so much longer or shorter than they are, which of them drawn by type of device: 0.3 is ±30 %. */
  readonly profileBias?: number;
  readonly priceSpread: number;
  /** Share of the fleet's devices that are there. */
  readonly fleetShare: number;
  readonly faults: readonly FleetFault[];
}

/** A scenario that keeps to the fleet file. */
export const plainScenario: FleetScenario = {
  ...{ fleet: 0, load: 0.7, requests: 1_000, arrivals: 'poisson:rate=1', seed: '1' },
  ...{ profileError: 0, priceSpread: 0, fleetShare: 1, faults: [] },
};

export function fleetEnvironment(world: FleetWorldData, tools: FleetTools = {}): Environment<FleetScenario> {
  return {
    featureCount: planFeatureCount,
    classes: fleetClasses,
    runEpisode: (order) => play(world, tools, order),
  };
}

async function play(
  world: FleetWorldData,
  tools: FleetTools,
  order: EpisodeOrder<FleetScenario>,
): Promise<EpisodeRecord> {
  const { scenario, player, teacher, record, recordEvery, withBound = false } = order;
  const fleet = fleetOf(world, scenario);
  const arrivals = arrivalsOf(world, scenario, fleet);
  const recorder = record ? new DecisionRecorder(planFeatureCount) : undefined;
  const dice = new RandomStream(`dice ${order.dice}`);
  const own = await ownPolicy(player, tools);
  const policy = dispatchPlayer({
    ...{ player, rule: dispatchByName, own, recorder, recordEvery, teacher, dice },
    planShare: world.planShare,
  });
  const witness = new ChoiceWitness(policy);
  const batches = batchPlayer(player.batching ?? world.batching, record);
  const result = await runFleet({
    ...{ fleet, arrivals },
    seed: scenario.seed,
    dispatch: fleetDispatch(witness, { profileError: profileErrors(fleet, scenario) }),
    batching: batches.make,
    faults: scenario.faults,
  });
  const { doneMs, costUsd, joules, spanMs, hash } = result;
  const solver = withBound ? await tools.solver?.() : undefined;
  return {
    outcomes: { ...objectiveRows(fleet, result), arrivedMs: arrivals.atMs, doneMs },
    totals: {
      usd: costUsd.reduce((sum, usd) => sum + usd, lostUsdOf(fleet, result)),
      joules: joules.reduce((sum, value) => sum + value, 0),
      spanMs,
      ...witness.counts,
      ...batches.counts(),
    },
    hash,
    ...(solver === undefined ? {} : { bound: boundOf(fleet, arrivals, solver) }),
    ...(recorder === undefined ? {} : { decisions: recorder.finish() }),
    ...(record && batches.rows.length > 0 ? { batchRows: Float32Array.from(batches.rows) } : {}),
  };
}

async function ownPolicy(player: Player, { loadPolicy }: FleetTools): Promise<DispatchPolicy | undefined> {
  if (player.kind === 'policy') return dispatchFromFile(player.bytes);
  if (player.kind !== 'module') return undefined;
  if (loadPolicy === undefined) {
    throw intarsiaError('UNIMPLEMENTED', `this world loads no code: policy ${player.path}`, { path: player.path });
  }
  return (await loadPolicy(player.path))();
}

/** Windows of the fluid bound: more take longer and are tighter by little. */
const windowsMax = 300;

function boundOf(fleet: Fleet, arrivals: Arrivals, solver: LinearSolver): number {
  const windowMs = Math.max(1_000, (arrivals.atMs.at(-1) ?? 0) / windowsMax);
  return fluidBound(fleet, arrivals, solver, { windowMs });
}

/** The scenario's fleet: some devices gone, prices changed by type. */
function fleetOf(world: FleetWorldData, scenario: FleetScenario): Fleet {
  const fleet = world.fleets[scenario.fleet];
  if (fleet === undefined) {
    throw intarsiaError('INVALID_ARGUMENT', `there is no fleet ${scenario.fleet}; there are ${world.fleets.length}`);
  }
  const random = new RandomStream(`variation ${scenario.seed}`);
  const devices = kept(fleet, scenario.fleetShare, random.stream('devices'));
  if (scenario.priceSpread === 0) return { ...fleet, devices };
  const price = factors(random.stream('prices'), scenario.priceSpread);
  return {
    ...fleet,
    devices: devices.map((device) => ({ ...device, usdPerHour: device.usdPerHour * price(device.type) })),
  };
}

/** What senders believe of run times, times what is so, by device: alike for devices of a type. */
function profileErrors(
  fleet: Fleet,
  { profileError, profileBias = 0, seed }: FleetScenario,
): (device: number) => number {
  if (profileError === 0 && profileBias === 0) return () => 1;
  const random = new RandomStream(`variation ${seed}`);
  const error = factors(random.stream('profiles'), profileError);
  const side = random.stream('profile bias');
  const byDevice = fleet.devices.map(
    ({ type }) => error(type) * (1 + (side.stream(type).next() < 0.5 ? -profileBias : profileBias)),
  );
  return (device) => byDevice[device] ?? 1;
}

/** A lognormal factor for each key, the same whenever it is asked for. */
function factors(random: RandomStream, spread: number): (key: string) => number {
  return (key) => Math.exp(spread * drawNormal(random.stream(key)));
}

/** So many of the devices, such that every model keeps one and every class can still be served in time. */
function kept(fleet: Fleet, share: number, random: RandomStream): Fleet['devices'] {
  if (share >= 1) return fleet.devices;
  const order = fleet.devices.map((device) => ({ device, draw: random.next() }));
  order.sort((left, right) => left.draw - right.draw);
  const gone = new Set<string>();
  const wanted = Math.round(fleet.devices.length * (1 - share));
  for (const { device } of order) {
    if (gone.size >= wanted) break;
    const rest = fleet.devices.filter(({ id }) => id !== device.id && !gone.has(id));
    const isServable = fleet.models.every((model, index) => {
      const least = Math.min(...model.sloMs);
      return rest.some(({ service, ...other }) => {
        const profile = service[index];
        return profile !== undefined && linkMs({ ...other, service }, model, 1) + serviceMs(profile, 1) <= least;
      });
    });
    if (isServable) gone.add(device.id);
  }
  return fleet.devices.filter(({ id }) => !gone.has(id));
}

/** Requests of a run of so many virtual seconds, at least 1 and at most `most`; `most` where no length is given. */
export function requestsIn(seconds: number, ratePerSecond: number, most: number): number {
  return seconds > 0 ? Math.max(1, Math.min(most, Math.round(seconds * ratePerSecond))) : most;
}

const capacities = new WeakMap<Fleet['devices'], number>();

function arrivalsOf(world: FleetWorldData, scenario: FleetScenario, fleet: Fleet): Arrivals {
  const ratePerSecond = scenario.ratePerSecond ?? scenario.load * capacityKnown(fleet);
  const { seed, seconds = 0 } = scenario;
  const requests = requestsIn(seconds, ratePerSecond, scenario.requests);
  if (typeof scenario.arrivals === 'string') {
    return drawArrivals(fleet, arrivalProcess(scenario.arrivals), { seed, requests, ratePerSecond });
  }
  const { trace, fromShare, after = 0 } = scenario.arrivals;
  const rows = world.traces[trace]?.rows ?? [];
  const first = Math.floor(after * rows.length);
  const from = first + Math.floor(fromShare * Math.max(0, rows.length - first - requests));
  return traceArrivals(fleet, rows, { seed, requests, from, ratePerSecond });
}

function capacityKnown(fleet: Fleet): number {
  let capacity = capacities.get(fleet.devices);
  if (capacity === undefined) {
    capacity = capacityOf(fleet);
    capacities.set(fleet.devices, capacity);
  }
  return capacity;
}
