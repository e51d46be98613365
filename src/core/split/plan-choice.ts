/**
 * From searches to a choice: candidates of every batch size and strategy, the Pareto frontier over latency, throughput,
 * cost and energy, and the one that serves the goal best within the service-level objective.
 *
 * Figures are those of a request of `items` items. A request larger than the micro-batch goes through the pipe in pieces,
 * a smaller one shares a run with others. Strategies:
 * - `whole`: one device runs the whole model;
 * - `pipeline`: stages on devices, a stage perhaps on several;
 * - `data`: several devices run the whole model and take pieces in proportion to their speed.
 */
import {
  joulesPerMs,
  runCosts,
  slowdownsOf,
  usdPerMs,
  type PlanGoal,
  type PlannedStage,
  type PlannerDevice,
  type PlannerProblem,
} from './plan-problem.js';
import { inCompany, slowed, SplitPlanner } from './planner.js';

export type PlanStrategy = 'whole' | 'pipeline' | 'data';

export interface BatchProblem {
  /** Items of one run; the tables are those of such runs. */
  readonly batch: number;
  readonly problem: PlannerProblem;
  /** Devices that run the whole model only while no other device does anything. */
  readonly apart?: PlannerProblem;
}

export interface ChoiceOptions {
  readonly goal: PlanGoal;
  /** Items of a request. */
  readonly items: number;
  /** Longest latency of a request, ms; infinite: any. */
  readonly latencyMsMax: number;
  /** `whole` is always looked at. */
  readonly strategies: readonly PlanStrategy[];
  /** Plans of the frontier at most. */
  readonly frontierMax: number;
  /** Shorter and shorter intervals tried for each sum. */
  readonly sweepSteps: number;
  /** A plan with fewer devices wins when it is worse by at most this share. */
  readonly worthwhile: number;
}

export interface PlanFigures {
  /** Of one request alone in the pipe. `data`: the slowest device that may get it. */
  readonly latencyMs: number;
  readonly requestsPerSecond: number;
  /** Dollars of device time for 1,000 requests. */
  readonly usdPer1000: number;
  readonly joulesPerRequest: number;
}

export interface PlanCandidate extends PlanFigures {
  readonly strategy: PlanStrategy;
  /** Items of one run, and runs of one request. */
  readonly batch: number;
  readonly runsPerRequest: number;
  /** `data`: one stage a device, each the whole model. */
  readonly stages: readonly PlannedStage[];
  /** `data`: share of the work by device, in the order of stages; empty otherwise. */
  readonly shares: readonly number[];
}

export interface PlanChoice {
  /** Undefined when no plan fits, or none within the latency allowed. */
  readonly choice: PlanCandidate | undefined;
  /** Best first by goal; no plan of it is worse than another in everything. */
  readonly frontier: readonly PlanCandidate[];
  /** The best single device run of each device that takes the whole model. */
  readonly wholes: readonly PlanCandidate[];
  /** The best plan by strategy, where there is one within the latency allowed. */
  readonly bestOf: Readonly<Partial<Record<PlanStrategy, PlanCandidate>>>;
  /** The shortest latency of any candidate; infinite when there are none. */
  readonly latencyMsLeast: number;
  /** No plan of the strategies is better than this by the goal (`goalValue`), whatever the latency allowed. */
  readonly lowerBound: number;
  readonly isExact: boolean;
}

/** A figure that is smaller for better plans: ms, ms between requests, dollars for 1,000, joules. */
export function goalValue(figures: PlanFigures, goal: PlanGoal): number {
  const { latencyMs, requestsPerSecond, usdPer1000, joulesPerRequest } = figures;
  return {
    latency: latencyMs,
    throughput: 1000 / requestsPerSecond,
    cost: usdPer1000,
    energy: joulesPerRequest,
  }[goal];
}

