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
  type PlanGoal,
  type PlannedStage,
  type PlannerDevice,
  type PlannerProblem,
} from './plan-problem.js';
import type { SearchSpace, SpaceRow } from './plan-space.js';
import type { SearchRows, StageTable } from './stage-table.js';

export interface SumObjective {
  readonly kind: 'sum';
  readonly perMs: number;
  readonly perUsd: number;
  readonly perJoule: number;
  /** Longest interval allowed, ms. */
  readonly intervalMsMax: number;
}

/** What is made small. */
export type Objective = { readonly kind: 'interval' } | SumObjective;

/**
 * Which ends of stages a search looks at: others are only in plans that are worse than one that is known already. What is
 * found is the same without it.
 */
export interface Reach {
  readonly ofRow: (row: SpaceRow) => {
    /** Of the ends of a stage that begins at a boundary, which was reached with so much. None where first is above last. */
    readonly first: (begin: number, value: number) => number;
    readonly last: (begin: number, value: number) => number;
  };
}

export const latencyAlone = { kind: 'sum', perMs: 1, perUsd: 0, perJoule: 0, intervalMsMax: Infinity } as const;
const costAlone = { kind: 'sum', perMs: 0, perUsd: 1, perJoule: 0, intervalMsMax: Infinity } as const;
const energyAlone = { kind: 'sum', perMs: 0, perUsd: 0, perJoule: 1, intervalMsMax: Infinity } as const;

export const objectives: Readonly<Record<PlanGoal, Objective>> = {
  latency: latencyAlone,
  throughput: { kind: 'interval' },
  cost: costAlone,
  energy: energyAlone,
};

export interface SearchResult {
  readonly value: number;
  readonly stages: readonly PlannedStage[];
}

/** Limits are met up to rounding. */
const rounding = 1 + 1e-12;

/** The best ways to come from a state to a device, by boundary. */
interface Arrivals {
  readonly value: Float64Array;
  readonly row: Int32Array;
}

/** What a search need not find. */
export interface SearchLimits {
  /** Plans that are no better than this. */
  readonly below?: number;
  readonly reach?: Reach | undefined;
}

/** The best plan of the space; undefined when there is none. */
export function search(
  space: SearchSpace,
  table: StageTable,
  objective: Objective,
  { below = Infinity, reach }: SearchLimits = {},
): SearchResult | undefined {
  const { problem } = table;
  const { segments } = problem;
  const width = segments + 1;
  const filled = table.rows(space.rows.length);
  const arrivals = new Map<string, Arrivals>();
  let best = below;
  let bestRow = -1;
  for (const [index, row] of space.rows.entries()) {
    const { devices, source } = row;
    const device = devices[0] as PlannerDevice;
    const key = `${source} ${device.type}`;
    let arrived = arrivals.get(key);
    if (arrived === undefined) {
      arrived = arrive(space, source, { device, filled, table, objective });
      arrivals.set(key, arrived);
    }
    const at = index * width;
    const ends = reach?.ofRow(row);
    const perMs = objective.kind === 'interval' ? 0 : weightOf(objective, device);
    const msMax = objective.kind === 'interval' ? 0 : objective.intervalMsMax * devices.length * rounding;
    for (let begin = 0; begin < segments; begin += 1) {
      const value = arrived.value[begin] as number;
      if (value === Infinity || value >= best) continue;
      const first = ends === undefined ? begin + 1 : ends.first(begin, value);
      const last = ends === undefined ? segments : ends.last(begin, value);
      if (first > last) continue;
      const stages = table.from(device, begin, last);
      const place = { at, begin, before: arrived.row[begin] as number, value, first, last };
      if (objective.kind === 'interval') extendInterval(filled, stages, place, devices.length);
      else extendSum(filled, stages, place, { perMs, msMax });
    }
    const whole = filled.value[at + segments] as number;
    if (whole < best) {
      best = whole;
      bestRow = index;
    }
  }
  return bestRow < 0 ? undefined : { value: best, stages: trace(space, problem, filled, bestRow) };
}

/** What a millisecond on a device counts in a weighted sum. */
export function weightOf({ perMs, perUsd, perJoule }: Omit<SumObjective, 'kind'>, device: PlannerDevice): number {
  return perMs + perUsd * usdPerMs(device) + perJoule * joulesPerMs(device);
}

interface Place {
  /** Where the row begins. */
  readonly at: number;
  readonly begin: number;
  readonly before: number;
  readonly value: number;
  /** Ends that are looked at. */
  readonly first: number;
  readonly last: number;
}

function extendInterval(filled: SearchRows, stages: Float64Array, place: Place, replicas: number): void {
  const { value: values, begin: begins, before: rows } = filled;
  const { at, begin, before, value, first, last } = place;
  const share = 1 / replicas;
  for (let end = first; end <= last; end += 1) {
    const stage = (stages[end - begin] as number) * share;
    const total = stage > value ? stage : value;
    if (total < (values[at + end] as number)) {
      values[at + end] = total;
      begins[at + end] = begin;
      rows[at + end] = before;
    }
  }
}

function extendSum(
  filled: SearchRows,
  stages: Float64Array,
  { at, begin, before, value, first, last }: Place,
  { perMs, msMax }: { readonly perMs: number; readonly msMax: number },
): void {
  const { value: values, begin: begins, before: rows } = filled;
  for (let end = first; end <= last; end += 1) {
    const ms = stages[end - begin] as number;
    if (ms > msMax || ms === Infinity) continue;
    const total = value + ms * perMs;
    if (total < (values[at + end] as number)) {
      values[at + end] = total;
      begins[at + end] = begin;
      rows[at + end] = before;
    }
  }
}

function arrive(
  { rows, states }: SearchSpace,
  source: number,
  {
    device,
    filled,
    table,
    objective,
  }: {
    readonly device: PlannerDevice;
    readonly filled: SearchRows;
    readonly table: StageTable;
    readonly objective: Objective;
  },
): Arrivals {
  const { segments } = table.problem;
  const value = new Float64Array(segments + 1).fill(Infinity);
  const row = new Int32Array(segments + 1).fill(-1);
  const { value: values } = filled;
  value[0] = 0;
  for (const index of states[source] ?? []) {
    const from = rows[index]?.devices[0] ?? device;
    const at = index * (segments + 1);
    const transfers = table.transfers(from, device);
    for (let boundary = 1; boundary < segments; boundary += 1) {
      const here = values[at + boundary] as number;
      if (here >= (value[boundary] as number)) continue;
      const ms = transfers[boundary] as number;
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

function trace(space: SearchSpace, problem: PlannerProblem, filled: SearchRows, last: number): readonly PlannedStage[] {
  const stages: PlannedStage[] = [];
  let at = last;
  let to = problem.segments;
  while (at >= 0) {
    const cell = at * (problem.segments + 1) + to;
    const { devices } = space.rows[at] as SearchSpace['rows'][number];
    const from = filled.begin[cell] as number;
    stages.unshift({ device: devices[0] as PlannerDevice, devices, from, to });
    at = filled.before[cell] as number;
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
