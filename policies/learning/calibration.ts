/**
 * Whether a simulation tells the truth: times of answers as they were measured against those simulated for the same requests.
 * Distance of Kolmogorov and Smirnov between the two distributions, and the error of the median and of the 99th hundredth.
 */
import { intarsiaError } from '#core/errors.js';

export interface Calibration {
  readonly measured: number;
  readonly simulated: number;
  /** Largest difference of the two distribution functions, 0 to 1. */
  readonly ksDistance: number;
  /** Measured, ms. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Simulated over measured, less 1. */
  readonly p50Error: number;
  readonly p99Error: number;
  readonly passed: boolean;
}

/** What a simulator must keep to for its verdicts to count. */
export const calibrationLimits = { ksDistance: 0.1, p50Error: 0.1, p99Error: 0.2 } as const;

/** Times in ms, in any order. @throws FAILED_PRECONDITION when either is empty, INVALID_ARGUMENT for a time that is none. */
export function calibrate(measuredMs: Float64Array, simulatedMs: Float64Array): Calibration {
  for (const [name, times] of Object.entries({ measured: measuredMs, simulated: simulatedMs })) {
    if (times.length === 0) throw intarsiaError('FAILED_PRECONDITION', `nothing ${name} to compare`);
    const strange = times.find((time) => !(time >= 0 && time < Infinity));
    if (strange !== undefined) throw intarsiaError('INVALID_ARGUMENT', `a ${name} time is ${strange} ms`);
  }
  const measured = measuredMs.slice().sort();
  const simulated = simulatedMs.slice().sort();
  const [p50Ms, p99Ms] = [percentile(measured, 0.5), percentile(measured, 0.99)];
  const p50Error = percentile(simulated, 0.5) / p50Ms - 1;
  const p99Error = percentile(simulated, 0.99) / p99Ms - 1;
  const ksDistance = distance(measured, simulated);
  return {
    measured: measured.length,
    simulated: simulated.length,
    ...{ ksDistance, p50Ms, p99Ms, p50Error, p99Error },
    passed:
      ksDistance < calibrationLimits.ksDistance &&
      Math.abs(p50Error) < calibrationLimits.p50Error &&
      Math.abs(p99Error) < calibrationLimits.p99Error,
  };
}

/** Smallest value with at least that share at or below it. */
function percentile(sorted: Float64Array, share: number): number {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] as number;
}

/** Both ascending. Equal values are passed together. */
function distance(left: Float64Array, right: Float64Array): number {
  let most = 0;
  let one = 0;
  let other = 0;
  while (one < left.length && other < right.length) {
    const value = Math.min(left[one] as number, right[other] as number);
    while (left[one] === value) one += 1;
    while (right[other] === value) other += 1;
    most = Math.max(most, Math.abs(one / left.length - other / right.length));
  }
  return most;
}
