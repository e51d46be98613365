/** The simulator, and batching policies in it, against what queueing theory says in closed form. */
import { describe, expect, it } from 'vitest';
import { seededRandom } from '#sim/random.js';
import { fleetDispatch } from '#sim/fleet/fleet-dispatch.js';
import { runFleet } from '#sim/fleet/run-fleet.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { batchingByName } from '#policies/batching/batching-by-name.js';
import { solveSmdp } from '#policies/batching/smdp-limits.js';
import { arrivalsAt, mean, plainFleet, poisson, run, takenMs } from './fleets.js';

describe('the fleet simulator against closed forms', () => {
  it('waits in an M/D/1 queue as long as Pollaczek and Khinchine say', async () => {
    const serviceMs = 10;
    for (const load of [0.5, 0.8]) {
      const fleet = plainFleet({ d: { 1: serviceMs } });
      const result = await run(fleet, poisson(fleet, load * 100, 60_000));
      const waitMs = (load * serviceMs) / (2 * (1 - load));
      expect(Math.abs(mean(takenMs(result)) / (waitMs + serviceMs) - 1)).toBeLessThan(0.03);
    }
  });

  it('waits in an M/M/1 queue as long as its formula says: items make service times exponential', async () => {
    // A run of n items takes n ms, and items are drawn from a geometric law: nearly exponential, with mean 20 ms.
    const sizes = 400;
    const fleet = plainFleet({ d: { 1: 1, [sizes]: sizes } }, { itemsMax: sizes });
    const load = 0.6;
    const arrivals = poisson(fleet, load * 50, 60_000, 3);
    const random = seededRandom('items');
    for (let index = 0; index < arrivals.items.length; index += 1) {
      arrivals.items[index] = Math.min(sizes, Math.max(1, Math.ceil(-20 * Math.log(1 - random.next()))));
    }
    // Each request alone: a batch of several would be another queue.
    const alone = { name: 'alone', decidesAlone: true, choose: oneAtATime };
    const result = await runFleet({
      ...{ fleet, arrivals, seed: 1, dispatch: fleetDispatch(dispatchByName('sed')), batching: () => alone },
    });
    const serviceMs = mean(arrivals.items);
    const rate = 0.6 * 0.05;
    const waitMs = (rate * secondMoment(arrivals.items)) / (2 * (1 - rate * serviceMs));
    expect(Math.abs(serviceMs / 20 - 1)).toBeLessThan(0.05);
    expect(Math.abs(mean(takenMs(result)) / (waitMs + serviceMs) - 1)).toBeLessThan(0.08);
    // The same as M/M/1's 1/(μ - λ), to what rounding up to whole items changes.
    expect(Math.abs(mean(takenMs(result)) / (serviceMs / (1 - rate * serviceMs)) - 1)).toBeLessThan(0.1);
  });

  it('serves greedy batches as fast as the chain of their sizes says', async () => {
    // A run takes 10 ms whatever it holds, up to 4: the number found at the end of a run is a Markov chain.
    const itemsMax = 4;
    const serviceMs = 10;
    const perMs = 0.25;
    const fleet = plainFleet({ d: { 1: serviceMs, [itemsMax]: serviceMs } }, { itemsMax });
    const result = await run(fleet, poisson(fleet, perMs * 1000, 100_000, 5));
    expect(Math.abs(mean(takenMs(result)) / bulkServiceMs(perMs, serviceMs, itemsMax) - 1)).toBeLessThan(0.03);
  });

  it('holds a request for the delay and no longer when nobody comes', async () => {
    const fleet = plainFleet({ d: { 1: 10, 8: 20 } }, { itemsMax: 8 });
    const taken = takenMs(await run(fleet, arrivalsAt(100, 200, 201), { batching: 'delay:7' }));
    expect([...taken].map((ms) => Math.round(ms * 10) / 10)).toEqual([17, 18.4, 17.4]);
  });

  it('launches at the solved limit, and never later than the target allows', () => {
    const runMs = Array.from({ length: 8 }, (_, at) => 10 + at);
    const eager = solveSmdp({ runMs, perMs: 0.2, runWeight: 0 });
    const thrifty = solveSmdp({ runMs, perMs: 0.2, runWeight: 50 });
    expect(eager.limit).toBeLessThanOrEqual(thrifty.limit);
    expect(thrifty.limit).toBeGreaterThan(1);
    // A control limit: from there on every number that waits is launched.
    expect(thrifty.launch.slice(thrifty.limit).every((items) => items > 0)).toBe(true);
  });

  it('solves for the cost that a search over all limits finds by simulation', () => {
    const runMs = [10, 11, 12, 13];
    const problem = { runMs, perMs: 0.08, runWeight: 6 };
    const { limit, cost } = solveSmdp(problem);
    const costs = [1, 2, 3, 4].map((tried) => limitCost(problem, tried));
    const least = Math.min(...costs);
    expect(costs[limit - 1]).toBeLessThan(least * 1.01);
    expect(Math.abs(cost / least - 1)).toBeLessThan(0.02);
  });
});

