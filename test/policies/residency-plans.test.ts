import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { loadHighsSolver } from '#adapters/highs/highs-solver.js';
import { greedyResidency } from '#policies/residency/residency-greedy.js';
import { plannedResidency } from '#policies/residency/residency-milp.js';
import { bytesOn, costOf, type ResidencyProblem } from '#policies/residency/residency-problem.js';
import type { LinearSolver } from '#ports/linear-solver.js';

let solver: LinearSolver;
beforeAll(async () => {
  solver = await loadHighsSolver();
});

const MiB = 2 ** 20;

/** Every set of models on every device that fits. */
function bestByTrying(problem: ResidencyProblem): number {
  const cells = problem.devices.length * problem.models.length;
  let best = Infinity;
  for (let code = 0; code < 2 ** cells; code += 1) {
    const lives = problem.devices.map((_, device) =>
      problem.models.map((__, model) => ((code >> (device * problem.models.length + model)) & 1) === 1),
    );
    if (lives.some((row, device) => bytesOn(problem, row) > problem.devices[device]!.memoryBytes)) continue;
    best = Math.min(best, costOf(problem, lives).usd);
  }
  return best;
}

const problems: fc.Arbitrary<ResidencyProblem> = fc
  .record({
    memory: fc.array(fc.integer({ min: 0, max: 30 }), { minLength: 1, maxLength: 3 }),
    models: fc.array(
      fc.record({ size: fc.integer({ min: 1, max: 20 }), loadMs: fc.integer({ min: 0, max: 20_000 }) }),
      {
        minLength: 1,
        maxLength: 3,
      },
    ),
    rates: fc.array(fc.integer({ min: 0, max: 60 }), { minLength: 3, maxLength: 3 }),
    ms: fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 9, maxLength: 9 }),
    prices: fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 3, maxLength: 3 }),
    resident: fc.integer({ min: 0, max: 511 }),
  })
  .map(({ memory, models, rates, ms, prices, resident }) => ({
    devices: memory.map((MiBs, device) => ({
      id: `d${device}`,
      memoryBytes: MiBs * MiB,
      usdPerHour: prices[device]! / 10,
      resident: models.map((_, model) => model).filter((model) => (resident >> (device * 3 + model)) & 1),
    })),
    models: models.map(({ size, loadMs }, model) => ({ name: `m${model}`, bytes: size * MiB, loadMs })),
    streams: models.map((_, model) => ({
      model,
      itemsPerSecond: rates[model]!,
      // Some devices cannot serve some models.
      busyMs: memory.map((__, device) => (ms[model * 3 + device]! > 85 ? Infinity : ms[model * 3 + device]!)),
    })),
    missUsd: 1e-3,
    horizonMs: 60_000,
    busyShare: 0.9,
  }));

describe('plans of which model lives where', () => {
  it('by whole-number programming are the best that trying everything finds', () => {
    fc.assert(
      fc.property(problems, (problem) => {
        const best = bestByTrying(problem);
        expect(plannedResidency(problem, solver).usd).toBeLessThanOrEqual(best * (1 + 1e-6) + 1e-12);
      }),
      { numRuns: 60 },
    );
  });

  it('by steps always fit, and planned ones are never worse than they are', () => {
    fc.assert(
      fc.property(problems, (problem) => {
        const greedy = greedyResidency(problem);
        for (const [device, row] of greedy.lives.entries()) {
          expect(bytesOn(problem, row)).toBeLessThanOrEqual(problem.devices[device]!.memoryBytes);
        }
        const planned = plannedResidency(problem, solver);
        expect(planned.usd).toBeLessThanOrEqual(greedy.usd * (1 + 1e-9));
        for (const [device, row] of planned.lives.entries()) {
          expect(bytesOn(problem, row)).toBeLessThanOrEqual(problem.devices[device]!.memoryBytes);
        }
      }),
      { numRuns: 60 },
    );
  });

  const pair: ResidencyProblem = {
    devices: [
      { id: 'cheap', memoryBytes: 10 * MiB, usdPerHour: 1, resident: [] },
      { id: 'dear', memoryBytes: 10 * MiB, usdPerHour: 8, resident: [] },
    ],
    models: [
      { name: 'busy', bytes: 8 * MiB, loadMs: 1000 },
      { name: 'rare', bytes: 8 * MiB, loadMs: 1000 },
    ],
    streams: [
      { model: 0, itemsPerSecond: 80, busyMs: [10, 5] },
      { model: 1, itemsPerSecond: 5, busyMs: [10, 5] },
    ],
    missUsd: 0.01,
    horizonMs: 60_000,
    busyShare: 0.9,
  };

  it('put the popular model on the cheap device, the other one on the dear one', () => {
    for (const plan of [plannedResidency(pair, solver), greedyResidency(pair)]) {
      expect(plan.missedPerSecond).toBeCloseTo(0, 9);
      expect(plan.lives).toEqual([
        [true, false],
        [false, true],
      ]);
    }
  });

  it('leave what lives somewhere where it is when moving costs more than it saves', () => {
    const swapped = (loadMs: number): ResidencyProblem => ({
      ...pair,
      devices: pair.devices.map((each, device) => ({ ...each, resident: [1 - device] })),
      models: pair.models.map((each) => ({ ...each, loadMs })),
    });
    expect(plannedResidency(swapped(1000), solver).lives[0]).toEqual([true, false]);
    expect(plannedResidency(swapped(60_000), solver).lives).toEqual([
      [false, true],
      [true, false],
    ]);
  });

  it('refuse figures that make no problem', () => {
    for (const wrong of [
      { missUsd: 0 },
      { horizonMs: -1 },
      { busyShare: 1.5 },
      { streams: [{ model: 7, itemsPerSecond: 1, busyMs: [1, 1] }] },
    ]) {
      expect(() => plannedResidency({ ...pair, ...wrong }, solver)).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
      );
    }
  });
});
