/** Choices and frontiers against all plans there are, on problems small enough to list them. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RandomStream } from '#core/random.js';
import {
  choosePlan,
  goalValue,
  paretoFrontier,
  pipelineCandidate,
  type BatchProblem,
  type ChoiceOptions,
  type PlanCandidate,
  type PlanFigures,
} from '#core/split/plan-choice.js';
import { planGoals, type PlannedStage, type PlannerDevice, type PlannerProblem } from '#core/split/plan-problem.js';

const options: ChoiceOptions = {
  goal: 'throughput',
  items: 1,
  latencyMsMax: Infinity,
  strategies: ['whole', 'pipeline', 'data'],
  frontierMax: 1000,
  sweepSteps: Infinity,
  worthwhile: 0,
};

function randomProblems(seed: number, segments: number, types: readonly number[]): readonly BatchProblem[] {
  const random = new RandomStream(seed);
  const devices = types.flatMap((count, type) => {
    const usdPerHour = 1 + random.below(9);
    const busyWatts = 10 + random.below(90);
    const memoryBytes = 10 + random.below(20 * segments);
    return Array.from({ length: count }, (_, index): PlannerDevice => {
      return { id: `d${type}:${index}`, type: `t${type}`, memoryBytes, usdPerHour, busyWatts };
    });
  });
  const draw = (key: string, below: number): number => random.stream(key).below(below);
  return [1, 2, 4].map((batch) => ({
    batch,
    problem: {
      segments,
      devices,
      replicates: true,
      stageMs: ({ type }, from, to) =>
        (to - from) * (1 + draw(type, 9)) * (1 + (batch * draw(`batch ${type}`, 10)) / 10) +
        draw(`${type} ${from} ${to}`, 12),
      stageBytes: (from, to) => (to - from) * 10 + batch,
      transferMs: (from, to, boundary) => draw(`${from.type} ${to.type}`, 5) + draw(`cut ${boundary}`, 4) * batch,
    },
  }));
}

/** Every pipeline, replicated stages included. */
function* everyPipeline(problem: PlannerProblem): Generator<readonly PlannedStage[]> {
  function* extend(stages: readonly PlannedStage[], from: number): Generator<readonly PlannedStage[]> {
    if (from === problem.segments) {
      yield stages;
      return;
    }
    const used = new Set(stages.flatMap(({ devices }) => devices));
    const types = new Map<string, PlannerDevice[]>();
    for (const device of problem.devices) {
      if (!used.has(device)) types.set(device.type, [...(types.get(device.type) ?? []), device]);
    }
    for (const group of types.values()) {
      for (let replicas = 1; replicas <= group.length; replicas += 1) {
        const devices = group.slice(0, replicas);
        for (let to = from + 1; to <= problem.segments; to += 1) {
          yield* extend([...stages, { device: devices[0]!, devices, from, to }], to);
        }
      }
    }
  }
  yield* extend([], 0);
}

function everyCandidate(problems: readonly BatchProblem[], items: number): readonly PlanCandidate[] {
  return problems.flatMap(({ batch, problem }) =>
    [...everyPipeline(problem)]
      .map((stages) => pipelineCandidate(problem, stages, { batch, items }))
      .filter(({ latencyMs }) => Number.isFinite(latencyMs)),
  );
}

const shapes = fc.record({
  segments: fc.integer({ min: 1, max: 4 }),
  types: fc.array(fc.integer({ min: 1, max: 2 }), { minLength: 1, maxLength: 2 }),
});
const additive = {
  latency: (f: PlanFigures) => f.latencyMs,
  cost: (f: PlanFigures) => f.usdPer1000,
  energy: (f: PlanFigures) => f.joulesPerRequest,
};

