/** Who uses the processors: a process, the machine, and whoever else while a benchmark measures. Linux. */
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { treePids } from './memory.js';

/** Of /proc. */
const ticksPerSecond = 100;

/** Processor time of a process and its threads; NaN where the system does not tell. */
export function cpuUs(pid: number): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    return ((Number(fields[11]) + Number(fields[12])) / ticksPerSecond) * 1e6;
  } catch {
    return Number.NaN;
  }
}

export interface ProcessorTimes {
  /** Of all processors, and how much of that was work, ms. */
  readonly allMs: number;
  readonly busyMs: number;
  /** Work of this process and those that it started and that still run, ms. */
  readonly ownMs: number;
}

export function processorTimes(): ProcessorTimes {
  const times = cpus().map((processor) => processor.times);
  const idleMs = times.reduce((sum, { idle }) => sum + idle, 0);
  const busyMs = times.reduce((sum, { user, nice, sys, irq }) => sum + user + nice + sys + irq, 0);
  const ownUs = treePids(process.pid).map(cpuUs);
  return {
    ...{ allMs: idleMs + busyMs, busyMs },
    ownMs: ownUs.reduce((sum, us) => sum + (Number.isNaN(us) ? 0 : us), 0) / 1000,
  };
}

/** Share of all processors that others used between two moments, in which no process of ours began or ended. */
export function othersShare(before: ProcessorTimes, after: ProcessorTimes): number {
  const othersMs = after.busyMs - before.busyMs - (after.ownMs - before.ownMs);
  return Math.max(0, othersMs) / Math.max(1, after.allMs - before.allMs);
}
