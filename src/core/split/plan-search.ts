/**
 * One search through a space: dynamic programming over the boundaries of the chain, a row for each stage choice.
 *
 * Either a weighted sum of latency, dollars and joules is made small, with no stage and no transfer above a limit; or the
 * slowest stage or transfer is. Both are exact over the space they are given.
 */
import {
  groupByType,
  joulesPerMs,
  usdPerMs,
  type PlannedStage,
  type PlannerDevice,
  type PlannerProblem,
} from './plan-problem.js';
import type { SearchSpace } from './plan-space.js';

/** What is made small. */
export type Objective =
  | { readonly kind: 'interval' }
  | {
      readonly kind: 'sum';
      readonly perMs: number;
      readonly perUsd: number;
      readonly perJoule: number;
      /** Longest interval allowed, ms. */
      readonly intervalMsMax: number;
    };

export const latencyAlone = { kind: 'sum', perMs: 1, perUsd: 0, perJoule: 0, intervalMsMax: Infinity } as const;
export const costAlone = { kind: 'sum', perMs: 0, perUsd: 1, perJoule: 0, intervalMsMax: Infinity } as const;
export const energyAlone = { kind: 'sum', perMs: 0, perUsd: 0, perJoule: 1, intervalMsMax: Infinity } as const;

export interface SearchResult {
  readonly value: number;
  readonly stages: readonly PlannedStage[];
}

/** Cells of kept tables: 8 bytes each. */
const keptCellsMax = 10_000_000;
/** Limits are met up to rounding. */
const rounding = 1 + 1e-12;

/** Times of stages by type and begin, asked of the problem once where there is room. Infinite where one does not fit. */
export class StageTable {
  readonly problem: PlannerProblem;
  readonly #kept: Map<string, (Float64Array | undefined)[]> | undefined;
  readonly #scratch: Float64Array;

  constructor(problem: PlannerProblem) {
    this.problem = problem;
    const types = new Set(problem.devices.map(({ type }) => type)).size;
    this.#kept = (types * problem.segments ** 2) / 2 <= keptCellsMax ? new Map() : undefined;
    this.#scratch = new Float64Array(problem.segments + 1);
  }

  /** By end less begin. Valid until the next call. */
  from(device: PlannerDevice, begin: number): Float64Array {
    let rows = this.#kept?.get(device.type);
    if (rows === undefined) {
      rows = [];
      this.#kept?.set(device.type, rows);
    }
    const known = rows[begin];
    if (known !== undefined) return known;
    const filled = this.#fill(device, begin, this.#scratch);
    if (this.#kept === undefined) return filled.subarray(begin);
    const row = filled.slice(begin);
    rows[begin] = row;
    return row;
  }

  #fill(device: PlannerDevice, begin: number, into: Float64Array): Float64Array {
    const { fillStages, stageBytes, stageMs } = this.problem;
    if (fillStages !== undefined) {
      fillStages(device, begin, into);
      return into;
    }
    for (let end = begin + 1; end < into.length; end += 1) {
      into[end] = stageBytes(begin, end) > device.memoryBytes ? Infinity : stageMs(device, begin, end);
    }
    return into;
  }
}

/** By end: the best value of a plan up to there whose last stage is this row's, where that stage began, and from what row. */
interface Filled {
  readonly value: Float64Array;
  readonly begin: Int32Array;
  readonly before: Int32Array;
}

/** The best ways to come from a state to a device, by boundary. */
interface Arrivals {
  readonly value: Float64Array;
  readonly row: Int32Array;
}

