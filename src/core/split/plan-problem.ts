/**
 * What a plan is searched for and what is found: devices, tables of times and bytes, stages.
 *
 * The model is a chain of segments between neighbouring cut points. A stage is a run of segments on one device, or on
 * several that take turns; a device holds at most one stage, and some may stay idle.
 */
import { intarsiaError } from '../errors.js';

export const planGoals = ['latency', 'throughput', 'cost', 'energy'] as const;
/** Ms of one run, ms between answers of a full pipe, dollars of one run, joules of one run: the smaller the better. */
export type PlanGoal = (typeof planGoals)[number];

export interface PlannerDevice {
  readonly id: string;
  /** Devices of the same type cost the same in every table, so that only their number matters. */
  readonly type: string;
  readonly memoryBytes: number;
  /** Price of an hour, in dollars; 0 where it costs nothing. */
  readonly usdPerHour: number;
  /** Watts while it computes; absent counts as 0. */
  readonly busyWatts?: number;
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
  /**
   * The same as `stageMs` for every end behind `from` up to `last`, infinite where the shard does not fit: written to
   * `into[end]`. For tables that have whole rows at hand.
   */
  readonly fillStages?: (device: PlannerDevice, from: number, last: number, into: Float64Array) => void;
  /** The same as `transferMs` for every boundary, where whole rows are at hand. */
  readonly fillTransfers?: (from: PlannerDevice, to: PlannerDevice, into: Float64Array) => void;
  /** Stages at most; absent: as many as devices. */
  readonly stagesMax?: number;
  /** Whether several equal devices may share a stage, each holding it, runs taking turns. Default: not. */
  readonly replicates?: boolean;
  /** Whether these devices, unlike ones among them, may share a stage. Absent: equal ones alone may, see `replicates`. */
  readonly mayShare?: (devices: readonly PlannerDevice[]) => boolean;
  /**
   * How many times as long stages take on a device whose runs follow each other, while others run as well that share its
   * processor or memory. Absent: as long as `stageMs`. Searches do not see it, the figures of plans do.
   */
  readonly slowdown?: (device: PlannerDevice, others: readonly PlannerDevice[]) => StageSlowdown;
  /** What `slowdown` is at least, whatever else runs: a bound for plans. Absent: 1. */
  readonly slowdownLeast?: (device: PlannerDevice) => StageSlowdown;
}

/** By what the time of segments `from` to `to`, which is `ms` alone, is multiplied. */
export type StageSlowdown = (from: number, to: number, ms: number) => number;

export interface PlannedStage {
  /** The first of `devices`. */
  readonly device: PlannerDevice;
  /** Devices that take turns; one, where the stage is not replicated. */
  readonly devices: readonly PlannerDevice[];
  readonly from: number;
  readonly to: number;
}

