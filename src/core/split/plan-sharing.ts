/**
 * Stages that unlike devices share, so that a slow one gives as many answers as the others: each of its devices holds the
 * shard, and runs go to whichever is free.
 *
 * Devices that share a stage count as one that is as fast as all of them together and has the memory of the smallest. Which
 * devices share, and in what order, is tried: every way where there are few devices and cuts, else steps from a good plan
 * to better ones; for each way the places of the cuts are found exactly (plan-search.ts).
 */
import {
  runCosts,
  type PlannedStage,
  type PlannerDevice,
  type PlannerProblem,
  type SplitPlan,
} from './plan-problem.js';
import type { PlanBounds } from './plan-bound.js';
import { reachOf } from './plan-reach.js';
import { objectives, search } from './plan-search.js';
import { orderSpace, type SearchSpace } from './plan-space.js';
import { StageTable } from './stage-table.js';
import { thinned } from './plan-thinning.js';

/** Devices, at most, of which every way is tried. */
const everyWayDevicesMax = 4;
/** Segments of the chain on which ways are tried. */
const thinSegments = 48;
/** Ways tried at most, step by step. */
const waysMax = 160;

/** Devices of the stages, one list a stage, in order. */
type Way = readonly (readonly PlannerDevice[])[];

export interface SharedPlan {
  readonly plan: SplitPlan | undefined;
  /** No way and no cut was left out. */
  readonly isExact: boolean;
}

/** The plan with the shortest interval in which devices share stages, as far as `mayShare` allows it. */
export function planShared(
  problem: PlannerProblem,
  start: readonly PlannedStage[],
  known?: { /** Of the problem. */ readonly table: StageTable; readonly bounds: PlanBounds },
): SharedPlan {
  const { segments, devices } = problem;
  const thin = thinned(problem, thinSegments);
  const trial = new Trial(thin.problem);
  const isEvery = devices.length <= everyWayDevicesMax;
  const best = isEvery ? bestOfAll(devices, trial) : climb(start, devices, trial);
  const isExact = isEvery && segments <= thinSegments;
  if (best === undefined) return { plan: undefined, isExact };
  const stages = (segments <= thinSegments ? trial : new Trial(problem, known?.table)).solve(best, known?.bounds);
  const plan = stages === undefined ? undefined : { stages, value: runCosts(problem, stages).intervalMs };
  return { plan, isExact };
}

/** Ways and the intervals that they come to, on one chain. Devices that share a stage count as one, their team. */
class Trial {
  readonly #problem: PlannerProblem;
  readonly #member: StageTable;
  readonly #teams = new Map<string, PlannerDevice>();
  readonly #members = new Map<PlannerDevice, readonly PlannerDevice[]>();
  readonly #numbers = new Map<PlannerDevice, number>();
  readonly #table: StageTable;
  readonly #team: PlannerProblem;

