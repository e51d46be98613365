/** What a device tells of itself, as dispatch takes it in. */
import type { DeviceLoad } from '../grid/host-load.js';

/** State of a device at a moment; what is not known is absent. */
export interface DeviceState {
  /** When that was so, on this host's monotonic clock, ms. */
  readonly atMs: number;
  /** 1 cool, 0 at its limit. */
  readonly thermalHeadroom?: number;
  readonly freeMemoryBytes?: number;
}

/** Below it silicon runs as fast as it can, and from the limit on it slows down to cool: degrees Celsius. */
const coolCelsius = 50;
const limitCelsius = 90;

/** 1 where it is cool, 0 at the temperature at which most silicon slows down, linear between. */
export function thermalHeadroom(celsius: number): number {
  return Math.min(1, Math.max(0, (limitCelsius - celsius) / (limitCelsius - coolCelsius)));
}

export function deviceState({ temperatureC, freeMemoryBytes }: DeviceLoad, atMs: number): DeviceState {
  return {
    atMs,
    ...(temperatureC > 0 ? { thermalHeadroom: thermalHeadroom(temperatureC) } : {}),
    ...(freeMemoryBytes === undefined ? {} : { freeMemoryBytes }),
  };
}