/** The best plan of the space; undefined when there is none. */
export function search(space: SearchSpace, table: StageTable, objective: Objective): SearchResult | undefined {
  const { problem } = table;
  const { segments } = problem;
  const filled: Filled[] = [];
  const arrivals = new Map<string, Arrivals>();
  let best = Infinity;
  let bestRow = -1;
  for (const { devices, source } of space.rows) {
    const device = devices[0] as PlannerDevice;
    const key = `${source} ${device.type}`;
    let arrived = arrivals.get(key);
    if (arrived === undefined) {
      arrived = arrive(space, source, { device, filled, problem, objective });
      arrivals.set(key, arrived);
    }
    const row: Filled = {
      value: new Float64Array(segments + 1).fill(Infinity),
      begin: new Int32Array(segments + 1),
      before: new Int32Array(segments + 1).fill(-1),
    };
    for (let begin = 0; begin < segments; begin += 1) {
      const value = arrived.value[begin] as number;
      if (value === Infinity || value >= best) continue;
      const stages = table.from(device, begin);
      const place = { begin, before: arrived.row[begin] as number, value };
      if (objective.kind === 'interval') extendInterval(row, stages, place, devices.length);
      else {
        const perMs = objective.perMs + objective.perUsd * usdPerMs(device) + objective.perJoule * joulesPerMs(device);
        extendSum(row, stages, place, { perMs, msMax: objective.intervalMsMax * devices.length * rounding });
      }
    }
    filled.push(row);
    const whole = row.value[segments] as number;
    if (whole < best) {
      best = whole;
      bestRow = filled.length - 1;
    }
  }
  return bestRow < 0 ? undefined : { value: best, stages: trace(space, problem, filled, bestRow) };
}

interface Place {
  readonly begin: number;
  readonly before: number;
  readonly value: number;
}

function extendInterval(row: Filled, stages: Float64Array, { begin, before, value }: Place, replicas: number): void {
  const { value: values, begin: begins, before: rows } = row;
  const share = 1 / replicas;
  for (let end = begin + 1; end < values.length; end += 1) {
    const stage = (stages[end - begin] as number) * share;
    const total = stage > value ? stage : value;
    if (total < (values[end] as number)) {
      values[end] = total;
      begins[end] = begin;
      rows[end] = before;
    }
  }
}

function extendSum(
  row: Filled,
  stages: Float64Array,
  { begin, before, value }: Place,
  { perMs, msMax }: { readonly perMs: number; readonly msMax: number },
): void {
  const { value: values, begin: begins, before: rows } = row;
  for (let end = begin + 1; end < values.length; end += 1) {
    const ms = stages[end - begin] as number;
    if (ms > msMax || ms === Infinity) continue;
    const total = value + ms * perMs;
    if (total < (values[end] as number)) {
      values[end] = total;
      begins[end] = begin;
      rows[end] = before;
    }
  }
}

function arrive(
  { rows, states }: SearchSpace,
  source: number,
  {
    device,
    filled,
    problem,
    objective,
  }: {
    readonly device: PlannerDevice;
    readonly filled: readonly Filled[];
    readonly problem: PlannerProblem;
    readonly objective: Objective;
  },
): Arrivals {
  const { segments } = problem;
  const value = new Float64Array(segments + 1).fill(Infinity);
  const row = new Int32Array(segments + 1).fill(-1);
  value[0] = 0;
  for (const index of states[source] ?? []) {
    const from = rows[index]?.devices[0] ?? device;
    const values = filled[index]?.value as Float64Array;
    for (let boundary = 1; boundary < segments; boundary += 1) {
      const here = values[boundary] as number;
      if (here >= (value[boundary] as number)) continue;
      const ms = problem.transferMs(from, device, boundary);
      let total: number;
      if (objective.kind === 'interval') total = here > ms ? here : ms;
      else if (ms === Infinity || ms > objective.intervalMsMax * rounding) continue;
      else total = here + ms * objective.perMs;
      if (total < (value[boundary] as number)) {
        value[boundary] = total;
        row[boundary] = index;
      }
    }
  }
  return { value, row };
}

function trace(
  space: SearchSpace,
  problem: PlannerProblem,
  filled: readonly Filled[],
  last: number,
): readonly PlannedStage[] {
  const stages: PlannedStage[] = [];
  let at = last;
  let to = problem.segments;
  while (at >= 0) {
    const { begin, before } = filled[at] as Filled;
    const { devices } = space.rows[at] as SearchSpace['rows'][number];
    const from = begin[to] as number;
    stages.unshift({ device: devices[0] as PlannerDevice, devices, from, to });
    at = before[to] as number;
    to = from;
  }
  return space.isByCounts ? named(stages, problem) : stages;
}

/** Gives the stages of a plan over types their own devices. */
function named(stages: readonly PlannedStage[], { devices }: PlannerProblem): readonly PlannedStage[] {
  const left = new Map(groupByType(devices).map((group) => [group[0]?.type ?? '', [...group]]));
  return stages.map((stage) => {
    const mine = left.get(stage.device.type)?.splice(0, stage.devices.length) ?? [];
    return { ...stage, device: mine[0] ?? stage.device, devices: mine };
  });
}