describe('the choice of a plan', () => {
  it('over all batch sizes is what trying every pipeline finds, for every goal, and its bound is that value', () => {
    fc.assert(
      fc.property(fc.integer(), shapes, fc.constantFrom(...planGoals), (seed, { segments, types }, goal) => {
        const problems = randomProblems(seed, segments, types);
        const { choice, lowerBound, isExact } = choosePlan(problems, {
          ...options,
          goal,
          strategies: ['whole', 'pipeline'],
        });
        const best = Math.min(...everyCandidate(problems, 1).map((candidate) => goalValue(candidate, goal)));
        expect(choice === undefined ? Infinity : goalValue(choice, goal)).toBeCloseTo(best, 9);
        expect(lowerBound).toBeCloseTo(best, 9);
        expect(isExact).toBe(choice !== undefined);
      }),
      { numRuns: 150 },
    );
  });

  it('of a request in several runs has the number and size of runs with the least latency of all', () => {
    fc.assert(
      fc.property(fc.integer(), shapes, fc.integer({ min: 2, max: 16 }), (seed, { segments, types }, items) => {
        const problems = randomProblems(seed, segments, types);
        const { choice, lowerBound } = choosePlan(problems, {
          ...options,
          goal: 'latency',
          items,
          strategies: ['whole', 'pipeline'],
        });
        const best = Math.min(...everyCandidate(problems, items).map(({ latencyMs }) => latencyMs));
        expect(choice?.latencyMs ?? Infinity).toBeCloseTo(best, 6);
        expect(lowerBound).toBeLessThanOrEqual(best + 1e-9);
      }),
      { numRuns: 150 },
    );
  });

  it('with a latency allowed is the plan of most throughput that keeps to it, or none with the least latency there is', () => {
    fc.assert(
      fc.property(fc.integer(), shapes, fc.integer({ min: 1, max: 60 }), (seed, { segments, types }, latencyMsMax) => {
        const problems = randomProblems(seed, segments, types);
        const found = choosePlan(problems, { ...options, latencyMsMax, strategies: ['whole', 'pipeline'] });
        const all = everyCandidate(problems, 1);
        const allowed = all.filter(({ latencyMs }) => latencyMs <= latencyMsMax);
        const best = Math.max(0, ...allowed.map(({ requestsPerSecond }) => requestsPerSecond));
        expect(found.choice?.requestsPerSecond ?? 0).toBeCloseTo(best, 6);
        expect(found.latencyMsLeast).toBeCloseTo(Math.min(...all.map(({ latencyMs }) => latencyMs)), 9);
      }),
      { numRuns: 150 },
    );
  });

  it('shares whole models among the devices that together give most, in proportion to their speed', () => {
    fc.assert(
      fc.property(fc.integer(), shapes, (seed, { segments, types }) => {
        const problems = randomProblems(seed, segments, types);
        const { bestOf } = choosePlan(problems, { ...options, strategies: ['data'] });
        // Trying every set of devices: none gives more than all that take the whole model.
        let best = 0;
        for (const { batch, problem } of problems) {
          for (let set = 1; set < 2 ** problem.devices.length; set += 1) {
            const members = problem.devices.filter((_, index) => (set >> index) & 1);
            if (members.length < 2) continue;
            const times = members.map((device) =>
              problem.stageBytes(0, segments) > device.memoryBytes ? Infinity : problem.stageMs(device, 0, segments),
            );
            if (times.includes(Infinity)) continue;
            best = Math.max(best, 1000 * batch * times.reduce((sum, ms) => sum + 1 / ms, 0));
          }
        }
        expect(bestOf.data?.requestsPerSecond ?? 0).toBeCloseTo(best, 6);
        if (bestOf.data !== undefined) {
          expect(bestOf.data.shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 9);
          expect(bestOf.data.stages.length).toBe(bestOf.data.shares.length);
        }
      }),
      { numRuns: 150 },
    );
  });

  it('prefers fewer devices where more are hardly worth it', () => {
    const devices = ['a', 'b'].map((id): PlannerDevice => ({ id, type: id, memoryBytes: 100, usdPerHour: 1 }));
    const problem: PlannerProblem = {
      segments: 100,
      devices,
      stageMs: ({ id }, from, to) => (to - from) * (id === 'a' ? 1 : 99),
      stageBytes: (from, to) => to - from,
      transferMs: () => 1,
    };
    const plan = (worthwhile: number): PlanCandidate | undefined =>
      choosePlan([{ batch: 1, problem }], { ...options, worthwhile }).choice;
    expect(plan(0)?.stages.length).toBe(2);
    expect(plan(0.02)).toMatchObject({ strategy: 'whole', latencyMs: 100 });
  });
});

describe('the frontier', () => {
  it('keeps what no other plan is at least as good as in everything', () => {
    const figure = fc.integer({ min: 1, max: 5 });
    const plans = fc.array(
      fc.record({ latencyMs: figure, requestsPerSecond: figure, usdPer1000: figure, joulesPerRequest: figure }),
      { maxLength: 40 },
    );
    const covers = (a: PlanFigures, b: PlanFigures): boolean =>
      a.latencyMs <= b.latencyMs &&
      a.requestsPerSecond >= b.requestsPerSecond &&
      a.usdPer1000 <= b.usdPer1000 &&
      a.joulesPerRequest <= b.joulesPerRequest;
    fc.assert(
      fc.property(plans, (all) => {
        const frontier = paretoFrontier(all);
        for (const plan of all) expect(frontier.some((kept) => covers(kept, plan))).toBe(true);
        for (const kept of frontier) expect(frontier.filter((other) => covers(other, kept))).toEqual([kept]);
      }),
    );
  });

  it('has for every pipeline there is one that is as good in throughput and in latency, cost or energy', () => {
    fc.assert(
      fc.property(
        fc.integer(),
        shapes,
        fc.constantFrom('latency', 'cost', 'energy'),
        (seed, { segments, types }, sum) => {
          const problems = randomProblems(seed, segments, types);
          const { frontier } = choosePlan(problems, { ...options, goal: sum, strategies: ['whole', 'pipeline'] });
          const value = additive[sum];
          for (const plan of everyCandidate(problems, 1)) {
            // The searches weigh the other figures a millionth.
            const isCovered = frontier.some(
              (kept) =>
                kept.requestsPerSecond >= plan.requestsPerSecond * (1 - 1e-6) &&
                value(kept) <= value(plan) * (1 + 1e-3),
            );
            expect(isCovered).toBe(true);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it('shows no more rows than asked for, the best of each goal among them', () => {
    // The first problem of many plans.
    const seeds = Array.from({ length: 100 }, (_, seed) => randomProblems(seed, 8, [2, 2, 1]));
    const problems = seeds.find((candidate) => choosePlan(candidate, options).frontier.length > 7) ?? [];
    const all = choosePlan(problems, options).frontier;
    const few = choosePlan(problems, { ...options, frontierMax: 5 }).frontier;
    expect(all.length).toBeGreaterThan(5);
    expect(few.length).toBe(5);
    for (const goal of planGoals) {
      const best = Math.min(...all.map((plan) => goalValue(plan, goal)));
      expect(Math.min(...few.map((plan) => goalValue(plan, goal)))).toBeCloseTo(best, 9);
    }
  });
});
