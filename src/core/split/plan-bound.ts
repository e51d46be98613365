/**
 * What no plan can be better than, where orders of devices are too many to try.
 *
 * - Sums (latency, cost, energy): the same problem in which devices may be used again.
 * - Interval: no more stages than devices, each as good as the best device at just that shard; and the capacity of all
 *   devices together: when a device needs at least ρ times some share of work for every run of segments, all of them
 *   together need at least the whole work by the sum of 1/ρ.
 */
import {
  groupByType,
  joulesPerMs,
  usdPerMs,
  type PlanGoal,
  type PlannerDevice,
  type PlannerProblem,
} from './plan-problem.js';
import type { StageTable } from './plan-search.js';

/** Valid for any tables; `table` holds those of `problem`. Infinite when nothing fits. */
export function lowerBound(problem: PlannerProblem, table: StageTable, goal: PlanGoal): number {
  const types = groupByType(problem.devices);
  const firsts = types.map(([device]) => device as PlannerDevice);
  const { segments } = problem;
  // Rows of the best device at each shard, and ρ of each type, in one pass over the tables.
  const work = segmentWork(problem, firsts);
  const slowness = firsts.map(() => Infinity);
  const weigh = weightOf(goal);
  const best = new Float64Array(segments + 1);
  const isSum = goal !== 'throughput';
  // By boundary: least sum up to there, for devices that may be used again. Transfers cost the least of any pair.
  const sums = new Float64Array(segments + 1).fill(Infinity);
  sums[0] = 0;
  const rows: Float64Array[] = [];
  for (let begin = 0; begin < segments; begin += 1) {
    best.fill(Infinity);
    for (const [index, device] of firsts.entries()) {
      const stages = table.from(device, begin);
      const perMs = weigh(device);
      let rho = slowness[index] as number;
      const before = work[begin] as number;
      for (let end = begin + 1; end <= segments; end += 1) {
        const ms = stages[end - begin] as number;
        if (ms === Infinity) continue;
        const value = ms * perMs;
        if (value < (best[end] as number)) best[end] = value;
        const share = ms / ((work[end] as number) - before);
        if (share < rho) rho = share;
      }
      slowness[index] = rho;
    }
    if (isSum)
      extendSums(sums, best, begin, begin === 0 || goal !== 'latency' ? 0 : leastTransfer(problem, firsts, begin));
    else rows.push(best.slice());
  }
  if (isSum) return sums[segments] as number;
  const power = types.reduce((sum, { length }, index) => sum + length / (slowness[index] as number), 0);
  const capacity = (work[segments] as number) / power;
  // Unlike devices that share a stage may be better at it than the best one.
  return problem.mayShare === undefined ? Math.max(capacity, stagesBound(problem, rows)) : capacity;
}

function extendSums(sums: Float64Array, best: Float64Array, begin: number, transfer: number): void {
  const value = (sums[begin] as number) + transfer;
  if (value === Infinity) return;
  for (let end = begin + 1; end < sums.length; end += 1) {
    const total = value + (best[end] as number);
    if (total < (sums[end] as number)) sums[end] = total;
  }
}

/** As many devices as there are, each as good as the best; no transfers. */
function stagesBound(
  { segments, devices, stagesMax, replicates = false }: PlannerProblem,
  rows: readonly Float64Array[],
): number {
  const count = Math.min(stagesMax ?? Infinity, devices.length);
  // A stage may be shared by all devices of a type.
  const replicas = replicates ? Math.max(...groupByType(devices).map(({ length }) => length)) : 1;
  let reached = new Float64Array(segments + 1).fill(Infinity);
  reached[0] = 0;
  let best = Infinity;
  for (let stage = 0; stage < count; stage += 1) {
    const next = new Float64Array(segments + 1).fill(Infinity);
    for (let begin = 0; begin < segments; begin += 1) {
      const value = reached[begin] as number;
      if (value >= best) continue;
      const row = rows[begin] as Float64Array;
      for (let end = begin + 1; end <= segments; end += 1) {
        const ms = (row[end] as number) / replicas;
        const total = ms > value ? ms : value;
        if (total < (next[end] as number)) next[end] = total;
      }
    }
    best = Math.min(best, next[segments] as number);
    reached = next;
  }
  return best;
}

function leastTransfer(problem: PlannerProblem, devices: readonly PlannerDevice[], boundary: number): number {
  let least = Infinity;
  for (const from of devices) {
    for (const to of devices) least = Math.min(least, problem.transferMs(from, to, boundary));
  }
  return least;
}

function weightOf(goal: PlanGoal): (device: PlannerDevice) => number {
  if (goal === 'cost') return usdPerMs;
  return goal === 'energy' ? joulesPerMs : () => 1;
}

/** Shares of work by segment, added up: the mean of what devices say of each segment alone. Positive. */
function segmentWork(problem: PlannerProblem, devices: readonly PlannerDevice[]): Float64Array {
  const work = new Float64Array(problem.segments + 1);
  for (let index = 0; index < problem.segments; index += 1) {
    let sum = 0;
    let count = 0;
    for (const device of devices) {
      const ms = problem.stageMs(device, index, index + 1);
      if (!Number.isFinite(ms)) continue;
      sum += ms;
      count += 1;
    }
    work[index + 1] = (work[index] as number) + Math.max(1e-9, count === 0 ? 0 : sum / count);
  }
  return work;
}
