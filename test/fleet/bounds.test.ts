import { beforeAll, describe, expect, it } from 'vitest';
import { loadHighsSolver } from '#adapters/highs/highs-solver.js';
import { ProgramBuilder } from '#core/linear-program.js';
import { objectiveOf } from '#core/scheduling/objective.js';
import type { LinearSolver } from '#ports/linear-solver.js';
import { cheapestFleet, feasibleRate, fluidBound, kindsOf, leastBusyMs, mixOf } from '#sim/fleet/fleet-bounds.js';
import { objectiveRows, References } from '#sim/fleet/fleet-report.js';
import { runFleet } from '#sim/fleet/run-fleet.js';
import { arrivalsAt, plainFleet, poisson, run } from './fleets.js';

let solver: LinearSolver;
beforeAll(async () => {
  solver = await loadHighsSolver();
});

const close = (value: number, digits = 6): unknown => expect.closeTo(value, digits);
const slo = (ms: number): object => ({ sloMs: { interactive: ms, standard: ms, batch: ms } });

describe('the linear solver', () => {
  it('solves a diet, a knapsack and says what has no solution', () => {
    const diet = new ProgramBuilder();
    const [bread, milk] = [diet.column(2), diet.column(3)];
    diet.row(8, Infinity, [
      [bread, 4],
      [milk, 1],
    ]);
    diet.row(6, Infinity, [
      [bread, 1],
      [milk, 3],
    ]);
    // Both rows are tight: 18/11 of bread, 16/11 of milk.
    expect(solver.solve(diet.finish())).toMatchObject({ status: 'optimal', cost: close(84 / 11) });

    const values = [60, 100, 120, 75];
    const weights = [10, 20, 30, 15];
    const knapsack = new ProgramBuilder();
    const columns = values.map((value) => knapsack.column(-value, { upper: 1, whole: true }));
    knapsack.row(
      -Infinity,
      50,
      columns.map((column, index) => [column, weights[index] as number]),
    );
    let best = 0;
    for (let mask = 0; mask < 16; mask += 1) {
      const taken = (figures: readonly number[]): number =>
        figures.reduce((sum, each, at) => sum + (mask & (1 << at) ? each : 0), 0);
      if (taken(weights) <= 50) best = Math.max(best, taken(values));
    }
    const solution = solver.solve(knapsack.finish());
    expect(solution.cost).toBeCloseTo(-best, 6);
    expect([...solution.values].every((value) => Math.abs(value - Math.round(value)) < 1e-6)).toBe(true);

    const nothing = new ProgramBuilder();
    nothing.row(2, 3, [[nothing.column(1, { upper: 1 }), 1]]);
    expect(solver.solve(nothing.finish()).status).toBe('infeasible');
  });
});

