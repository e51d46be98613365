/**
 * The latest live figures of the silicon: load, memory, power, temperature. Read in the background at a bounded pace; a
 * reader gets the last figures without waiting.
 */
import type { DeviceId } from '#core/ids.js';

/** What the system tells is present, what it does not is absent; nothing here is estimated. */
export interface DeviceReading {
  /** 0 to 1. */
  readonly utilization?: number;
  readonly memoryUsedBytes?: number;
  readonly memoryTotalBytes?: number;
  readonly powerWatts?: number;
  readonly powerLimitWatts?: number;
  readonly temperatureCelsius?: number;
  /** Joules since reading began: power integrated over the intervals between readings. */
  readonly energyJoules?: number;
  /** Monotonic milliseconds of the reading. */
  readonly atMs: number;
}

export interface DeviceReadings {
  /** Undefined before the first reading, and for devices of which the system tells nothing. */
  latest(device: DeviceId): DeviceReading | undefined;
}
