/**
 * What goes wrong in a fleet, and when: losses drawn from the devices' hazards, and faults that a scenario orders. All of it
 * is decided before the first request, from the seed alone.
 */
import { intarsiaError } from '#core/errors.js';
import type { Random } from '#ports/random.js';
import type { Fleet } from './fleet.js';

/** Moments and durations in ms from the start of the arrivals. */
export type FleetFault =
  /** The device and all it does is gone for a while. */
  | { readonly kind: 'loss'; readonly device: string; readonly atMs: number; readonly forMs: number }
  /** Its runs take `factor` times as long. */
  | {
      readonly kind: 'straggler';
      readonly device: string;
      readonly atMs: number;
      readonly forMs: number;
      readonly factor: number;
    }
  /** Its price is `factor` times its own. */
  | {
      readonly kind: 'price';
      readonly device: string;
      readonly atMs: number;
      readonly forMs: number;
      readonly factor: number;
    }
  /** Senders know the devices as they were `ageMs` ago. */
  | { readonly kind: 'stale'; readonly atMs: number; readonly forMs: number; readonly ageMs: number };

/** Losses by hazard, then those that were ordered, by time. @throws INVALID_ARGUMENT for an unknown device or a bad time. */
export function planFaults(
  fleet: Fleet,
  ordered: readonly FleetFault[],
  horizonMs: number,
  random: Random,
): readonly FleetFault[] {
  const faults: FleetFault[] = [];
  for (const device of fleet.devices) {
    const perMs = (device.spotHazardPerHour + device.failuresPerHour) / 3_600_000;
    if (perMs === 0) continue;
    const own = random.stream(device.id);
    const next = (): number => -Math.log(1 - own.next()) / perMs;
    for (let atMs = next(); atMs < horizonMs; atMs += device.repairMs + next()) {
      faults.push({ kind: 'loss', device: device.id, atMs, forMs: device.repairMs });
    }
  }
  for (const fault of ordered) {
    if (fault.kind !== 'stale' && !fleet.devices.some(({ id }) => id === fault.device)) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `a ${fault.kind} is ordered for ${fault.device}, which the fleet does not have`,
      );
    }
    if (!(fault.atMs >= 0 && fault.forMs > 0)) {
      throw intarsiaError('INVALID_ARGUMENT', `a ${fault.kind} is ordered at ${fault.atMs} ms for ${fault.forMs} ms`);
    }
    faults.push(fault);
  }
  return faults.sort((a, b) => a.atMs - b.atMs);
}
