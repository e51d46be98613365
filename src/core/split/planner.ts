/**
 * Searches which piece of a model goes on which device: dynamic programming over the chain of legal cuts.
 *
 * The model is a chain of segments between neighbouring cut points. A stage is a run of segments on one device, a device
 * holds at most one stage, and some may stay idle. What a stage costs is asked of the caller's tables, so that measured
 * times of whole shards count as they are, not as sums over nodes. Three goals: latency adds stages and transfers up,
 * throughput is the slowest stage or transfer of a full pipe, cost adds up what device time costs.
 *
 * With the devices' order given every goal is exact. Without it the search is exact while equal devices leave few states;
 * beyond, it is a local search over orders, with a lower bound from the same problem in which devices may be used again.
 */
import { intarsiaError } from '../errors.js';

export type PlanGoal = 'latency' | 'throughput' | 'cost';

export interface PlannerDevice {
  readonly id: string;
  /** Devices of the same type cost the same in every table, so that only their number matters. */
  readonly type: string;
  readonly memoryBytes: number;
  /** Price of an hour, in dollars; 0 where it costs nothing. */
  readonly usdPerHour: number;
}

export interface PlannerProblem {
  /** Segments of the chain; boundaries lie between them, numbered 1 to segments - 1. */
  readonly segments: number;
  readonly devices: readonly PlannerDevice[];
  /** Milliseconds of segments `from` to `to` (behind the last) on a device as one shard; infinite: impossible there. */
  readonly stageMs: (device: PlannerDevice, from: number, to: number) => number;
  /** Bytes of memory that the shard takes: weights and peak activations. */
  readonly stageBytes: (from: number, to: number) => number;
  /** Milliseconds to send what crosses a boundary from one device to another. */
  readonly transferMs: (from: PlannerDevice, to: PlannerDevice, boundary: number) => number;
}

export interface PlannedStage {
  readonly device: PlannerDevice;
  readonly from: number;
  readonly to: number;
}

export interface SplitPlan {
  readonly stages: readonly PlannedStage[];
  /** Milliseconds (latency), milliseconds between answers (throughput), or dollars for one run (cost). */
  readonly value: number;
}

export interface PlanAnswer {
  readonly goal: PlanGoal;
  /** Undefined when the model fits on no choice of devices. */
  readonly plan: SplitPlan | undefined;
  readonly isExact: boolean;
  /** No plan can be better than this. Equal to the plan's value when it is exact. */
  readonly lowerBound: number;
  /** The best plan without a split, for comparison; undefined when no device takes the whole model. */
  readonly whole: SplitPlan | undefined;
}

/** States of the exact search without a given order: vectors of used devices × types × segments. */
const statesMax = 400_000;
/** Orders that the local search tries at most. */
const ordersMax = 60;
const usdPerMs = 1 / 3_600_000;

/** The best plan with the devices in this order; a plan may leave devices out, never change places. Always exact. */
export function planInOrder(problem: PlannerProblem, goal: PlanGoal): PlanAnswer {
  check(problem);
  const search = new Search(problem, goal);
  const plan = searchOrder(search, problem);
  return { goal, plan, isExact: true, lowerBound: plan?.value ?? Infinity, whole: search.whole() };
}

/** The best plan over all orders of the devices. Exact where `isExact` says so; otherwise see `lowerBound`. */
export function planSplit(problem: PlannerProblem, goal: PlanGoal): PlanAnswer {
  check(problem);
  const types = groupByType(problem.devices);
  const vectors = types.reduce((product, { length }) => product * (length + 1), 1);
  if (vectors * types.length * problem.segments <= statesMax) return planByCounts(problem, goal, types);
  const bound = relaxedBound(problem, goal);
  const plan = searchOrders(problem, goal, bound);
  const isExact = plan !== undefined && plan.value <= bound;
  return { goal, plan, isExact, lowerBound: bound, whole: new Search(problem, goal).whole() };
}

/** Per boundary: the best value of a stage of one device that ends there, and where that stage began and came from. */
interface Row {
  readonly value: Float64Array;
  readonly from: Int32Array;
  /** Index of the row before, -1 for the first stage. */
  readonly before: Int32Array;
}

interface Found {
  readonly value: number;
  readonly end: number;
}

interface Arrival {
  readonly value: number;
  readonly row: number;
}

class Search {
  readonly #problem: PlannerProblem;
  readonly #goal: PlanGoal;
  readonly #keepsStages: boolean;
  /** Values of stages asked already, by type of device and begin, for searches that ask more than once. */
  readonly #kept = new Map<string, Float64Array[]>();
  #scratch: Float64Array | undefined;

  constructor(problem: PlannerProblem, goal: PlanGoal, keepsStages = false) {
    this.#problem = problem;
    this.#goal = goal;
    this.#keepsStages = keepsStages;
  }

  /** Two parts of a plan in one value. */
  join(left: number, right: number): number {
    return this.#goal === 'throughput' ? Math.max(left, right) : left + right;
  }

