import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RandomStream } from '#core/random.js';
import { planBounds } from '#core/split/plan-bound.js';
import { reachOf } from '#core/split/plan-reach.js';
import { objectives, search } from '#core/split/plan-search.js';
import { orderSpace } from '#core/split/plan-space.js';
import { choosePlan, goalValue } from '#core/split/plan-choice.js';
import {
  planGoals,
  planInOrder,
  planSplit,
  type PlanGoal,
  type PlannerDevice,
  type PlannerProblem,
  type SplitPlan,
} from '#core/split/planner.js';
import { StageTable } from '#core/split/stage-table.js';
import { largeProblems } from '#bench/plan-problem.js';

const goals = planGoals;

interface Shape {
  readonly segments: number;
  /** Devices of each type. */
  readonly types: readonly number[];
}

/** Times that are no sums of parts, unequal links, and memories that do not take everything. */
function randomProblem(seed: number, { segments, types }: Shape): PlannerProblem {
  const random = new RandomStream(seed);
  const devices = types.flatMap((count, type) => {
    const memoryBytes = 20 + random.below(20 * segments);
    const usdPerHour = 1 + random.below(9);
    const busyWatts = 10 + random.below(90);
    return Array.from({ length: count }, (_, index): PlannerDevice => ({
      id: `d${type}:${index}`,
      type: `t${type}`,
      memoryBytes,
      usdPerHour,
      busyWatts,
    }));
  });
  const drawn = new Map<string, number>();
  const draw = (key: string, below: number): number => {
    const known = drawn.get(key);
    if (known !== undefined) return known;
    const value = random.stream(key).below(below);
    drawn.set(key, value);
    return value;
  };
  return {
    segments,
    devices,
    stageMs: ({ type }, from, to) => {
      const ms = (to - from) * (1 + draw(type, 9)) + draw(`${type} ${from} ${to}`, 12);
      return draw(`forbidden ${type} ${from} ${to}`, 12) === 0 ? Infinity : ms;
    },
    stageBytes: (from, to) => {
      let bytes = 0;
      for (let at = from; at < to; at += 1) bytes += 5 + draw(`bytes ${at}`, 20);
      return bytes;
    },
    transferMs: (from, to, boundary) => draw(`link ${from.type} ${to.type}`, 6) + draw(`cut ${boundary}`, 8),
  };
}

function valueOf(problem: PlannerProblem, goal: PlanGoal, stages: SplitPlan['stages']): number {
  const parts: number[] = [];
  for (const [index, { device, devices, from, to }] of stages.entries()) {
    if (problem.stageBytes(from, to) > device.memoryBytes) return Infinity;
    const ms = problem.stageMs(device, from, to);
    if (ms === Infinity) return Infinity;
    if (goal === 'cost') parts.push((ms * device.usdPerHour) / 3_600_000);
    else if (goal === 'energy') parts.push((ms * (device.busyWatts ?? 0)) / 1000);
    else parts.push(goal === 'throughput' ? ms / devices.length : ms);
    const before = stages[index - 1];
    if (before === undefined) continue;
    const sent = problem.transferMs(before.device, device, from);
    if (goal === 'latency' || goal === 'throughput') parts.push(sent);
  }
  return goal === 'throughput' ? Math.max(...parts) : parts.reduce((sum, part) => sum + part, 0);
}

/** Every plan: every choice of devices in every order (or only ascending), every place for every cut. */
function* everyPlan(problem: PlannerProblem, inOrder: boolean): Generator<SplitPlan['stages']> {
  function* extend(stages: SplitPlan['stages'], from: number, used: readonly number[]): Generator<SplitPlan['stages']> {
    if (from === problem.segments) {
      yield stages;
      return;
    }
    if (stages.length >= (problem.stagesMax ?? Infinity)) return;
    for (const [index, device] of problem.devices.entries()) {
      if (used.includes(index) || (inOrder && index < (used.at(-1) ?? -1))) continue;
      for (let to = from + 1; to <= problem.segments; to += 1) {
        yield* extend([...stages, { device, devices: [device], from, to }], to, [...used, index]);
        if (problem.replicates !== true) continue;
        // Further equal devices behind this one share the stage.
        const group = [device];
        const taken = [...used, index];
        for (const [other, equal] of problem.devices.entries()) {
          if (other <= index || equal.type !== device.type || used.includes(other)) continue;
          group.push(equal);
          taken.push(other);
          yield* extend([...stages, { device, devices: [...group], from, to }], to, [...taken]);
        }
      }
    }
  }
  yield* extend([], 0, []);
}

