/**
 * Searches which piece of a model goes on which device: dynamic programming over the chain of legal cuts (plan-search.ts).
 *
 * What a stage costs is asked of the caller's tables, so that measured times of whole shards count as they are, not as
 * sums over nodes. Four goals: latency adds stages and transfers up, throughput is the slowest stage or transfer of a full
 * pipe, cost and energy add up what device time costs and draws.
 *
 * With the devices' order given every goal is exact. Without it the search is exact while equal devices leave few states;
 * beyond, orders are searched on a thinned chain, the best is solved on the whole one, and bounds (plan-bound.ts) say how
 * much better a plan could still be.
 */
import { planBounds, type PlanBounds } from './plan-bound.js';
import { reachOf } from './plan-reach.js';
import { countSpace, orderSpace, type SearchSpace } from './plan-space.js';
import { latencyAlone, objectives, search, type Reach, type SearchResult } from './plan-search.js';
import {
  checkProblem,
  groupByType,
  runCosts,
  valueOfGoal,
  type PlanAnswer,
  type PlanGoal,
  type PlannedStage,
  type PlannerDevice,
  type PlannerProblem,
  type SplitPlan,
  type StageSlowdown,
} from './plan-problem.js';
import { planShared } from './plan-sharing.js';
import { thinned } from './plan-thinning.js';
import { StageTable } from './stage-table.js';

export * from './plan-problem.js';

/** Inner steps of one exact search: rows × segments² / 2. */
const exactStepsMax = 20_000_000;
const exactRowsMax = 20_000;
/** Segments of the chain on which orders are searched. */
const thinSegments = 48;
/** Inner steps of a search that is made a second time, among plans of the same interval. */
const tieStepsMax = 3_000_000;
/** Orders that the local search tries at most. */
const ordersMax = 60;
/** Inner steps of one search while a frontier is swept: beyond, the thinned chain is swept. */
const sweepStepsMax = 1_500_000;

/** The best plan with the devices in this order; a plan may leave devices out, never change places. Always exact. */
export function planInOrder(problem: PlannerProblem, goal: PlanGoal): PlanAnswer {
  checkProblem(problem);
  const plan = solve(orderSpace(problem), new StageTable(problem), goal);
  return { goal, plan, isExact: true, lowerBound: plan?.value ?? Infinity, whole: wholePlan(problem, goal) };
}

/** The best plan over all orders of the devices. Exact where `isExact` says so; otherwise see `lowerBound`. */
export function planSplit(problem: PlannerProblem, goal: PlanGoal): PlanAnswer {
  return new SplitPlanner(problem).best(goal);
}

/** Weights of a sum of ms, dollars and joules. */
export interface Weights {
  readonly perMs: number;
  readonly perUsd: number;
  readonly perJoule: number;
}

/** The problem as if every device always ran beside all others: what a search sees of their slowing each other down. */
export function inCompany(problem: PlannerProblem): PlannerProblem {
  const { devices, slowdown } = problem;
  if (slowdown === undefined) return problem;
  return slowed(problem, (device) =>
    slowdown(
      device,
      devices.filter((other) => other !== device),
    ),
  );
}

/** The problem with so much longer stages, for searches to see. */
export function slowed(
  { slowdown: _, slowdownLeast: __, ...problem }: PlannerProblem,
  factorOf: (device: PlannerDevice) => StageSlowdown,
): PlannerProblem {
  const { fillStages } = problem;
  const known = new Map<PlannerDevice, StageSlowdown>();
  const slowdownOf = (device: PlannerDevice): StageSlowdown => {
    let factor = known.get(device);
    if (factor === undefined) known.set(device, (factor = factorOf(device)));
    return factor;
  };
  return {
    ...problem,
    stageMs: (device, from, to) => {
      const ms = problem.stageMs(device, from, to);
      return ms * slowdownOf(device)(from, to, ms);
    },
    ...(fillStages === undefined
      ? {}
      : {
          fillStages: (device: PlannerDevice, from: number, last: number, into: Float64Array) => {
            fillStages(device, from, last, into);
            const factor = slowdownOf(device);
            for (let to = from + 1; to <= last; to += 1) {
              const ms = into[to] as number;
              into[to] = ms * factor(from, to, ms);
            }
          },
        }),
  };
}