/** Plans over all batch sizes. @throws INVALID_ARGUMENT for a problem without segments or devices. */
export function choosePlan(problems: readonly BatchProblem[], options: ChoiceOptions): PlanChoice {
  const { goal, items, latencyMsMax, strategies } = options;
  const candidates: PlanCandidate[] = [];
  const wholes: PlanCandidate[] = [];
  let lowerBound = Infinity;
  for (const { batch, problem, apart } of problems) {
    const mine = wholePlans(problem, batch, items);
    const all = apart === undefined ? mine : [...mine, ...wholePlans(apart, batch, items)];
    wholes.push(...all);
    candidates.push(...all);
    if (strategies.includes('data')) candidates.push(...dataPlans(mine, { problem, batch, items, latencyMsMax }));
    if (strategies.includes('pipeline')) {
      const { plans, bound } = pipelinePlans(problem, batch, options);
      candidates.push(...plans);
      lowerBound = Math.min(lowerBound, bound);
    }
  }
  for (const candidate of candidates) {
    if (candidate.strategy !== 'pipeline') lowerBound = Math.min(lowerBound, goalValue(candidate, goal));
  }
  const offered = candidates.filter(({ strategy }) => strategy === 'whole' || strategies.includes(strategy));
  const allowed = offered.filter(({ latencyMs }) => latencyMs <= latencyMsMax);
  const best = bestBy(allowed, goal);
  const choice = best === undefined ? undefined : simplest(allowed, best, options);
  const bestOf: { [Strategy in PlanStrategy]?: PlanCandidate } = {};
  for (const strategy of ['whole', 'pipeline', 'data'] as const) {
    const found = bestBy(
      allowed.filter((candidate) => candidate.strategy === strategy),
      goal,
    );
    if (found !== undefined) bestOf[strategy] = found;
  }
  return {
    choice,
    frontier: thinOut(distinct(paretoFrontier(allowed), choice, options.worthwhile), options),
    wholes: bestOfEachDevice(wholes, goal),
    bestOf,
    latencyMsLeast: offered.reduce((least, { latencyMs }) => Math.min(least, latencyMs), Infinity),
    lowerBound,
    isExact: best !== undefined && goalValue(best, goal) <= lowerBound * (1 + 1e-9),
  };
}

/** Those that no other is at least as good as in everything and better in something. Of equals the first. */
export function paretoFrontier<Figures extends PlanFigures>(candidates: readonly Figures[]): readonly Figures[] {
  const kept: Figures[] = [];
  const sorted = [...candidates].sort(
    (a, b) =>
      a.latencyMs - b.latencyMs ||
      b.requestsPerSecond - a.requestsPerSecond ||
      a.usdPer1000 - b.usdPer1000 ||
      a.joulesPerRequest - b.joulesPerRequest,
  );
  // Sorted so, a plan can only be dominated by one before it.
  for (const candidate of sorted) {
    if (Number.isFinite(candidate.latencyMs) && !kept.some((other) => coversAll(other, candidate)))
      kept.push(candidate);
  }
  return kept;
}

/** At least as good in everything, up to rounding. */
function coversAll(a: PlanFigures, b: PlanFigures): boolean {
  const near = 1 + 1e-9;
  return (
    a.latencyMs <= b.latencyMs * near &&
    a.requestsPerSecond * near >= b.requestsPerSecond &&
    a.usdPer1000 <= b.usdPer1000 * near &&
    a.joulesPerRequest <= b.joulesPerRequest * near
  );
}

function wholePlans(problem: PlannerProblem, batch: number, items: number): readonly PlanCandidate[] {
  return problem.devices.flatMap((device) => {
    const stages = [{ device, devices: [device], from: 0, to: problem.segments }];
    const candidate = pipelineCandidate(problem, stages, { batch, items });
    return Number.isFinite(candidate.latencyMs) ? [candidate] : [];
  });
}

function pipelinePlans(
  problem: PlannerProblem,
  batch: number,
  { goal, items, sweepSteps }: ChoiceOptions,
): { readonly plans: readonly PlanCandidate[]; readonly bound: number } {
  const planner = new SplitPlanner(problem);
  const answer = planner.best(goal);
  const runs = runsOf(items, batch);
  const share = items / batch;
  // Pieces of one request follow each other through the pipe: its latency is a sum and an interval.
  let bound = answer.lowerBound * (goal === 'latency' ? 1 : share);
  const found = answer.plan === undefined ? [] : [answer.plan.stages];
  if (goal === 'latency' && runs > 1) {
    const fastest = planner.best('throughput');
    bound += (runs - 1) * fastest.lowerBound;
    if (fastest.plan !== undefined) found.push(fastest.plan.stages);
  }
  if (goal === 'throughput') {
    const shared = planner.bestShared(answer);
    if (shared?.plan !== undefined) found.push(shared.plan.stages);
    if (shared !== undefined) bound = Math.min(bound, shared.lowerBound * share);
  }
  const { slowdown, slowdownLeast, devices } = problem;
  if (slowdown !== undefined && goal !== 'latency') {
    // Figures count what searches of the problem itself do not see.
    const askSlowed = (other: PlannerProblem): number => {
      const slow = new SplitPlanner(other);
      const own = slow.best(goal);
      if (own.plan !== undefined) found.push(own.plan.stages);
      const ownShared = goal === 'throughput' ? slow.bestShared(own) : undefined;
      if (ownShared?.plan !== undefined) found.push(ownShared.plan.stages);
      return share * Math.min(own.lowerBound, ownShared?.lowerBound ?? Infinity);
    };
    if (slowdownLeast !== undefined) bound = Math.max(bound, askSlowed(slowed(problem, slowdownLeast)));
    if (goal === 'throughput' && (slowdownLeast === undefined || devices.length === 2)) {
      const together = askSlowed(inCompany(problem));
      // Of two devices a plan without a split is one device's, every other plan both's.
      if (devices.length === 2) bound = Math.max(bound, together);
    }
  }
  if (goal === 'cost') bound *= 1000;
  const prices = problem.devices.map(usdPerMs).filter((price) => price > 0);
  const draws = problem.devices.map(joulesPerMs).filter((draw) => draw > 0);
  const usd = prices.length === 0 ? 0 : 1 / mean(prices);
  const joule = draws.length === 0 ? 0 : 1 / mean(draws);
  // A little of the others decides between equals.
  const little = 1e-6;
  const weights = [
    { perMs: 1, perUsd: usd * little, perJoule: joule * little },
    ...(usd === 0 ? [] : [{ perMs: little, perUsd: usd, perJoule: joule * little }]),
    ...(joule === 0 ? [] : [{ perMs: little, perUsd: usd * little, perJoule: joule }]),
    ...(usd === 0 && joule === 0 ? [] : [{ perMs: 1, perUsd: usd, perJoule: joule }]),
  ];
  for (const sum of weights) found.push(...planner.sweep(sum, sweepSteps));
  const plans = new Map<string, PlanCandidate>();
  for (const stages of found) {
    // One stage on one device is the whole model, and listed as such.
    if (stages.length === 1 && stages[0]?.devices.length === 1) continue;
    const key = stages.map(({ devices, to }) => `${devices.map(({ id }) => id).join('+')}:${to}`).join(' ');
    if (!plans.has(key)) plans.set(key, pipelineCandidate(problem, stages, { batch, items }));
  }
  return { plans: [...plans.values()], bound };
}

