/** Who uses the processors: processes of ours, and whoever else. From /proc, so on Linux alone. */
import { readFileSync } from 'node:fs';

/** Of /proc, on every system that Node.js runs on. */
const msPerTick = 10;
/** Columns of the processors' line that are no work: idle, and waiting for disks. */
const idleColumns: ReadonlySet<number> = new Set([3, 4]);
/** user, nice, system, idle, iowait, irq, softirq, steal: what follows is counted in the first two as well. */
const columns = 8;

export interface ProcessorTimes {
  /** Of all processors, and how much of that was work, that of other machines on the same silicon included; ms. */
  readonly allMs: number;
  readonly busyMs: number;
  /** Work of the processes asked for, ms. */
  readonly ownMs: number;
}

/** Undefined where the system does not tell. A process that is gone counts as one that did nothing. */
export function processorTimes(pids: readonly number[]): ProcessorTimes | undefined {
  const line = textOf('/proc/stat')
    ?.split('\n', 1)[0]
    ?.split(/\s+/)
    .slice(1, 1 + columns)
    .map(Number);
  if (line === undefined || line.length < columns) return undefined;
  let allMs = 0;
  let busyMs = 0;
  for (const [column, ticks] of line.entries()) {
    allMs += ticks * msPerTick;
    if (!idleColumns.has(column)) busyMs += ticks * msPerTick;
  }
  return { allMs, busyMs, ownMs: pids.reduce((sum, pid) => sum + (processMs(pid) ?? 0), 0) };
}

/** Processor time of a process and its threads, ms; undefined where the system does not tell. */
export function processMs(pid: number): number | undefined {
  // The name may have spaces and brackets in it; what follows its last bracket is numbers.
  const fields = textOf(`/proc/${pid}/stat`)?.split(') ').at(-1)?.split(' ');
  if (fields === undefined) return undefined;
  return (Number(fields[11]) + Number(fields[12])) * msPerTick;
}

/** Share of all processors that others used between two moments. */
export function othersShare(before: ProcessorTimes, after: ProcessorTimes): number {
  const othersMs = after.busyMs - before.busyMs - (after.ownMs - before.ownMs);
  return Math.max(0, othersMs) / Math.max(1, after.allMs - before.allMs);
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