function bruteForce(problem: PlannerProblem, goal: PlanGoal, inOrder: boolean): number {
  let best = Infinity;
  for (const stages of everyPlan(problem, inOrder)) best = Math.min(best, valueOf(problem, goal, stages));
  return best;
}

function expectValid(problem: PlannerProblem, goal: PlanGoal, plan: SplitPlan): void {
  expect(plan.stages[0]?.from).toBe(0);
  expect(plan.stages.at(-1)?.to).toBe(problem.segments);
  for (const [index, { from, to }] of plan.stages.entries()) {
    expect(to).toBeGreaterThan(from);
    if (index > 0) expect(from).toBe(plan.stages[index - 1]?.to);
  }
  const ids = plan.stages.flatMap(({ devices }) => devices.map(({ id }) => id));
  expect(new Set(ids).size).toBe(ids.length);
  expect(valueOf(problem, goal, plan.stages)).toBeCloseTo(plan.value, 9);
}

const shapes = fc.record({
  segments: fc.integer({ min: 1, max: 5 }),
  types: fc.array(fc.integer({ min: 1, max: 2 }), { minLength: 1, maxLength: 3 }),
});

describe('the planner', () => {
  it('in a given order finds what trying every plan finds, for every goal', () => {
    fc.assert(
      fc.property(fc.integer(), shapes, fc.constantFrom(...goals), (seed, shape, goal) => {
        const problem = randomProblem(seed, shape);
        const { plan, lowerBound, isExact } = planInOrder(problem, goal);
        const best = bruteForce(problem, goal, true);
        expect(isExact).toBe(true);
        expect(plan?.value ?? Infinity).toBeCloseTo(best, 9);
        expect(lowerBound).toBe(plan?.value ?? Infinity);
        if (plan !== undefined) expectValid(problem, goal, plan);
      }),
      { numRuns: 300 },
    );
  });

  it('over all orders finds what trying every plan in every order finds, for every goal', () => {
    fc.assert(
      fc.property(fc.integer(), shapes, fc.constantFrom(...goals), (seed, shape, goal) => {
        const problem = randomProblem(seed, shape);
        const { plan, isExact, whole } = planSplit(problem, goal);
        expect(isExact).toBe(true);
        expect(plan?.value ?? Infinity).toBeCloseTo(bruteForce(problem, goal, false), 9);
        if (plan !== undefined) expectValid(problem, goal, plan);
        if (whole !== undefined) expect(plan?.value).toBeLessThanOrEqual(whole.value);
      }),
      { numRuns: 300 },
    );
  });

  it('with stages on several equal devices and with few stages allowed it finds what trying every plan finds', () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.record({
          segments: fc.integer({ min: 1, max: 4 }),
          types: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 2 }),
        }),
        fc.constantFrom(...goals),
        fc.integer({ min: 1, max: 4 }),
        fc.boolean(),
        (seed, shape, goal, stagesMax, inOrder) => {
          const problem = { ...randomProblem(seed, shape), replicates: true, stagesMax };
          const { plan, isExact } = inOrder ? planInOrder(problem, goal) : planSplit(problem, goal);
          expect(isExact).toBe(true);
          expect(plan?.value ?? Infinity).toBeCloseTo(bruteForce(problem, goal, inOrder), 9);
          if (plan !== undefined) expectValid(problem, goal, plan);
          expect(plan?.stages.length ?? 0).toBeLessThanOrEqual(stagesMax);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('its bound for searches that are not exact is below what trying every plan finds', () => {
    fc.assert(
      fc.property(fc.integer(), shapes, fc.constantFrom(...goals), fc.boolean(), (seed, shape, goal, replicates) => {
        const problem = { ...randomProblem(seed, shape), replicates };
        const best = bruteForce(problem, goal, false);
        expect(planBounds(problem, new StageTable(problem), goal).value).toBeLessThanOrEqual(best + 1e-9);
      }),
      { numRuns: 300 },
    );
  });

  it('finds the same plan when it leaves out what a known plan rules out, in any order of devices', () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.record({
          segments: fc.integer({ min: 1, max: 30 }),
          types: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 5 }),
        }),
        fc.constantFrom(...goals),
        fc.boolean(),
        fc.double({ min: 1, max: 1.5, noNaN: true }),
        (seed, shape, goal, replicates, slack) => {
          const problem = { ...randomProblem(seed, shape), replicates };
          const table = new StageTable(problem);
          const objective = objectives[goal];
          const space = orderSpace(problem);
          const best = search(space, table, objective);
          if (best === undefined) return;
          const reach = reachOf(planBounds(problem, table, goal), objective, best.value * slack);
          expect(search(space, table, objective, { reach })).toEqual(best);
          expect(search(space, table, objective, { below: best.value * slack + 1e-9 })).toEqual(best);
          expect(search(space, table, objective, { below: best.value })).toBeUndefined();
        },
      ),
      { numRuns: 300 },
    );
  });

  it('with too many kinds of devices gives a valid plan and a bound that no plan beats', () => {
    for (let seed = 0; seed < 5; seed += 1) {
      const problem = randomProblem(seed, { segments: 40, types: Array.from({ length: 14 }, () => 1) });
      for (const goal of goals) {
        const { plan, lowerBound, isExact, whole } = planSplit(problem, goal);
        expect(plan).toBeDefined();
        expectValid(problem, goal, plan!);
        expect(lowerBound).toBeLessThanOrEqual(plan!.value);
        if (isExact) expect(lowerBound).toBe(plan!.value);
        expect(plan!.value).toBeLessThanOrEqual(planInOrder(problem, goal).plan?.value ?? Infinity);
        expect(plan!.value).toBeLessThanOrEqual(whole?.value ?? Infinity);
      }
    }
  });

  it('answers that nothing fits where nothing fits', () => {
    const problem = randomProblem(1, { segments: 3, types: [2] });
    const tight = { ...problem, stageBytes: () => 1_000_000 };
    expect(planSplit(tight, 'latency')).toMatchObject({ plan: undefined, whole: undefined, lowerBound: Infinity });
    expect(() => planSplit({ ...problem, devices: [] }, 'latency')).toThrow(/at least one segment and one device/);
  });

  it('does not split what one device does best', () => {
    const devices = ['a', 'b'].map((id): PlannerDevice => ({ id, type: id, memoryBytes: 100, usdPerHour: 1 }));
    const problem: PlannerProblem = {
      segments: 10,
      devices,
      stageMs: ({ id }, from, to) => (to - from) * (id === 'a' ? 1 : 5),
      stageBytes: (from, to) => to - from,
      transferMs: () => 3,
    };
    const { plan, whole } = planSplit(problem, 'latency');
    expect(plan).toEqual(whole);
    // In a pipe the slow one helps all the same: 7 segments of 1 ms beside 3 of 5 ms are worse than 9 beside 1.
    expect(planSplit(problem, 'throughput').plan?.value).toBe(9);
  });

  it(
    '1,000 cut points, 16 devices and 8 batch sizes are searched, over all orders, with a bound',
    { timeout: 60_000 },
    () => {
      const problems = largeProblems();
      const {
        choice,
        frontier,
        lowerBound: bound,
      } = choosePlan(problems, {
        goal: 'throughput',
        items: 1,
        latencyMsMax: Infinity,
        strategies: ['whole', 'pipeline', 'data'],
        frontierMax: 12,
        sweepSteps: 12,
        worthwhile: 0,
      });
      expect(problems.map(({ batch }) => batch)).toEqual([1, 2, 4, 8, 16, 32, 64, 128]);
      expect(problems[0]?.problem).toMatchObject({ segments: 1001, devices: { length: 16 } });
      expect(choice?.stages.length).toBe(16);
      expect(bound).toBeLessThanOrEqual(goalValue(choice!, 'throughput'));
      // The bound is no empty promise: within a fifth of the plan found.
      expect(goalValue(choice!, 'throughput') / bound).toBeLessThan(1.2);
      expect(frontier.length).toBeGreaterThan(1);
      expect(frontier.length).toBeLessThanOrEqual(12);
    },
  );
});
