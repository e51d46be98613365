/** Fleets for tests, small enough to be reckoned by hand. */
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { arrivalProcess } from '#sim/fleet/arrival-process.js';
import { drawArrivals, type Arrivals } from '#sim/fleet/arrivals.js';
import { fleetDispatch } from '#sim/fleet/fleet-dispatch.js';
import type { Fleet } from '#sim/fleet/fleet.js';
import { readFleet } from '#sim/fleet/read-fleet.js';
import { runFleet, type FleetRun } from '#sim/fleet/run-fleet.js';
import type { SimulationResult } from '#sim/fleet/fleet-result.js';
import { batchingByName } from '#policies/batching/batching-by-name.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';

/** One model on devices that stand beside the gateway; `tables` by device name. */
export function plainFleet(
  tables: Readonly<Record<string, Readonly<Record<number, number>>>>,
  changes: {
    readonly itemsMax?: number;
    readonly noise?: number;
    readonly sloMs?: object;
    readonly classes?: object;
  } = {},
): Fleet {
  const { itemsMax = 1, noise = 0, sloMs = { interactive: 1e6, standard: 1e6, batch: 1e6 } } = changes;
  const model = { name: 'm', itemsMax, memoryMiB: 1, loadMs: 1, sloMs, tables };
  const device = { tier: 'edge', usdPerHour: 3.6, watts: 100, netMs: 0, linkMBs: 1e9 };
  const devices = Object.keys(tables).map((name) => ({ name, ...device }));
  const { classes = { interactive: { share: 0 }, standard: { share: 1 }, batch: { share: 0 } } } = changes;
  return readFleet({ name: 'plain', noise, classes, models: [model], devices }, 'plain.yaml', builtInProfiles);
}

/** Arrivals as given, one item each, all of one model and class. */
export function arrivalsAt(...atMs: readonly number[]): Arrivals {
  const { length } = atMs;
  return {
    atMs: Float64Array.from(atMs),
    model: new Uint16Array(length),
    sloClass: new Uint8Array(length).fill(1),
    items: new Uint16Array(length).fill(1),
    capped: 0,
  };
}

export function poisson(fleet: Fleet, ratePerSecond: number, requests: number, seed = 1): Arrivals {
  return drawArrivals(fleet, arrivalProcess('poisson'), { seed, requests, ratePerSecond });
}

export function run(
  fleet: Fleet,
  arrivals: Arrivals,
  options: Partial<Omit<FleetRun, 'dispatch' | 'batching'>> & {
    readonly dispatch?: string;
    readonly batching?: string;
  } = {},
): Promise<SimulationResult> {
  const { dispatch = 'sed', batching = 'greedy', ...rest } = options;
  return runFleet({
    ...{ fleet, arrivals, seed: 1 },
    dispatch: fleetDispatch(dispatchByName(dispatch)),
    batching: () => batchingByName(batching),
    ...rest,
  });
}

/** Milliseconds from arrival to answer. */
export function takenMs({ arrivals, doneMs }: SimulationResult): Float64Array {
  return doneMs.map((done, index) => done - (arrivals.atMs[index] as number));
}

export function mean(values: Iterable<number>): number {
  let sum = 0;
  let count = 0;
  for (const value of values) {
    sum += value;
    count += 1;
  }
  return sum / count;
}
