/**
 * What a fleet can do in time: the rate of requests that a fluid programme can place with every device busy all of its time
 * and every request in the most efficient batch that still meets its target. Loads in training and judging are shares of it.
 */
import { intarsiaError } from '#core/errors.js';
import { serviceMs } from '#core/scheduling/service-profile.js';
import { solveTransport } from '#core/scheduling/transport-plan.js';
import { linkMs, type Fleet } from '#sim/fleet/fleet.js';

/** Requests a second. @throws CONFIG_INVALID naming a model and class that no device can serve in time. */
export function capacityOf(fleet: Fleet): number {
  const shares: number[] = [];
  const ms: number[][] = [];
  for (const [index, model] of fleet.models.entries()) {
    for (const [sloClass, share] of fleet.classShares.entries()) {
      if (share * model.share === 0) continue;
      const row = fleet.devices.map((device) => leastMs(fleet, device, index, model.sloMs[sloClass] ?? Infinity));
      if (row.every((least) => least === Infinity)) {
        throw intarsiaError(
          'CONFIG_INVALID',
          `fleet ${fleet.name}: no device serves ${model.name} within ${model.sloMs[sloClass] ?? 0} ms`,
          { fleet: fleet.name, model: model.name },
        );
      }
      shares.push(share * model.share);
      ms.push(row);
    }
  }
  // Types of devices are one each: the programme is small, and splits a type's load evenly as is best.
  const types = [...new Map(fleet.devices.map(({ type }, index) => [type, index])).values()];
  const counts = types.map((at) => fleet.devices.filter(({ type }) => type === fleet.devices[at]?.type).length);
  const perType = ms.map((row) => types.map((at, type) => (row[at] ?? Infinity) / (counts[type] ?? 1)));
  let low = 0;
  let high = 1;
  while (isServed(shares, perType, high)) high *= 2;
  for (let step = 0; step < 30; step += 1) {
    const middle = (low + high) / 2;
    if (isServed(shares, perType, middle)) low = middle;
    else high = middle;
  }
  return low * 1000;
}

/** Whether so many requests a ms can be placed without dropping any. */
function isServed(shares: readonly number[], ms: readonly (readonly number[])[], ratePerMs: number): boolean {
  const devices = ms[0]?.length ?? 0;
  const rates = shares.map((share) => share * ratePerMs);
  const usdPerMs = Array.from({ length: devices }, () => 1);
  const plan = solveTransport({ rates, ms, usdPerMs, dropUsd: 1e9, busyShare: 1 });
  return rates.every((rate, model) => {
    let placed = 0;
    for (let device = 0; device < devices; device += 1) placed += plan[model * devices + device] ?? 0;
    return placed >= rate * (1 - 1e-6);
  });
}

/** Least busy time a request takes there, in any batch that is in time; Infinity when none is. */
function leastMs(fleet: Fleet, device: Fleet['devices'][number], index: number, sloMs: number): number {
  const model = fleet.models[index];
  const profile = device.service[index];
  if (model === undefined || profile === undefined) return Infinity;
  let least = Infinity;
  for (let items = 1; items <= model.itemsMax; items += 1) {
    const runMs = serviceMs(profile, items);
    if (linkMs(device, model, 1) + runMs <= sloMs) least = Math.min(least, runMs / items);
  }
  return least;
}