/** Plans one problem for several goals; see `slowdown` for what it leaves out. */
export class SplitPlanner {
  readonly problem: PlannerProblem;
  readonly #table: StageTable;
  readonly #mayShare: PlannerProblem['mayShare'];
  readonly #bounds = new Map<PlanGoal, PlanBounds>();
  /** Every order; undefined where that is too much. */
  readonly #space: SearchSpace | undefined;
  /** Spaces that sweeps go through: all orders, or the best orders found so far. */
  readonly #sweepSpaces: { readonly space: SearchSpace; readonly table: StageTable; readonly at: readonly number[] }[] =
    [];

  constructor({ slowdown: _, mayShare, ...problem }: PlannerProblem) {
    checkProblem(problem);
    this.problem = problem;
    this.#mayShare = mayShare;
    this.#table = new StageTable(problem);
    const steps = exactStepsMax / (problem.segments ** 2 / 2);
    this.#space = countSpace(problem, Math.min(exactRowsMax, Math.floor(steps)));
    if (this.#space !== undefined) {
      const isSmall = (this.#space.rows.length * problem.segments ** 2) / 2 <= sweepStepsMax;
      const thin = isSmall ? undefined : thinned(problem, thinSegments);
      this.#sweepSpaces.push({
        space: this.#space,
        table: thin === undefined ? this.#table : new StageTable(thin.problem),
        at: thin?.at ?? [],
      });
    }
  }

  best(goal: PlanGoal): PlanAnswer {
    const whole = wholePlan(this.problem, goal);
    if (this.#space !== undefined) {
      const plan = solve(this.#space, this.#table, goal);
      return { goal, plan, isExact: true, lowerBound: plan?.value ?? Infinity, whole };
    }
    const bounds = this.#boundsOf(goal);
    const plan = this.#searchOrders(goal, bounds);
    const isExact = plan !== undefined && plan.value <= bounds.value;
    return { goal, plan, isExact, lowerBound: isExact ? plan.value : bounds.value, whole };
  }

  /** The plan with the shortest interval in which unlike devices share stages; undefined where none may. After `best`. */
  bestShared({ plan }: PlanAnswer): Pick<PlanAnswer, 'plan' | 'lowerBound'> | undefined {
    if (this.#mayShare === undefined) return undefined;
    const problem = { ...this.problem, mayShare: this.#mayShare };
    const bounds = this.#boundsOf('throughput');
    const shared = planShared(problem, plan?.stages ?? [], { table: this.#table, bounds });
    return { plan: shared.plan, lowerBound: (shared.isExact ? shared.plan?.value : undefined) ?? bounds.shared };
  }

  /**
   * Plans of least weighted sum under ever shorter intervals: the trade of the sum against throughput. All of them when
   * `stepsMax` is infinite and the search is exact. After `best`.
   */
  sweep(weights: Weights, stepsMax: number): readonly (readonly PlannedStage[])[] {
    const found: (readonly PlannedStage[])[] = [];
    for (const { space, table, at } of this.#sweepSpaces) {
      const fastest = search(space, table, { kind: 'interval' });
      if (fastest === undefined) continue;
      let limit = Infinity;
      let longest = 0;
      for (let step = 0; step < stepsMax; step += 1) {
        const result = search(space, table, { kind: 'sum', ...weights, intervalMsMax: limit });
        if (result === undefined) break;
        found.push(at.length === 0 ? result.stages : fullStages(result.stages, at));
        const { intervalMs } = runCosts(table.problem, result.stages);
        if (step === 0) longest = intervalMs;
        // Just shorter; or a step of an even ladder down to the shortest possible where there are too many.
        const ladder = longest * (fastest.value / longest) ** ((step + 1) / (stepsMax - 1));
        limit = Math.min(intervalMs * (1 - 1e-9), stepsMax === Infinity ? Infinity : Math.max(ladder, fastest.value));
        if (limit < fastest.value * (1 - 1e-10)) break;
      }
    }
    return found;
  }

  #boundsOf(goal: PlanGoal): PlanBounds {
    let bounds = this.#bounds.get(goal);
    if (bounds === undefined) this.#bounds.set(goal, (bounds = planBounds(this.problem, this.#table, goal)));
    return bounds;
  }

  /** Hill climbing over orders on the thinned chain; the best one is then solved on the whole chain. */
  #searchOrders(goal: PlanGoal, bounds: PlanBounds): SplitPlan | undefined {
    const { problem } = this;
    const thin = thinned(problem, thinSegments);
    const table = new StageTable(thin.problem);
    const answers = new Map<string, SearchResult | undefined>();
    const attempt = (devices: readonly PlannerDevice[], below?: number): number => {
      const key = devices.map(({ type }) => type).join(' ');
      if (!answers.has(key)) {
        const limits = below === undefined ? {} : { below };
        answers.set(key, search(orderSpace({ ...thin.problem, devices }), table, objectives[goal], limits));
      }
      return answers.get(key)?.value ?? Infinity;
    };
    const pace = new Map(problem.devices.map((device) => [device, paceOf(problem, device)]));
    const rising = [...problem.devices].sort((a, b) => (pace.get(a) ?? 0) - (pace.get(b) ?? 0));
    let order = [rising, [...rising].reverse(), problem.devices].reduce((a, b) => (attempt(b) < attempt(a) ? b : a));
    let value = attempt(order);
    for (let improved = true; improved && value > bounds.value && answers.size < ordersMax;) {
      improved = false;
      for (let left = 0; left < order.length && answers.size < ordersMax; left += 1) {
        for (let right = left + 1; right < order.length && answers.size < ordersMax; right += 1) {
          if (order[left]?.type === order[right]?.type) continue;
          const next = [...order];
          [next[left], next[right]] = [order[right] as PlannerDevice, order[left] as PlannerDevice];
          const found = attempt(next, value);
          if (found >= value) continue;
          value = found;
          order = next;
          improved = true;
        }
      }
    }
    this.#sweepSpaces.push({ space: orderSpace({ ...thin.problem, devices: order }), table, at: thin.at });
    // A plan of the thinned chain is one of the whole chain too.
    const reach = reachOf(bounds, objectives[goal], value);
    return solve(orderSpace({ ...problem, devices: order }), this.#table, goal, reach);
  }
}

/** The best plan of a space; where it is small, of those with the shortest interval the one with the least latency. */
function solve(space: SearchSpace, table: StageTable, goal: PlanGoal, reach?: Reach): SplitPlan | undefined {
  const found = search(space, table, objectives[goal], { reach });
  const steps = (space.rows.length * table.problem.segments ** 2) / 2;
  // A second search of a large space is not worth it: few plans are tied there.
  if (found === undefined || goal !== 'throughput' || steps > tieStepsMax) return found;
  const stages = search(space, table, { ...latencyAlone, intervalMsMax: found.value })?.stages ?? found.stages;
  return { stages, value: found.value };
}

/** The best plan without a split. */
export function wholePlan(problem: PlannerProblem, goal: PlanGoal): SplitPlan | undefined {
  let best: SplitPlan | undefined;
  for (const group of groupByType(problem.devices)) {
    const [device] = group;
    if (device === undefined) continue;
    const stages = [{ device, devices: [device], from: 0, to: problem.segments }];
    const value = valueOfGoal(runCosts(problem, stages), goal);
    if (value < (best?.value ?? Infinity)) best = { stages, value };
  }
  return best;
}

/** A number that is smaller for faster devices: the whole model where it fits, else its first half, quarter … */
function paceOf(problem: PlannerProblem, device: PlannerDevice): number {
  for (let { segments: end } = problem; end >= 1; end = Math.floor(end / 2)) {
    if (problem.stageBytes(0, end) > device.memoryBytes) continue;
    const ms = problem.stageMs(device, 0, end);
    if (ms !== Infinity) return (ms * problem.segments) / end;
  }
  return Infinity;
}

function fullStages(stages: readonly PlannedStage[], at: readonly number[]): readonly PlannedStage[] {
  return stages.map((stage) => ({ ...stage, from: at[stage.from] ?? 0, to: at[stage.to] ?? 0 }));
}
