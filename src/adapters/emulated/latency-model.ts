/**
 * How long a run would take on silicon that is not here: the roofline of its peak and its memory bandwidth, derated to
 * what real networks reach, and a fixed cost per operator. Good for comparing devices and policies, not for promises: real
 * kernels differ by a factor of two either way.
 */
import type { RunEstimate } from '#ports/executor.js';

/** What the emulation needs to know of the silicon. */
export interface EmulationProfile {
  /** Shown with everything it measures, such as `nvidia-l4`. */
  readonly key: string;
  readonly memoryBytes: number;
  readonly bandwidthBytesPerSecond: number;
  /** Dense, in the datatype models run in. */
  readonly flopsPerSecond: number;
  readonly busyWatts?: number;
  readonly usdPerHour?: number;
}

/** Share of the peak that dense networks reach. */
const computeShare = 0.6;
/** Share of the memory bandwidth that large reads reach. */
const bandwidthShare = 0.8;
/** Launching one operator on an accelerator. */
const operatorUs = 3;

/** Milliseconds of one run of so many items. */
export function emulatedRunMs(profile: EmulationProfile, estimate: RunEstimate, items: number): number {
  const computeMs = ((estimate.flopsPerItem * items) / (computeShare * profile.flopsPerSecond)) * 1000;
  const bytes = estimate.weightBytes + estimate.activationBytesPerItem * items;
  const memoryMs = (bytes / (bandwidthShare * profile.bandwidthBytesPerSecond)) * 1000;
  return Math.max(computeMs, memoryMs) + (estimate.operators * operatorUs) / 1000;
}
