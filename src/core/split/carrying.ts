/**
 * What it costs the devices of a plan to take values in and give them out while all of them run. The bytes are moved by the
 * thread that computes: while it does, it computes nothing. Where the threads of a plan leave the host no core, what the host
 * does for a run comes out of theirs as well. One request alone waits for the same as a transfer, so that only the pace of a
 * full pipe counts it.
 */
import type { PlannerDevice, PlannerProblem, StageSlowdown } from './plan-problem.js';
import type { LinkTimes } from './plan-tables.js';

export interface Carrying {
  /** Bytes of one run at each boundary of the problem: the model's inputs first, its outputs last. */
  readonly bytes: readonly number[];
  /** The way from a device's executor to another one of the same kind: out and in. Absent: nothing is carried there. */
  readonly way: (device: PlannerDevice) => Pick<LinkTimes, 'fixedMs' | 'msPerByte'> | undefined;
  /** Whether a device shares the host's cores, and all of them compute while it runs beside those; beside more, too. */
  readonly isFull: (device: PlannerDevice, others: readonly PlannerDevice[]) => boolean;
}

/** The problem with what carrying costs its stages, instead of any slowdown that it has. */
export function withCarrying(problem: PlannerProblem, { bytes, way, isFull }: Carrying): PlannerProblem {
  const slowdown = (device: PlannerDevice, others: readonly PlannerDevice[]): StageSlowdown => {
    const times = way(device);
    if (times === undefined) return () => 1;
    // One way is half of both, and so is the host's part of what every run takes.
    const fixedMs = isFull(device, others) ? times.fixedMs : times.fixedMs / 2;
    const msPerByte = times.msPerByte / 2;
    return (from, to, ms) => {
      if (!(ms > 0) || ms === Infinity) return 1;
      return 1 + (msPerByte * ((bytes[from] ?? 0) + (bytes[to] ?? 0)) + fixedMs) / ms;
    };
  };
  return { ...problem, slowdown, slowdownLeast: (device) => slowdown(device, []) };
}
