/** Stages that unlike devices share, against every plan there is. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RandomStream } from '#core/random.js';
import { choosePlan, goalValue, type ChoiceOptions } from '#core/split/plan-choice.js';
import { runCosts, type PlannedStage, type PlannerDevice, type PlannerProblem } from '#core/split/plan-problem.js';
import { planShared } from '#core/split/plan-sharing.js';

/** Devices of which no two are alike, with times that are no sums of parts. */
function randomProblem(seed: number, segments: number, count: number): PlannerProblem {
  const random = new RandomStream(seed);
  const draw = (key: string, below: number): number => random.stream(key).below(below);
  const devices = Array.from({ length: count }, (_, index): PlannerDevice => {
    const memoryBytes = 10 + draw(`memory ${index}`, 15 * segments);
    return { id: `d${index}`, type: `t${index}`, memoryBytes, usdPerHour: 1 + draw(`price ${index}`, 9) };
  });
  const forbidden = draw('forbidden', 3) === 0 ? `d${draw('which', count)}` : '';
  return {
    segments,
    devices,
    stageMs: ({ id }, from, to) =>
      draw(`no ${id} ${from} ${to}`, 15) === 0
        ? Infinity
        : (to - from) * (1 + draw(id, 9)) + draw(`${id} ${from} ${to}`, 9),
    stageBytes: (from, to) => 8 * (to - from) + draw(`bytes ${from} ${to}`, 6),
    transferMs: (a, b, boundary) => draw(`link ${a.id} ${b.id}`, 4) + draw(`cut ${boundary}`, 4),
    mayShare: (team) => !team.some(({ id }) => id === forbidden),
  };
}

/** Every cut, with every choice of devices for every stage: each at most once. */
function* everyPlan(problem: PlannerProblem, from = 0, left = problem.devices): Generator<readonly PlannedStage[]> {
  const { segments, mayShare } = problem;
  if (from === segments) {
    yield [];
    return;
  }
  for (let team = 1; team < 2 ** left.length; team += 1) {
    const devices = left.filter((_, index) => (team >> index) % 2 === 1);
    const [device] = devices;
    if (device === undefined || (devices.length > 1 && mayShare?.(devices) !== true)) continue;
    const others = left.filter((one) => !devices.includes(one));
    for (let to = from + 1; to <= segments; to += 1) {
      for (const rest of everyPlan(problem, to, others)) yield [{ device, devices, from, to }, ...rest];
    }
  }
}

/** By the definition: what devices of a stage do together, and the worst way between two stages. */
function slowInterval({ stageMs, stageBytes, transferMs }: PlannerProblem, stages: readonly PlannedStage[]): number {
  let interval = 0;
  for (const [index, { devices, from, to }] of stages.entries()) {
    let rate = 0;
    for (const device of devices) {
      if (stageBytes(from, to) > device.memoryBytes) return Infinity;
      const ms = stageMs(device, from, to);
      if (ms === Infinity) return Infinity;
      rate += 1 / ms;
    }
    interval = Math.max(interval, 1 / rate);
    for (const a of stages[index - 1]?.devices ?? []) {
      for (const b of devices) interval = Math.max(interval, transferMs(a, b, from));
    }
  }
  return interval;
}

const options: ChoiceOptions = {
  ...{ goal: 'throughput', items: 1, latencyMsMax: Infinity, strategies: ['whole', 'pipeline'], frontierMax: 10 },
  ...{ sweepSteps: 4, worthwhile: 0 },
};

describe('unlike devices that share stages', () => {
  it('give the plan that trying every cut with every choice of devices gives, where devices are few', () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 3 }),
        (seed, segments, count) => {
          const problem = randomProblem(seed, segments, count);
          let best = Infinity;
          for (const stages of everyPlan(problem)) best = Math.min(best, slowInterval(problem, stages));
          const { plan, isExact } = planShared(problem, []);
          expect(isExact).toBe(true);
          expect(plan?.value ?? Infinity).toBeCloseTo(best, 9);
          if (plan !== undefined) expect(slowInterval(problem, plan.stages)).toBeCloseTo(best, 9);
          const { choice, lowerBound, isExact: isChoiceExact } = choosePlan([{ batch: 1, problem }], options);
          expect(choice === undefined ? Infinity : goalValue(choice, 'throughput')).toBeCloseTo(best, 9);
          if (best < Infinity) expect([isChoiceExact, lowerBound <= best * (1 + 1e-9)]).toEqual([true, true]);
        },
      ),
      { numRuns: 150 },
    );
  });

  it('step by step give no plan that is worse than the one they began with, and a bound that no plan beats', () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 2, max: 4 }), (seed, segments) => {
        const problem = randomProblem(seed, segments, 5);
        const { mayShare: _, ...apart } = problem;
        const alone = choosePlan([{ batch: 1, problem: apart }], options).choice;
        const shared = choosePlan([{ batch: 1, problem }], options);
        if (alone === undefined) return;
        const value = goalValue(shared.choice!, 'throughput');
        expect(value).toBeLessThanOrEqual(goalValue(alone, 'throughput') * (1 + 1e-9));
        let best = Infinity;
        for (const stages of everyPlan(problem)) best = Math.min(best, slowInterval(problem, stages));
        expect(value).toBeGreaterThanOrEqual(best * (1 - 1e-9));
        expect(shared.lowerBound).toBeLessThanOrEqual(best * (1 + 1e-9));
      }),
      { numRuns: 15 },
    );
  });

  it('make a slow stage that cannot be cut as fast as the others, at the price of both', () => {
    // The second segment is nearly four times the work, and there are three unlike devices.
    const speed: Readonly<Record<string, number>> = { a: 1, b: 1, c: 0.5 };
    const devices = Object.keys(speed).map((id): PlannerDevice => ({
      id,
      type: id,
      memoryBytes: 100,
      usdPerHour: 3.6,
    }));
    const problem: PlannerProblem = {
      ...{ segments: 2, devices, stageBytes: () => 60, transferMs: () => 0, mayShare: () => true },
      stageMs: ({ id }, from, to) => ((from === 0 ? 8 : 0) + (to === 2 ? 30 : 0)) / (speed[id] ?? 1),
    };
    const { plan } = planShared({ ...problem, stageBytes: (from, to) => 60 * (to - from) }, []);
    expect(
      plan?.stages.map(({ devices: team, from, to }) => [
        team
          .map(({ id }) => id)
          .sort()
          .join('+'),
        from,
        to,
      ]),
    ).toEqual([
      ['c', 0, 1],
      ['a+b', 1, 2],
    ]);
    expect(plan?.value).toBe(16);
    const costs = runCosts(problem, plan?.stages ?? []);
    expect(costs).toMatchObject({ latencyMs: 16 + 30, intervalMs: 16 });
    expect(costs.usd).toBeCloseTo((46 * 3.6) / 3_600_000, 12);
  });
});