  constructor({ slowdown: _, ...problem }: PlannerProblem, member = new StageTable(problem)) {
    this.#problem = problem;
    this.#member = member;
    for (const [index, device] of problem.devices.entries()) this.#numbers.set(device, index);
    this.#team = {
      ...problem,
      replicates: false,
      devices: [],
      fillTransfers: (from, to, into) => this.#fillTransfers(from, to, into),
      fillStages: (team, from, last, into) => this.#fill(team, { from, last, into }),
    };
    this.#table = new StageTable(this.#team);
  }

  mayShare(devices: readonly PlannerDevice[]): boolean {
    return devices.length < 2 || this.#problem.mayShare?.(devices) === true;
  }

  /** The best cuts of a way, of which stages may stay empty; undefined where it does not fit. */
  solve({ way, value }: Found, bounds: PlanBounds | undefined): readonly PlannedStage[] | undefined {
    const slowness = (team: PlannerDevice): number =>
      1 / this.#membersOf(team).reduce((rate, { type }) => rate + 1 / (bounds?.slowness.get(type) ?? 0), 0);
    const reach = bounds === undefined ? undefined : reachOf(bounds, objectives.throughput, value, slowness);
    return search(this.#space(way), this.#table, objectives.throughput, { reach })?.stages.map(
      ({ device, from, to }) => {
        const members = this.#membersOf(device);
        return { device: members[0] ?? device, devices: members, from, to };
      },
    );
  }

  /** Infinite where it is no better than `below`. */
  intervalOf(way: Way, below = Infinity): number {
    return search(this.#space(way), this.#table, objectives.throughput, { below })?.value ?? Infinity;
  }

  #space(way: Way): SearchSpace {
    return orderSpace({ ...this.#team, devices: way.map((members) => this.#teamOf(members)) });
  }

  #membersOf(team: PlannerDevice): readonly PlannerDevice[] {
    return this.#members.get(team) ?? [team];
  }

  /** The longest way from a member of one team to a member of the other. */
  #fillTransfers(from: PlannerDevice, to: PlannerDevice, into: Float64Array): void {
    for (const a of this.#membersOf(from)) {
      for (const b of this.#membersOf(to)) {
        const row = this.#member.transfers(a, b);
        for (let boundary = 1; boundary < into.length - 1; boundary += 1) {
          const ms = row[boundary] as number;
          if (ms > (into[boundary] as number)) into[boundary] = ms;
        }
      }
    }
  }

  /** Rates add up. Whoever shares a stage holds it: one that cannot takes the others with it. */
  #fill(
    team: PlannerDevice,
    { from, last, into }: { readonly from: number; readonly last: number; readonly into: Float64Array },
  ): void {
    for (const [index, device] of this.#membersOf(team).entries()) {
      const times = this.#member.from(device, from, last);
      for (let end = from + 1; end <= last; end += 1) {
        const rate = 1 / (times[end - from] as number);
        if (index === 0) into[end] = rate;
        else into[end] = rate === 0 || into[end] === 0 ? 0 : (into[end] as number) + rate;
      }
    }
    for (let end = from + 1; end <= last; end += 1) into[end] = 1 / (into[end] as number);
  }

  #teamOf(members: readonly PlannerDevice[]): PlannerDevice {
    const numbers = members.map((device) => this.#numbers.get(device) ?? -1);
    const key = numbers.sort((a, b) => a - b).join('+');
    let team = this.#teams.get(key);
    if (team === undefined) {
      const memoryBytes = Math.min(...members.map((device) => device.memoryBytes));
      team = { id: key, type: key, memoryBytes, usdPerHour: 0 };
      this.#teams.set(key, team);
      this.#members.set(team, members);
    }
    return team;
  }
}

interface Found {
  readonly way: Way;
  readonly value: number;
}

function bestOfAll(devices: readonly PlannerDevice[], trial: Trial): Found | undefined {
  let best: Found | undefined;
  for (const way of everyWay(devices)) {
    if (!way.every((members) => trial.mayShare(members))) continue;
    const value = trial.intervalOf(way, best?.value);
    if (value < Infinity) best = { way, value };
  }
  return best;
}

/** Every order of every way to put some of the devices into teams. */
function* everyWay([device, ...rest]: readonly PlannerDevice[]): Generator<Way> {
  if (device === undefined) {
    yield [];
    return;
  }
  for (const way of everyWay(rest)) {
    yield way;
    for (let at = 0; at <= way.length; at += 1) {
      yield way.toSpliced(at, 0, [device]);
      const members = way[at];
      if (members !== undefined) yield way.with(at, [device, ...members]);
    }
  }
}

/** From the plan on, the step that makes the interval shortest, until none does. */
function climb(start: readonly PlannedStage[], devices: readonly PlannerDevice[], trial: Trial): Found | undefined {
  let way: Way = start.map((stage) => stage.devices);
  if (way.length === 0 || !way.every((members) => trial.mayShare(members))) return undefined;
  let value = trial.intervalOf(way);
  for (let tried = 1; ;) {
    let better: Found | undefined;
    for (const next of stepsFrom(way, devices)) {
      if (tried >= waysMax) break;
      if (!next.every((members) => trial.mayShare(members))) continue;
      tried += 1;
      const found = trial.intervalOf(next, (better?.value ?? value) * (1 - 1e-9));
      if (found < Infinity) better = { way: next, value: found };
    }
    if (better === undefined) return { way, value };
    ({ way, value } = better);
  }
}

/** One device more, or elsewhere, or fewer; two stages made one. */
function* stepsFrom(way: Way, devices: readonly PlannerDevice[]): Generator<Way> {
  const used = new Set(way.flat());
  for (const device of devices) {
    const without = used.has(device)
      ? way.map((members) => members.filter((one) => one !== device)).filter((members) => members.length > 0)
      : way;
    for (const [at, members] of without.entries()) yield without.with(at, [...members, device]);
    if (used.has(device)) yield without;
    else for (let at = 0; at <= without.length; at += 1) yield without.toSpliced(at, 0, [device]);
  }
  for (let at = 0; at + 1 < way.length; at += 1) {
    yield way.toSpliced(at, 2, [...(way[at] ?? []), ...(way[at + 1] ?? [])]);
  }
}
