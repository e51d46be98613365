/** What carrying values costs a full pipe, in a plan's figures. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { withCarrying, type Carrying } from '#core/split/carrying.js';
import { choosePlan, goalValue, pipelineCandidate } from '#core/split/plan-choice.js';
import type { PlannedStage, PlannerDevice, PlannerProblem } from '#core/split/plan-problem.js';

const device = (id: string): PlannerDevice => ({ id, type: id, memoryBytes: Infinity, usdPerHour: 0 });
const [first, second] = [device('first'), device('second')];
const on = (each: PlannerDevice, from: number, to: number): PlannedStage => ({
  device: each,
  devices: [each],
  from,
  to,
});

/** Ten milliseconds a segment; a transfer takes next to nothing. */
const problem: PlannerProblem = {
  segments: 4,
  devices: [first, second],
  stageMs: (_, from, to) => 10 * (to - from),
  stageBytes: () => 1,
  transferMs: () => 0.1,
};
/** 2 ms for the smallest value there and back, and 1 ms for each 1,000 bytes one way. */
const carrying: Carrying = {
  bytes: [500, 1000, 2000, 3000, 100],
  way: () => ({ fixedMs: 2, msPerByte: 0.002 }),
  isFull: () => false,
};
const intervalMs = (each: PlannerProblem, stages: readonly PlannedStage[]): number =>
  1000 / pipelineCandidate(each, stages, { batch: 1, items: 1 }).requestsPerSecond;

describe('carrying values', () => {
  const stages = [on(first, 0, 2), on(second, 2, 4)];

  it('takes its time from the stages of a full pipe, and of one request alone what the transfer takes', () => {
    const carried = withCarrying(problem, carrying);
    // 20 ms, half of the fixed 2 ms, 500 bytes in and 2,000 out; the second stage has 2,000 in and 100 out.
    expect(intervalMs(carried, stages)).toBeCloseTo(20 + 1 + 0.5 + 2, 9);
    expect(intervalMs(problem, stages)).toBeCloseTo(20, 9);
    const latency = (each: PlannerProblem): number => pipelineCandidate(each, stages, { batch: 1, items: 1 }).latencyMs;
    expect(latency(carried)).toBe(latency(problem));
  });

  it('takes the part of the host too where stages leave it no core', () => {
    const full = withCarrying(problem, { ...carrying, isFull: (_, others) => others.length > 0 });
    expect(intervalMs(full, stages)).toBeCloseTo(20 + 2 + 0.5 + 2, 9);
  });

  it('costs nothing where nothing is carried, and keeps what is impossible impossible', () => {
    const none = withCarrying(problem, { ...carrying, way: () => undefined });
    expect(intervalMs(none, stages)).toBe(20);
    const impossible = withCarrying({ ...problem, stageMs: () => Infinity }, carrying);
    expect(impossible.slowdown?.(first, [second])(0, 1, Infinity)).toBe(1);
  });

  it('never makes a pipe faster, and costs more the more bytes cross', () => {
    const bytes = fc.nat(100_000);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 3 }), fc.tuple(bytes, bytes, bytes, bytes, bytes), (cut, sizes) => {
        const at = [on(first, 0, cut), on(second, cut, 4)];
        const carried = intervalMs(withCarrying(problem, { ...carrying, bytes: sizes }), at);
        const more = sizes.map((size, boundary) => (boundary === cut ? size + 1000 : size));
        expect(carried).toBeGreaterThan(intervalMs(problem, at));
        expect(intervalMs(withCarrying(problem, { ...carrying, bytes: more }), at)).toBeGreaterThan(carried);
      }),
    );
  });

  it('is known to choice and bound: of one or two devices no plan is better than the choice, and the bound says so', () => {
    const times = fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 5, maxLength: 5 });
    fc.assert(
      fc.property(
        fc.array(times, { minLength: 1, maxLength: 2 }),
        fc.array(fc.nat(20_000), { minLength: 6, maxLength: 6 }),
        fc.nat(40),
        fc.constantFrom('throughput' as const, 'cost' as const, 'energy' as const),
        (work, bytes, fixedMs, goal) => {
          const devices = work.map((_, index) => ({ ...device(`d${index}`), usdPerHour: 1 + index, busyWatts: 5 }));
          const sum = (all: readonly number[]): number => all.reduce((total, ms) => total + ms, 0);
          const carried = withCarrying(
            {
              ...{ segments: 5, devices, stageBytes: () => 1, transferMs: () => 0.1, replicates: true },
              mayShare: () => true,
              stageMs: ({ id }, from, to) => sum(work[Number(id.slice(1))]!.slice(from, to)),
            },
            { bytes, way: () => ({ fixedMs, msPerByte: 0.002 }), isFull: (_, others) => others.length > 0 },
          );
          const plans: PlannedStage[][] = devices.map((one) => [on(one, 0, 5)]);
          const [one, two] = devices;
          if (one !== undefined && two !== undefined) {
            plans.push([{ ...on(one, 0, 5), devices: [one, two] }]);
            for (let at = 1; at < 5; at += 1)
              plans.push([on(one, 0, at), on(two, at, 5)], [on(two, 0, at), on(one, at, 5)]);
          }
          const best = Math.min(
            ...plans.map((stages) => goalValue(pipelineCandidate(carried, stages, { batch: 1, items: 1 }), goal)),
          );
          const found = choosePlan([{ batch: 1, problem: carried }], {
            ...{ goal, items: 1, latencyMsMax: Infinity, strategies: ['whole', 'pipeline'] },
            ...{ frontierMax: 100, sweepSteps: 20, worthwhile: 0 },
          });
          expect(found.lowerBound).toBeLessThanOrEqual(best * (1 + 1e-9));
          expect(found.choice === undefined ? Infinity : goalValue(found.choice, goal)).toBeCloseTo(best, 9);
          if (devices.length === 1 || goal === 'throughput') expect(found.isExact).toBe(true);
        },
      ),
    );
  });
});
