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
import { search, StageTable } from './plan-search.js';
import { orderSpace } from './plan-space.js';
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
export function planShared(problem: PlannerProblem, start: readonly PlannedStage[]): SharedPlan {
  const { segments, devices } = problem;
  const thin = thinned(problem, thinSegments);
  const trial = new Trial(thin.problem);
  const isEvery = devices.length <= everyWayDevicesMax;
  const best = isEvery ? bestOfAll(devices, trial) : climb(start, devices, trial);
  if (best === undefined) return { plan: undefined, isExact: isEvery && segments <= thinSegments };
  const stages = new Trial(problem).solve(best.way);
  const plan = stages === undefined ? undefined : { stages, value: runCosts(problem, stages).intervalMs };
  return { plan, isExact: isEvery && segments <= thinSegments };
}

/** Ways and the intervals that they come to, on one chain. */
class Trial {
  readonly #problem: PlannerProblem;
  readonly #teams = new Map<string, PlannerDevice>();
  readonly #members = new Map<PlannerDevice, readonly PlannerDevice[]>();
  readonly #table: StageTable;
  readonly #team: PlannerProblem;

  constructor({ slowdown: _, ...problem }: PlannerProblem) {
    this.#problem = problem;
    const { segments, transferMs } = problem;
    const member = new StageTable(problem);
    const membersOf = (team: PlannerDevice): readonly PlannerDevice[] => this.#members.get(team) ?? [team];
    const rateOf = (team: PlannerDevice, from: number): Float64Array => {
      const rates = new Float64Array(segments + 1 - from);
      const members = membersOf(team);
      for (const [index, device] of members.entries()) {
        const times = member.from(device, from);
        for (let length = 1; length < rates.length; length += 1) {
          const ms = times[length] as number;
          const before = index === 0 || rates[length] !== 0 ? (rates[length] as number) : NaN;
          // Whoever shares a stage holds it: one that cannot takes the others with it.
          rates[length] = ms === Infinity || Number.isNaN(before) ? 0 : before + (ms === 0 ? Infinity : 1 / ms);
        }
      }
      return rates;
    };
    this.#team = {
      ...problem,
      replicates: false,
      devices: [],
      transferMs: (from, to, boundary) =>
        membersOf(from).reduce(
          (worst, a) => membersOf(to).reduce((most, b) => Math.max(most, transferMs(a, b, boundary)), worst),
          0,
        ),
      fillStages: (team, from, into) => {
        const rates = rateOf(team, from);
        for (let end = from + 1; end <= segments; end += 1) into[end] = 1 / (rates[end - from] as number);
      },
    };
    this.#table = new StageTable(this.#team);
  }

  mayShare(devices: readonly PlannerDevice[]): boolean {
    return devices.length < 2 || this.#problem.mayShare?.(devices) === true;
  }

  /** The best cuts of a way, of which stages may stay empty; undefined where it does not fit. */
  solve(way: Way): readonly PlannedStage[] | undefined {
    const devices = way.map((members) => this.#teamOf(members));
    const found = search(orderSpace({ ...this.#team, devices }), this.#table, { kind: 'interval' });
    return found?.stages.map(({ device, from, to }) => {
      const members = this.#members.get(device) ?? [device];
      return { device: members[0] ?? device, devices: members, from, to };
    });
  }

  intervalOf(way: Way): number {
    const devices = way.map((members) => this.#teamOf(members));
    return search(orderSpace({ ...this.#team, devices }), this.#table, { kind: 'interval' })?.value ?? Infinity;
  }

  #teamOf(members: readonly PlannerDevice[]): PlannerDevice {
    const key = members
      .map(({ id }) => id)
      .sort()
      .join('+');
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
    const value = trial.intervalOf(way);
    if (value < (best?.value ?? Infinity)) best = { way, value };
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
      const found = trial.intervalOf(next);
      if (found < (better?.value ?? value) * (1 - 1e-9)) better = { way: next, value: found };
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