export interface SplitPlan {
  readonly stages: readonly PlannedStage[];
  /** In the unit of the goal. */
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

/** What one run of a plan takes. */
export interface RunCosts {
  /** From the first input to the last output: stages and transfers one after the other. */
  readonly latencyMs: number;
  /** Between answers of a full pipe: its slowest stage (shared by its replicas) or transfer. */
  readonly intervalMs: number;
  /** Device time at its price; while something is on its way nobody is busy. */
  readonly usd: number;
  readonly joules: number;
}

/** Dollars of a millisecond on a device. */
export function usdPerMs({ usdPerHour }: PlannerDevice): number {
  return usdPerHour / 3_600_000;
}

/** Joules of a millisecond on a device. */
export function joulesPerMs({ busyWatts = 0 }: PlannerDevice): number {
  return busyWatts / 1000;
}

/** How many times as long each stage takes while all others of the plan run too. */
export function slowdownsOf(problem: PlannerProblem, stages: readonly PlannedStage[]): readonly number[] {
  const { slowdown, stageMs } = problem;
  if (slowdown === undefined) return stages.map(() => 1);
  const all = stages.flatMap(({ devices }) => devices);
  return stages.map(({ device, from, to }) => {
    const others = all.filter((other) => other !== device);
    return slowdown(device, others)(from, to, stageMs(device, from, to));
  });
}

/**
 * Adds a plan up from the tables, the slow and plain way. Infinite where a stage does not fit. A request alone finds every
 * device for itself, of unlike ones that share a stage the slowest; in a full pipe all stages run at once, and devices that
 * share one get runs in proportion to their speed.
 */
export function runCosts(problem: PlannerProblem, stages: readonly PlannedStage[]): RunCosts {
  const { slowdown } = problem;
  const all = slowdown === undefined ? [] : stages.flatMap(({ devices }) => devices);
  let latencyMs = 0;
  let intervalMs = 0;
  let usd = 0;
  let joules = 0;
  let before: PlannedStage | undefined;
  for (const stage of stages) {
    const { devices, from, to } = stage;
    const times = devices.map((device) =>
      problem.stageBytes(from, to) <= device.memoryBytes ? problem.stageMs(device, from, to) : Infinity,
    );
    const sentMs = before === undefined ? 0 : sendingMs(problem, before, stage);
    // Each device of a stage is slowed in its own way.
    const paces = times.map((ms, index) => {
      const device = devices[index];
      if (slowdown === undefined || device === undefined) return ms;
      const others = all.filter((other) => other !== device);
      return ms * slowdown(device, others)(from, to, ms);
    });
    const turn = turnOf(devices, paces);
    latencyMs += sentMs + Math.max(...times);
    intervalMs = Math.max(intervalMs, sentMs, turn.ms);
    usd += turn.usd;
    joules += turn.joules;
    before = stage;
  }
  return { latencyMs, intervalMs, usd, joules };
}

/** The longest way from a device of one stage to a device of the next. */
function sendingMs(
  { transferMs }: PlannerProblem,
  before: PlannedStage,
  { devices, device, from }: PlannedStage,
): number {
  if (before.devices.length === 1 && devices.length === 1) return transferMs(before.device, device, from);
  return Math.max(...before.devices.flatMap((a) => devices.map((b) => transferMs(a, b, from))));
}

/** What a run costs on average where devices share it, and the time between two answers of them all. */
function turnOf(
  devices: readonly PlannerDevice[],
  times: readonly number[],
): { readonly ms: number; readonly usd: number; readonly joules: number } {
  if (times.some((ms) => ms === Infinity)) return { ms: Infinity, usd: Infinity, joules: Infinity };
  const [first = 0] = times;
  // Of equal ones without a division that rounds.
  const ms = times.every((each) => each === first)
    ? first / times.length
    : 1 / times.reduce((sum, each) => sum + 1 / each, 0);
  // Each is busy all the time in a full pipe.
  const busy = (of: (device: PlannerDevice) => number): number =>
    ms * devices.reduce((sum, device) => sum + of(device), 0);
  return { ms, usd: busy(usdPerMs), joules: busy(joulesPerMs) };
}

/** The figure of a goal. */
export function valueOfGoal({ latencyMs, intervalMs, usd, joules }: RunCosts, goal: PlanGoal): number {
  return { latency: latencyMs, throughput: intervalMs, cost: usd, energy: joules }[goal];
}

/** @throws INVALID_ARGUMENT for a problem without segments or devices. */
export function checkProblem({ segments, devices, stagesMax = 1 }: PlannerProblem): void {
  if (!Number.isInteger(segments) || segments < 1 || devices.length === 0 || stagesMax < 1) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `a plan needs at least one segment and one device, and stages; there are ${segments}, ${devices.length} and ${stagesMax}`,
      { segments, devices: devices.length, stagesMax },
    );
  }
}

/** Devices by type, in the order in which types first occur. */
export function groupByType(devices: readonly PlannerDevice[]): readonly (readonly PlannerDevice[])[] {
  const groups = new Map<string, PlannerDevice[]>();
  for (const device of devices) {
    const group = groups.get(device.type);
    if (group === undefined) groups.set(device.type, [device]);
    else group.push(device);
  }
  return [...groups.values()];
}