describe('bounds of a fleet', () => {
  it('find the least busy time of a request in the largest batch that is still in time', () => {
    const fleet = plainFleet({ d: { 1: 10, 2: 12, 4: 20 } }, { itemsMax: 4, ...slo(15) });
    const [device] = fleet.devices;
    expect(leastBusyMs(fleet, device!, { model: 0, sloClass: 1, items: 1 })).toBe(6);
    expect(leastBusyMs(fleet, device!, { model: 0, sloClass: 1, items: 2 })).toBe(12);
    expect(leastBusyMs(fleet, device!, { model: 0, sloClass: 1, items: 3 })).toBe(Infinity);
  });

  it('are exact where a request can only be alone: the cheapest in time, and misses for those that do not fit', () => {
    // Two requests at once; each device can serve one of them in time; the dear one costs three times as much.
    const fleet = plainFleet({ cheap: { 1: 90 }, dear: { 1: 90 } }, slo(100));
    const priced = {
      ...fleet,
      devices: fleet.devices.map((each) => ({ ...each, usdPerHour: each.id === 'dear' ? 3 : 1 })),
    };
    const bound = (count: number): number =>
      fluidBound(priced, arrivalsAt(...Array.from({ length: count }, () => 0)), solver, { windowMs: 50 }) * count;
    expect(bound(1)).toBeCloseTo(1, 6);
    // Three windows of 50 ms fit 150 / 90 of a request on a device: fluid, so that the cheap one takes 5/3 of them.
    expect(bound(2)).toBeCloseTo(5 / 3 + 3 * (1 / 3), 6);
    expect(bound(4)).toBeCloseTo(5 / 3 + 3 * (5 / 3) + 10 * (4 - 10 / 3), 6);
  });

  it('are never above what any assignment of few requests reaches, tried one by one', async () => {
    const fleet = plainFleet({ a: { 1: 20, 2: 25 }, b: { 1: 60, 2: 70 } }, { itemsMax: 2, ...slo(80) });
    const priced = {
      ...fleet,
      devices: fleet.devices.map((each) => ({ ...each, usdPerHour: each.id === 'a' ? 4 : 1 })),
    };
    for (const times of [
      [0, 5, 10, 15],
      [0, 0, 0, 0, 0],
      [0, 30, 31, 90, 91],
    ]) {
      const arrivals = arrivalsAt(...times);
      const bound = fluidBound(priced, arrivals, solver, { windowMs: 10 });
      let best = Infinity;
      for (let code = 0; code < 2 ** times.length; code += 1) {
        let next = 0;
        const picker = { policy: 'as told', pick: () => (code >> next++) & 1 };
        const result = await runFleet({ fleet: priced, arrivals, seed: 1, dispatch: () => ({ picker }) });
        best = Math.min(best, objectiveOf(objectiveRows(priced, result)).total);
      }
      expect(bound).toBeLessThanOrEqual(best + 1e-9);
      expect(bound).toBeGreaterThan(best * 0.2);
    }
  });

  it('stay below every rule on random arrivals, at any load', async () => {
    const fleet = plainFleet({ a: { 1: 10, 4: 16 }, b: { 1: 30, 4: 80 } }, { itemsMax: 4, noise: 0.1, ...slo(120) });
    for (const rate of [30, 120, 400]) {
      const arrivals = poisson(fleet, rate, 800);
      const bound = fluidBound(fleet, arrivals, solver, { windowMs: 40 });
      for (const dispatch of ['sed', 'cheapest-feasible', 'rand']) {
        const result = await run(fleet, arrivals, { dispatch, batching: 'deadline-cap' });
        expect(bound).toBeLessThan(objectiveOf(objectiveRows(fleet, result)).total);
      }
    }
  });

  it('give the rate of all devices in their best batches, and nothing to a model that is never in time', () => {
    const fleet = plainFleet({ a: { 1: 10, 2: 15 }, b: { 1: 50, 2: 100 } }, { itemsMax: 2, ...slo(60) });
    expect(feasibleRate(fleet, mixOf(fleet), solver)).toBeCloseTo(2000 / 15 + 1000 / 50, 6);
    const late = plainFleet({ a: { 1: 100 } }, slo(60));
    expect(feasibleRate(late, mixOf(late), solver)).toBeCloseTo(0, 9);
  });

  it('find the cheapest static fleet that a search over all small ones finds', () => {
    const fleet = plainFleet({ a: { 1: 10 }, b: { 1: 35 } }, slo(60));
    const priced = {
      ...fleet,
      devices: fleet.devices.map((each) => ({ ...each, usdPerHour: each.id === 'a' ? 3 : 1 })),
    };
    for (const rate of [20, 95, 130, 310]) {
      let best = Infinity;
      for (let a = 0; a <= 5; a += 1) {
        for (let b = 0; b <= 12; b += 1) if (a * 100 + (b * 1000) / 35 >= rate - 1e-9) best = Math.min(best, 3 * a + b);
      }
      expect(cheapestFleet(priced, mixOf(priced), rate, solver).usdPerHour).toBeCloseTo(best, 6);
    }
  });

  it('know the fastest and the cheapest way to serve a request on an empty fleet', () => {
    const fleet = plainFleet({ fast: { 1: 10 }, cheap: { 1: 50 } }, slo(40));
    const priced = {
      ...fleet,
      devices: fleet.devices.map((each) => ({ ...each, usdPerHour: each.id === 'fast' ? 3.6 : 0.036, netMs: 2 })),
    };
    // The cheap one is too slow for the target; with a longer one it is the reference.
    expect(new References(priced).of(0, 1, 1)).toMatchObject({
      usd: close(10e-6, 12),
      fastestMs: close(12),
    });
    const patient = { ...priced, models: priced.models.map((each) => ({ ...each, sloMs: [99, 99, 99] })) };
    expect(new References(patient).of(0, 1, 1).usd).toBeCloseTo(50e-8, 12);
  });

  it('gather many sizes into few kinds, each no larger than its requests', () => {
    const arrivals = arrivalsAt(...Array.from({ length: 100 }, (_, index) => index));
    for (let index = 0; index < 100; index += 1) arrivals.items[index] = index + 1;
    const { kinds, of } = kindsOf(arrivals);
    expect(kinds.length).toBe(8);
    expect(kinds.reduce((sum, { count }) => sum + count, 0)).toBe(100);
    for (let index = 0; index < 100; index += 1)
      expect(kinds[of[index] as number]!.items).toBeLessThanOrEqual(index + 1);
  });
});
