/**
 * What no plan can be better than, where orders of devices are too many to try.
 *
 * - Sums (latency, cost, energy): the same problem in which devices may be used again.
 * - Interval: no more stages than devices, each as good as the best device at just that shard; and the capacity of all
 *   devices together: when a device needs at least ρ times some share of work for every run of segments, all of them
 *   together need at least the whole work by the sum of 1/ρ.
 *
 * The same figures for a part of the chain say which stages a search can leave out (plan-reach.ts).
 */
import {
  groupByType,
  joulesPerMs,
  usdPerMs,
  type PlanGoal,
  type PlannerDevice,
  type PlannerProblem,
} from './plan-problem.js';
import type { StageTable } from './stage-table.js';

export interface PlanBounds {
  /** No plan is better, in the unit of the goal. Infinite when nothing fits. */
  readonly value: number;
  /** The same where unlike devices share stages; of the interval, else as `value`. */
  readonly shared: number;
  /** Shares of work up to each boundary. */
  readonly work: Float64Array;
  /** ρ by type: milliseconds of a share of work, at least. */
  readonly slowness: ReadonlyMap<string, number>;
  /** Of sums, by boundary: what comes behind a stage that ends there, at least. Absent for the interval. */
  readonly behind?: Float64Array;
}

/** Valid for any tables; `table` holds those of `problem`. */
export function planBounds(problem: PlannerProblem, table: StageTable, goal: PlanGoal): PlanBounds {
  const types = groupByType(problem.devices);
  const firsts = types.map(([device]) => device as PlannerDevice);
  const { segments } = problem;
  const work = segmentWork(problem, firsts);
  const slowness = new Float64Array(firsts.length).fill(Infinity);
  const weights = firsts.map(weightOf(goal));
  const best = new BestRows(segments);
  for (let begin = 0; begin < segments; begin += 1) {
    const row = best.at(begin).fill(Infinity);
    for (const [index, device] of firsts.entries()) {
      const stages = table.from(device, begin, segments);
      slowness[index] = lookAt(stages, {
        row,
        work,
        begin,
        perMs: weights[index] as number,
        rho: slowness[index] as number,
      });
    }
  }
  const bounds = { work, slowness: new Map(firsts.map(({ type }, index) => [type, slowness[index] as number])) };
  if (goal !== 'throughput') {
    const sent = new Float64Array(segments + 1);
    if (goal === 'latency') leastTransfers(table, firsts, sent);
    const value = leastSum(best, sent);
    return { ...bounds, value, shared: value, behind: sumsBehind(best, sent) };
  }
  const power = types.reduce((sum, { length }, index) => sum + length / (slowness[index] as number), 0);
  const capacity = (work[segments] as number) / power;
  // Unlike devices that share a stage may be better at it than the best one.
  return { ...bounds, value: Math.max(capacity, stagesBound(problem, best, capacity)), shared: capacity };
}

/** Rows of the best device at each shard, by begin: flat, since each is read many times. */
class BestRows {
  readonly segments: number;
  readonly #cells: Float64Array;

  constructor(segments: number) {
    this.segments = segments;
    this.#cells = new Float64Array((segments * (segments + 1)) / 2);
  }

  /** By end less begin, less one. */
  at(begin: number): Float64Array {
    const start = begin * this.segments - (begin * (begin - 1)) / 2;
    return this.#cells.subarray(start, start + this.segments - begin);
  }
}

/** Takes what a device needs for each stage from a boundary into the best row; answers its ρ so far. */
function lookAt(
  stages: Float64Array,
  {
    row,
    work,
    begin,
    perMs,
    rho: known,
  }: {
    readonly row: Float64Array;
    readonly work: Float64Array;
    readonly begin: number;
    readonly perMs: number;
    readonly rho: number;
  },
): number {
  let rho = known;
  const before = work[begin] as number;
  for (let length = 1; length <= row.length; length += 1) {
    const ms = stages[length] as number;
    if (ms === Infinity) continue;
    const value = ms * perMs;
    if (value < (row[length - 1] as number)) row[length - 1] = value;
    const share = (work[begin + length] as number) - before;
    // A product first: hardly any shard is the best so far, and divisions take long.
    if (ms < rho * share || rho === Infinity) rho = Math.min(rho, ms / share);
  }
  return rho;
}

/** From the first boundary to the last. @param sent What a transfer costs at least, by boundary. */
function leastSum(best: BestRows, sent: Float64Array): number {
  const { segments } = best;
  const sums = new Float64Array(segments + 1).fill(Infinity);
  sums[0] = 0;
  for (let begin = 0; begin < segments; begin += 1) {
    const value = (sums[begin] as number) + (sent[begin] as number);
    if (value === Infinity) continue;
    const row = best.at(begin);
    for (let length = 1; length <= row.length; length += 1) {
      const total = value + (row[length - 1] as number);
      if (total < (sums[begin + length] as number)) sums[begin + length] = total;
    }
  }
  return sums[segments] as number;
}

/** From each boundary to the last: the transfer there and everything behind it. */
function sumsBehind(best: BestRows, sent: Float64Array): Float64Array {
  const { segments } = best;
  const behind = new Float64Array(segments + 1);
  for (let begin = segments - 1; begin > 0; begin -= 1) {
    const row = best.at(begin);
    let least = Infinity;
    for (let length = 1; length <= row.length; length += 1) {
      const total = (row[length - 1] as number) + (behind[begin + length] as number);
      if (total < least) least = total;
    }
    behind[begin] = least + (sent[begin] as number);
  }
  return behind;
}

/** As many devices as there are, each as good as the best; no transfers. Not looked for below `enough`. */
function stagesBound(
  { devices, stagesMax, replicates = false }: PlannerProblem,
  best: BestRows,
  enough: number,
): number {
  const { segments } = best;
  const count = Math.min(stagesMax ?? Infinity, devices.length);
  // A stage may be shared by all devices of a type.
  const replicas = replicates ? Math.max(...groupByType(devices).map(({ length }) => length)) : 1;
  let reached = new Float64Array(segments + 1).fill(Infinity);
  reached[0] = 0;
  let least = Infinity;
  for (let stage = 0; stage < count && least > enough; stage += 1) {
    const next = new Float64Array(segments + 1).fill(Infinity);
    for (let begin = 0; begin < segments; begin += 1) {
      const value = reached[begin] as number;
      if (value >= least) continue;
      const row = best.at(begin);
      for (let length = 1; length <= row.length; length += 1) {
        const ms = (row[length - 1] as number) / replicas;
        const total = ms > value ? ms : value;
        if (total < (next[begin + length] as number)) next[begin + length] = total;
      }
    }
    least = Math.min(least, next[segments] as number);
    reached = next;
  }
  return least;
}

function leastTransfers(table: StageTable, devices: readonly PlannerDevice[], into: Float64Array): void {
  into.fill(Infinity, 1, into.length - 1);
  for (const from of devices) {
    for (const to of devices) {
      const row = table.transfers(from, to);
      for (let boundary = 1; boundary < into.length - 1; boundary += 1) {
        const ms = row[boundary] as number;
        if (ms < (into[boundary] as number)) into[boundary] = ms;
      }
    }
  }
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
