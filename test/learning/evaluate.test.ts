import { describe, expect, it } from 'vitest';
import { RandomStream } from '#core/random.js';
import { rolloutsHere, type EpisodeOrder } from '#policies/learning/environment.js';
import { bootstrapMean, evaluate } from '#policies/learning/evaluate.js';
import { threeServers, type ThreeServers } from './three-servers.js';

const random = new RandomStream(3);
const cell = (name: string, load: number) => ({
  name,
  scenarios: Array.from({ length: 10 }, (_, seed): ThreeServers => ({ seed: 50 + seed, requests: 500, load })),
  bounds: Array.from({ length: 10 }, () => 0.1),
});
const options = {
  rollouts: rolloutsHere(threeServers),
  classes: threeServers.classes,
  objective: ({ cost }: { readonly cost: Float64Array }) => cost.reduce((sum, value) => sum + value, 0) / cost.length,
  random,
};
const rule = (name: string, isRule = true) => ({ name, player: { kind: 'rule', name } as const, isRule });

describe('paired evaluation', () => {
  it('compares with the best rule of each cell, in pairs, and says how much of the gap is closed', async () => {
    const reports = await evaluate(
      [cell('calm', 0.3), cell('busy', 0.7)],
      [rule('round-robin'), rule('random'), rule('shortest', false)],
      options,
    );
    for (const { figures, comparisons } of reports) {
      const [roundRobin, drawn, shortest] = figures;
      const best = Math.min(roundRobin!.objective, drawn!.objective);
      const [{ change, changeLow, changeHigh, gapClosed, against }] = comparisons as [(typeof comparisons)[number]];
      expect(against).toBe(best === roundRobin!.objective ? 'round-robin' : 'random');
      expect(change).toBeCloseTo(shortest!.objective / best - 1, 9);
      expect(changeLow).toBeLessThanOrEqual(change);
      expect(changeHigh).toBeGreaterThanOrEqual(change);
      expect(changeHigh).toBeLessThan(0);
      expect(gapClosed).toBeCloseTo((best - shortest!.objective) / (best - 0.1), 9);
      expect(shortest!.inTime).toBeGreaterThan(roundRobin!.inTime);
      expect(shortest!.latencyMsP50).toBeLessThan(shortest!.latencyMsP99);
    }
  });

  it('every contender meets the same arrivals', async () => {
    const orders: EpisodeOrder<ThreeServers>[] = [];
    const rollouts = rolloutsHere(threeServers);
    await evaluate([cell('calm', 0.3)], [rule('round-robin'), rule('shortest', false)], {
      ...options,
      rollouts: {
        run: (all) => {
          orders.push(...all);
          return rollouts.run(all);
        },
      },
    });
    expect(orders.slice(0, 10).map(({ scenario }) => scenario)).toEqual(
      orders.slice(10).map(({ scenario }) => scenario),
    );
    const arrivals = async (order: EpisodeOrder<ThreeServers>) =>
      (await threeServers.runEpisode(order)).outcomes.arrivedMs;
    expect(await arrivals(orders[0]!)).toEqual(await arrivals(orders[10]!));
  });

  it('a policy against itself differs by nothing, with an interval of no width', async () => {
    const [report] = await evaluate([cell('calm', 0.3)], [rule('shortest'), rule('shortest', false)], options);
    expect(report!.comparisons[0]).toMatchObject({ change: 0, changeLow: 0, changeHigh: 0, missChange: [0, 0] });
  });

  it('bootstrap intervals hold the true mean in about 95 of 100 samples', () => {
    let held = 0;
    for (let sample = 0; sample < 300; sample += 1) {
      const draw = random.stream(`sample ${sample}`);
      const values = Array.from({ length: 30 }, () => draw.next());
      const { low, high } = bootstrapMean(values, { random: draw.stream('bootstrap'), resamples: 400 });
      if (low <= 0.5 && high >= 0.5) held += 1;
    }
    expect(held / 300).toBeGreaterThan(0.88);
    expect(held / 300).toBeLessThan(0.99);
  });
});