  stageValue(device: PlannerDevice, from: number, to: number): number {
    if (this.#problem.stageBytes(from, to) > device.memoryBytes) return Infinity;
    return this.#weigh(this.#problem.stageMs(device, from, to), device);
  }

  /** Values of a device's stages from `begin`, by their end. Valid until the next call. */
  #stagesFrom(device: PlannerDevice, begin: number): Float64Array {
    const { segments } = this.#problem;
    if (!this.#keepsStages) {
      this.#scratch ??= new Float64Array(segments + 1);
      this.#fill(this.#scratch, device, begin);
      return this.#scratch;
    }
    let kept = this.#kept.get(device.type);
    if (kept === undefined) {
      kept = [];
      this.#kept.set(device.type, kept);
    }
    let values = kept[begin];
    if (values === undefined) {
      values = new Float64Array(segments + 1);
      this.#fill(values, device, begin);
      kept[begin] = values;
    }
    return values;
  }

  #fill(values: Float64Array, device: PlannerDevice, begin: number): void {
    for (let end = begin + 1; end < values.length; end += 1) values[end] = this.stageValue(device, begin, end);
  }

  transferValue(from: PlannerDevice, to: PlannerDevice, boundary: number): number {
    const ms = this.#problem.transferMs(from, to, boundary);
    // While something is on its way the sender is not busy: sending costs no device time.
    return this.#goal === 'cost' ? (ms === Infinity ? Infinity : 0) : ms;
  }

  #weigh(ms: number, { usdPerHour }: PlannerDevice): number {
    if (this.#goal !== 'cost') return ms;
    return ms === Infinity ? Infinity : ms * usdPerMs * usdPerHour;
  }

  /** The row of a device, from the best ways to arrive at each boundary. */
  extend(device: PlannerDevice, arrivalAt: (boundary: number) => Arrival): Row {
    const { segments } = this.#problem;
    const value = new Float64Array(segments + 1).fill(Infinity);
    const from = new Int32Array(segments + 1);
    const before = new Int32Array(segments + 1).fill(-1);
    for (let begin = 0; begin < segments; begin += 1) {
      const arrival = begin === 0 ? { value: 0, row: -1 } : arrivalAt(begin);
      if (arrival.value === Infinity) continue;
      const stages = this.#stagesFrom(device, begin);
      const isBottleneck = this.#goal === 'throughput';
      const { value: arrived, row } = arrival;
      for (let end = begin + 1; end <= segments; end += 1) {
        const stage = stages[end] as number;
        const total = isBottleneck ? (stage > arrived ? stage : arrived) : arrived + stage;
        if (total < (value[end] as number)) {
          value[end] = total;
          from[end] = begin;
          before[end] = row;
        }
      }
    }
    return { value, from, before };
  }

  /** The best of some rows at a boundary, with the way from there to a device. */
  arrival(to: PlannerDevice, boundary: number, rows: readonly Row[], owners: readonly PlannerDevice[]): Arrival {
    let best: Arrival = { value: Infinity, row: -1 };
    for (const [index, { value }] of rows.entries()) {
      const here = value[boundary] as number;
      if (here >= best.value) continue;
      const total = this.join(here, this.transferValue(owners[index] as PlannerDevice, to, boundary));
      if (total < best.value) best = { value: total, row: index };
    }
    return best;
  }

  trace(found: Found, rows: readonly Row[], owners: readonly PlannerDevice[]): SplitPlan {
    const stages: PlannedStage[] = [];
    let at = found.end;
    let to = this.#problem.segments;
    while (at >= 0) {
      const row = rows[at] as Row;
      const from = row.from[to] as number;
      stages.unshift({ device: owners[at] as PlannerDevice, from, to });
      at = row.before[to] as number;
      to = from;
    }
    return { stages, value: found.value };
  }

  whole(): SplitPlan | undefined {
    let best: SplitPlan | undefined;
    for (const device of this.#problem.devices) {
      const value = this.stageValue(device, 0, this.#problem.segments);
      if (value < (best?.value ?? Infinity)) {
        best = { stages: [{ device, from: 0, to: this.#problem.segments }], value };
      }
    }
    return best;
  }
}

function groupByType(devices: readonly PlannerDevice[]): readonly (readonly PlannerDevice[])[] {
  const groups = new Map<string, PlannerDevice[]>();
  for (const device of devices) {
    const group = groups.get(device.type);
    if (group === undefined) groups.set(device.type, [device]);
    else group.push(device);
  }
  return [...groups.values()];
}

/**
 * Exact: one row for each number of devices used up of each type and each type of the last stage. Which device of a type
 * it is does not matter, only that there are enough; a row's plans may use fewer.
 */
function planByCounts(
  problem: PlannerProblem,
  goal: PlanGoal,
  types: readonly (readonly PlannerDevice[])[],
): PlanAnswer {
  const search = new Search(problem, goal, true);
  const rows: Row[] = [];
  const owners: PlannerDevice[] = [];
  const rowsOf = new Map<string, readonly number[]>();
  let best: Found = { value: Infinity, end: -1 };
  for (const counts of countVectors(types.map(({ length }) => length))) {
    const mine: number[] = [];
    for (const [type, [device]] of types.entries()) {
      if ((counts[type] ?? 0) === 0 || device === undefined) continue;
      const before = counts.map((count, at) => (at === type ? count - 1 : count));
      const earlier = rowsOf.get(before.join(',')) ?? [];
      const sources = earlier.map((index) => rows[index] as Row);
      const senders = earlier.map((index) => owners[index] as PlannerDevice);
      const row = search.extend(device, (boundary) => {
        const { value, row: at } = search.arrival(device, boundary, sources, senders);
        return { value, row: earlier[at] ?? -1 };
      });
      const index = rows.push(row) - 1;
      owners.push(device);
      mine.push(index);
      const value = row.value[problem.segments] ?? Infinity;
      if (value < best.value) best = { value, end: index };
    }
    rowsOf.set(counts.join(','), mine);
  }
  const plan = best.end < 0 ? undefined : namedDevices(search.trace(best, rows, owners), types);
  return { goal, plan, isExact: true, lowerBound: best.value, whole: search.whole() };
}

/** Every vector from zero to the limits, smaller before larger. */
function* countVectors(limits: readonly number[]): Generator<readonly number[]> {
  const [limit = 0, ...rest] = limits;
  if (limits.length === 0) {
    yield [];
    return;
  }
  for (let count = 0; count <= limit; count += 1) for (const tail of countVectors(rest)) yield [count, ...tail];
}

/** Gives the stages of a plan over types their own devices. */
function namedDevices(plan: SplitPlan, types: readonly (readonly PlannerDevice[])[]): SplitPlan {
  const taken = new Map<string, number>();
  const stages = plan.stages.map((stage) => {
    const { type } = stage.device;
    const at = taken.get(type) ?? 0;
    taken.set(type, at + 1);
    const group = types.find(([device]) => device?.type === type);
    return { ...stage, device: group?.[at] ?? stage.device };
  });
  return { ...plan, stages };
}

/** The best value when a device may hold several stages and each of them gets all of its memory. */
function relaxedBound(problem: PlannerProblem, goal: PlanGoal): number {
  const search = new Search(problem, goal);
  const devices = groupByType(problem.devices).map(([device]) => device as PlannerDevice);
  const values = devices.map(() => new Float64Array(problem.segments + 1).fill(Infinity));
  for (let begin = 0; begin < problem.segments; begin += 1) {
    for (const [index, device] of devices.entries()) {
      let arrived = begin === 0 ? 0 : Infinity;
      for (const [from, sender] of devices.entries()) {
        if (begin === 0) break;
        const here = values[from]?.[begin] ?? Infinity;
        if (here < arrived) arrived = Math.min(arrived, search.join(here, search.transferValue(sender, device, begin)));
      }
      if (arrived === Infinity) continue;
      const row = values[index] as Float64Array;
      for (let end = begin + 1; end <= problem.segments; end += 1) {
        const total = search.join(arrived, search.stageValue(device, begin, end));
        if (total < (row[end] as number)) row[end] = total;
      }
    }
  }
  return Math.min(...values.map((row) => row[problem.segments] ?? Infinity));
}

/** Hill climbing over orders: fastest first, then exchanges of two devices that help. */
function searchOrders(problem: PlannerProblem, goal: PlanGoal, bound: number): SplitPlan | undefined {
  const search = new Search(problem, goal, true);
  const pace = new Map(
    problem.devices.map((device) => [device, problem.stageMs(device, 0, Math.min(1, problem.segments))]),
  );
  let order = [...problem.devices].sort((a, b) => (pace.get(a) ?? 0) - (pace.get(b) ?? 0));
  let best = searchOrder(search, { ...problem, devices: order });
  let tried = 1;
  for (let improved = true; improved && tried < ordersMax;) {
    improved = false;
    for (let left = 0; left < order.length && tried < ordersMax; left += 1) {
      for (let right = left + 1; right < order.length && tried < ordersMax; right += 1) {
        if ((best?.value ?? Infinity) <= bound) return best;
        const next = [...order];
        [next[left], next[right]] = [order[right] as PlannerDevice, order[left] as PlannerDevice];
        const plan = searchOrder(search, { ...problem, devices: next });
        tried += 1;
        if ((plan?.value ?? Infinity) >= (best?.value ?? Infinity)) continue;
        best = plan;
        order = next;
        improved = true;
      }
    }
  }
  return best;
}

function searchOrder(search: Search, { devices, segments }: PlannerProblem): SplitPlan | undefined {
  const rows: Row[] = [];
  let best: Found = { value: Infinity, end: -1 };
  for (const [index, device] of devices.entries()) {
    const row = search.extend(device, (boundary) => search.arrival(device, boundary, rows, devices));
    rows.push(row);
    const value = row.value[segments] ?? Infinity;
    if (value < best.value) best = { value, end: index };
  }
  return best.end < 0 ? undefined : search.trace(best, rows, devices);
}

function check({ segments, devices }: PlannerProblem): void {
  if (!Number.isInteger(segments) || segments < 1 || devices.length === 0) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `a plan needs at least one segment and one device; there are ${segments} and ${devices.length}`,
      { segments, devices: devices.length },
    );
  }
}
