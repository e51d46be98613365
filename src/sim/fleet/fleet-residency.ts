/** A fleet's models and devices as a residency problem, and the fleet as a plan leaves it. */
import type { ResidencyChoice, ResidencyProblem } from '#policies/residency/residency-problem.js';
import { leastBusyMs, type Kind } from './fleet-bounds.js';
import { References } from './fleet-report.js';
import type { Fleet } from './fleet.js';

/** What an item that nobody serves costs, in units of the dearest reference: as much as a miss in the objective. */
const missWeight = 10;
const horizonMsDefault = 600_000;
/** Means alone would fill devices to the brim, and requests would queue behind painters: half of their time is kept free. */
const busyShare = 0.5;

/** The problem of serving those kinds at that rate, beginning with nothing loaded. */
export function residencyProblem(fleet: Fleet, kinds: readonly Kind[], ratePerSecond: number): ResidencyProblem {
  const total = kinds.reduce((sum, { count }) => sum + count, 0);
  const references = new References(fleet);
  const dearest = Math.max(...kinds.map(({ model, sloClass, items }) => references.of(model, sloClass, items).usd));
  return {
    devices: fleet.devices.map(({ id, memoryBytes, usdPerHour }) => ({ id, memoryBytes, usdPerHour, resident: [] })),
    models: fleet.models.map(({ name, memoryBytes, loadMs }) => ({ name, bytes: memoryBytes, loadMs })),
    // A request is what is served or missed, whatever its items.
    streams: kinds.map((kind) => ({
      model: kind.model,
      itemsPerSecond: (ratePerSecond * kind.count) / total,
      busyMs: fleet.devices.map((device) => leastBusyMs(fleet, device, kind)),
    })),
    missUsd: missWeight * (dearest > 0 ? dearest : 1),
    horizonMs: horizonMsDefault,
    busyShare,
  };
}

/** The fleet with each device serving what lives there, and requests only for models that live somewhere. */
export function withResidency(fleet: Fleet, lives: ResidencyChoice): Fleet {
  return {
    ...fleet,
    devices: fleet.devices.map((device, at) => ({
      ...device,
      service: device.service.map((profile, model) => (lives[at]?.[model] === true ? profile : undefined)),
    })),
  };
}

/** Names of models that live nowhere: their requests could not be served. */
export function homeless(fleet: Fleet): readonly string[] {
  return fleet.models
    .filter((_, index) => fleet.devices.every(({ service }) => service[index] === undefined))
    .map(({ name }) => name);
}