/** A plan's figures for requests of so many items in runs of `batch`. */
export function pipelineCandidate(
  problem: PlannerProblem,
  stages: readonly PlannedStage[],
  { batch, items }: { readonly batch: number; readonly items: number },
): PlanCandidate {
  const { latencyMs, intervalMs, usd, joules } = runCosts(problem, stages);
  const runs = runsOf(items, batch);
  const isWhole = stages.length === 1 && stages[0]?.devices.length === 1;
  return {
    strategy: isWhole ? 'whole' : 'pipeline',
    batch,
    runsPerRequest: runs,
    stages,
    shares: [],
    latencyMs: latencyMs + (runs - 1) * intervalMs,
    requestsPerSecond: (1000 * batch) / (intervalMs * items),
    usdPer1000: (1000 * usd * items) / batch,
    joulesPerRequest: (joules * items) / batch,
  };
}

/**
 * Whole models on several devices: the fastest ones, from two to all that are fast enough. A request of one run goes to
 * any of them; the pieces of a larger one go each to the device that is done first.
 */
function dataPlans(
  wholes: readonly PlanCandidate[],
  {
    problem,
    batch,
    items,
    latencyMsMax,
  }: {
    readonly problem: PlannerProblem;
    readonly batch: number;
    readonly items: number;
    readonly latencyMsMax: number;
  },
): readonly PlanCandidate[] {
  const runs = runsOf(items, batch);
  const runMs = ({ latencyMs, runsPerRequest }: PlanCandidate): number => latencyMs / runsPerRequest;
  const fastest = wholes
    .filter((whole) => runs > 1 || whole.latencyMs <= latencyMsMax)
    .sort((a, b) => runMs(a) - runMs(b));
  const plans: PlanCandidate[] = [];
  for (let count = 2; count <= fastest.length; count += 1) {
    const chosen = fastest.slice(0, count);
    const stages = chosen.flatMap((whole) => whole.stages);
    const slowdowns = slowdownsOf(problem, stages);
    const alone = chosen.map(runMs);
    const times = alone.map((ms, index) => ms * (slowdowns[index] ?? 1));
    const rate = times.reduce((sum, ms) => sum + 1 / ms, 0);
    const shares = times.map((ms) => 1 / ms / rate);
    const weighted = (of: (whole: PlanCandidate) => number): number =>
      chosen.reduce((sum, whole, index) => sum + of(whole) * (shares[index] ?? 0) * (slowdowns[index] ?? 1), 0);
    plans.push({
      strategy: 'data',
      batch,
      runsPerRequest: runs,
      stages,
      shares,
      latencyMs: runs === 1 ? Math.max(...alone) : makespan(times, runs),
      requestsPerSecond: (1000 * rate * batch) / items,
      usdPer1000: weighted(({ usdPer1000 }) => usdPer1000),
      joulesPerRequest: weighted(({ joulesPerRequest }) => joulesPerRequest),
    });
  }
  return plans;
}