function oneAtATime(_: unknown, __: number, choice: { queue: number; itemsMax: number; untilMs: number }): void {
  choice.queue = 0;
  choice.itemsMax = 1;
  choice.untilMs = Infinity;
}

function secondMoment(values: Iterable<number>): number {
  return mean([...values].map((value) => value * value));
}

/** Mean time in a queue with Poisson arrivals whose server takes all that wait, up to so many, for a fixed time. */
function bulkServiceMs(perMs: number, serviceMs: number, itemsMax: number): number {
  // Number left in the queue when a run begins, from the chain of queue lengths at ends of runs.
  const last = 400;
  const chances = poissonChances(perMs * serviceMs, last);
  let lengths = new Float64Array(last + 1);
  lengths[0] = 1;
  for (let round = 0; round < 3000; round += 1) {
    const next = new Float64Array(last + 1);
    for (let length = 0; length <= last; length += 1) {
      const chance = lengths[length] as number;
      if (chance < 1e-15) continue;
      const left = Math.max(0, length - itemsMax);
      for (let come = 0; left + come <= last && come < chances.length; come += 1) {
        next[left + come] = (next[left + come] as number) + chance * (chances[come] as number);
      }
    }
    lengths = next;
  }
  // Mean number in the system over time, by the renewal of runs; Little's law turns it into time.
  let number = 0;
  let time = 0;
  for (let length = 0; length <= last; length += 1) {
    const chance = lengths[length] as number;
    const idleMs = length === 0 ? 1 / perMs : 0;
    const begun = Math.max(1, length);
    number += chance * (begun * serviceMs + (perMs * serviceMs * serviceMs) / 2);
    time += chance * (idleMs + serviceMs);
  }
  return number / time / perMs;
}

function poissonChances(expected: number, last: number): Float64Array {
  const chances = new Float64Array(Math.min(last, 200));
  let chance = Math.exp(-expected);
  for (let count = 0; count < chances.length; count += 1) {
    chances[count] = chance;
    chance = (chance * expected) / (count + 1);
  }
  return chances;
}

/** Cost a ms of the rule that launches all (up to the largest batch) once so many wait, by plain simulation. */
function limitCost(
  {
    runMs,
    perMs,
    runWeight,
  }: { readonly runMs: readonly number[]; readonly perMs: number; readonly runWeight: number },
  limit: number,
): number {
  const random = seededRandom('limits');
  const next = (): number => -Math.log(1 - random.next()) / perMs;
  let nowMs = 0;
  let arrivalMs = next();
  let waiting = 0;
  let cost = 0;
  while (nowMs < 2e6) {
    if (waiting < limit) {
      cost += waiting * (arrivalMs - nowMs);
      nowMs = arrivalMs;
      waiting += 1;
      arrivalMs = nowMs + next();
      continue;
    }
    const items = Math.min(waiting, runMs.length);
    const endMs = nowMs + (runMs[items - 1] as number);
    cost += waiting * (endMs - nowMs) + runWeight * (endMs - nowMs);
    for (; arrivalMs < endMs; arrivalMs += next()) {
      waiting += 1;
      cost += endMs - arrivalMs;
    }
    waiting -= items;
    nowMs = endMs;
  }
  return cost / nowMs;
}

describe('batching policies by name', () => {
  it('refuses names and numbers it does not know, and adds shedding to those it does', () => {
    for (const bad of ['nope', 'aimd:3', 'delay:', 'delay:-1', 'delay:x']) {
      expect(() => batchingByName(bad)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }));
    }
    expect(batchingByName('greedy').name).toBe('triton');
    expect(batchingByName('delay:2.5').name).toBe('delay:2.5');
    expect(batchingByName('deadline-cap+shed')).toMatchObject({ name: 'deadline-cap+shed', sheds: true });
  });
});
