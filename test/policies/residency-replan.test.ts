import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { loadHighsSolver } from '#adapters/highs/highs-solver.js';
import { relaxedResidency } from '#policies/residency/residency-lp.js';
import { plannedResidency } from '#policies/residency/residency-milp.js';
import { bytesOn, costOf, type ResidencyProblem } from '#policies/residency/residency-problem.js';
import { replanDefaults, replanResidency } from '#policies/residency/residency-replan.js';
import type { LinearSolver } from '#ports/linear-solver.js';
import { residencyWindows, trackResidency } from '#sim/fleet/residency-track.js';

let solver: LinearSolver;
beforeAll(async () => {
  solver = await loadHighsSolver();
});

const MiB = 2 ** 20;

function problemOf(change: Partial<ResidencyProblem> = {}): ResidencyProblem {
  return {
    // Each device has room for two of three models.
    devices: [0, 1].map((device) => ({
      id: `d${device}`,
      memoryBytes: 20 * MiB,
      usdPerHour: 1 + device,
      resident: [],
    })),
    models: [0, 1, 2].map((model) => ({ name: `m${model}`, bytes: 10 * MiB, loadMs: 2000 })),
    streams: [0, 1, 2].map((model) => ({ model, itemsPerSecond: 10, busyMs: [20, 10] })),
    ...{ missUsd: 1e-3, horizonMs: 30_000, busyShare: 0.8 },
    ...change,
  };
}

const problems = fc
  .record({
    rates: fc.array(fc.integer({ min: 0, max: 60 }), { minLength: 3, maxLength: 3 }),
    memory: fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 2, maxLength: 2 }),
    resident: fc.array(fc.subarray([0, 1, 2]), { minLength: 2, maxLength: 2 }),
    ms: fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 6, maxLength: 6 }),
  })
  .map(({ rates, memory, resident, ms }) =>
    problemOf({
      devices: memory.map((room, device) => ({
        ...{ id: `d${device}`, memoryBytes: room * MiB, usdPerHour: 1 + device, resident: resident[device] ?? [] },
      })),
      streams: rates.map((itemsPerSecond, model) => ({
        ...{ model, itemsPerSecond, busyMs: [ms[2 * model] ?? 1, ms[2 * model + 1] ?? 1] },
      })),
    }),
  );

describe('residency planned again', () => {
  it('goes towards nothing that the forecast finds worse than the LP baseline, fits, moves no more than it may, and never loses by moving', () => {
    fc.assert(
      fc.property(
        problems,
        fc.constantFrom('greedy', 'milp', 'lp' as const),
        fc.integer({ min: 0, max: 3 }),
        (problem, planner, movesMax) => {
          const turn = replanResidency(problem, solver, { planner, hysteresis: 0.05, movesMax });
          expect(turn.wantedUsd).toBeLessThanOrEqual(relaxedResidency(problem, solver).usd * (1 + 1e-9));
          expect(turn.moves.length).toBeLessThanOrEqual(movesMax);
          expect(turn.usd).toBeLessThanOrEqual(turn.keptUsd * (1 + 1e-9));
          for (const [device, row] of turn.lives.entries()) {
            expect(bytesOn(problem, row)).toBeLessThanOrEqual(problem.devices[device]?.memoryBytes ?? 0);
          }
          expect(costOf(problem, turn.lives).usd).toBeCloseTo(turn.usd, 12);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('leaves everything where it is while too little would be saved, and goes all the way in turns when much is', () => {
    const empty = problemOf();
    const best = plannedResidency(empty, solver);
    const nothing = replanResidency(empty, solver, { planner: 'milp', hysteresis: 0.99999, movesMax: 9 });
    expect(nothing.moves).toEqual([]);
    let problem = empty;
    const turns: number[] = [];
    for (let turn = 0; turn < 5; turn += 1) {
      const { lives, moves } = replanResidency(problem, solver, { planner: 'milp', hysteresis: 0.01, movesMax: 1 });
      turns.push(moves.length);
      const resident = lives.map((row) => row.flatMap((isThere, model) => (isThere ? [model] : [])));
      problem = {
        ...problem,
        devices: problem.devices.map((device, at) => ({ ...device, resident: resident[at] ?? [] })),
      };
    }
    expect(turns.at(-1)).toBe(0);
    const reached = costOf(
      problem,
      problem.devices.map(({ resident }) => problem.models.map((_, at) => resident.includes(at))),
    );
    expect(reached.missedPerSecond).toBeLessThanOrEqual(best.missedPerSecond + 1e-6);
  });

  it('over time costs less than a plan made once where popularity drifts and where spot devices are lost, and no more than the LP baseline', () => {
    const problem = problemOf({
      // Room for one model each: what lives where matters.
      devices: [0, 1].map((device) => ({
        id: `d${device}`,
        memoryBytes: 10 * MiB,
        usdPerHour: 1 + device,
        resident: [],
      })),
      streams: [0, 1, 2].map((model) => ({ model, itemsPerSecond: 20, busyMs: [20, 12] })),
    });
    const start = plannedResidency(problem, solver).lives;
    for (const scenario of ['drift', 'spot'] as const) {
      const windows = residencyWindows(scenario, problem, [false, true], { windowMs: 30_000, windows: 60, seed: 1 });
      expect(residencyWindows(scenario, problem, [false, true], { windowMs: 30_000, windows: 60, seed: 1 })).toEqual(
        windows,
      );
      const track = (planner: 'greedy' | 'milp' | 'lp' | undefined) =>
        trackResidency(problem, start, windows, solver, {
          windowMs: 30_000,
          replan: planner === undefined ? undefined : { planner, ...replanDefaults },
        });
      const baseline = track('lp').usd;
      for (const planner of ['greedy', 'milp'] as const) {
        expect(track(planner).usd).toBeLessThanOrEqual(baseline * 1.01);
        expect(track(planner).usd).toBeLessThanOrEqual(track(undefined).usd * (1 + 1e-9));
      }
      if (scenario === 'drift') expect(track('milp').usd).toBeLessThan(0.95 * track(undefined).usd);
    }
  });
});