/** Equal pieces, each to the device that is done with it first; the end of the last. Pieces at most 10,000. */
function makespan(times: readonly number[], pieces: number): number {
  const free = times.map(() => 0);
  let end = 0;
  for (let piece = 0; piece < Math.min(pieces, 10_000); piece += 1) {
    let best = 0;
    for (const [index, ms] of times.entries()) {
      if ((free[index] ?? 0) + ms < (free[best] ?? 0) + (times[best] ?? 0)) best = index;
    }
    free[best] = (free[best] ?? 0) + (times[best] ?? 0);
    end = Math.max(end, free[best] ?? 0);
  }
  return pieces <= 10_000 ? end : (end * pieces) / 10_000;
}

function runsOf(items: number, batch: number): number {
  return Math.max(1, Math.ceil(items / batch));
}

function bestBy(candidates: readonly PlanCandidate[], goal: PlanGoal): PlanCandidate | undefined {
  let best: PlanCandidate | undefined;
  for (const candidate of candidates) {
    const value = goalValue(candidate, goal);
    const bestValue = best === undefined ? Infinity : goalValue(best, goal);
    if (value < bestValue * (1 - 1e-12) || (best !== undefined && value <= bestValue && isSimpler(candidate, best))) {
      best = candidate;
    }
  }
  return best;
}

/** The plan with the fewest devices that is nearly as good. */
function simplest(candidates: readonly PlanCandidate[], best: PlanCandidate, options: ChoiceOptions): PlanCandidate {
  const { goal, worthwhile } = options;
  const near = goalValue(best, goal) * (1 + worthwhile);
  let chosen = best;
  for (const candidate of candidates) {
    const isFewer = deviceCount(candidate) < deviceCount(chosen);
    const isBetter =
      deviceCount(candidate) === deviceCount(chosen) && goalValue(candidate, goal) < goalValue(chosen, goal);
    if (goalValue(candidate, goal) <= near && (isFewer || isBetter)) chosen = candidate;
  }
  return chosen;
}

/** Devices a plan keeps busy. */
export function deviceCount({ stages }: PlanCandidate): number {
  return stages.reduce((sum, { devices }) => sum + devices.length, 0);
}

function isSimpler(a: PlanCandidate, b: PlanCandidate): boolean {
  return deviceCount(a) < deviceCount(b) || (deviceCount(a) === deviceCount(b) && a.latencyMs < b.latencyMs);
}

/** Leaves out what hardly differs from a plan with fewer devices. */
function distinct(
  frontier: readonly PlanCandidate[],
  choice: PlanCandidate | undefined,
  share: number,
): PlanCandidate[] {
  if (share === 0) return [...frontier];
  const near = 1 + share;
  const kept: PlanCandidate[] = [];
  const order = [...frontier].sort((a, b) => deviceCount(a) - deviceCount(b));
  for (const candidate of choice === undefined ? order : [choice, ...order]) {
    const isCovered = kept.some(
      (other) =>
        other.latencyMs <= candidate.latencyMs * near &&
        other.requestsPerSecond * near >= candidate.requestsPerSecond &&
        other.usdPer1000 <= candidate.usdPer1000 * near &&
        other.joulesPerRequest <= candidate.joulesPerRequest * near,
    );
    if (!isCovered) kept.push(candidate);
  }
  return kept;
}

/** Keeps the best of each goal, and of the rest an even spread over throughput. */
function thinOut(frontier: readonly PlanCandidate[], { goal, frontierMax }: ChoiceOptions): readonly PlanCandidate[] {
  const sorted = [...frontier].sort((a, b) => goalValue(a, goal) - goalValue(b, goal));
  if (sorted.length <= frontierMax) return sorted;
  const kept = new Set<PlanCandidate>();
  for (const each of [goal, 'latency', 'throughput', 'cost', 'energy'] as const) {
    const best = bestBy(sorted, each);
    if (best !== undefined && kept.size < frontierMax) kept.add(best);
  }
  const left = sorted.filter((candidate) => !kept.has(candidate));
  const places = frontierMax - kept.size;
  for (let place = 0; place < places; place += 1) {
    const candidate = left[Math.floor(((place + 0.5) * left.length) / places)];
    if (candidate !== undefined) kept.add(candidate);
  }
  return sorted.filter((candidate) => kept.has(candidate));
}

function bestOfEachDevice(wholes: readonly PlanCandidate[], goal: PlanGoal): readonly PlanCandidate[] {
  const best = new Map<PlannerDevice, PlanCandidate>();
  for (const whole of wholes) {
    const device = whole.stages[0]?.device;
    if (device === undefined) continue;
    const known = best.get(device);
    if (known === undefined || goalValue(whole, goal) < goalValue(known, goal)) best.set(device, whole);
  }
  return [...best.values()];
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
