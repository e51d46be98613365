import { describe, expect, it } from 'vitest';
import { RandomStream } from '#core/random.js';
import { rolloutsHere, type EpisodeOrder } from '#policies/learning/environment.js';
import { bootstrapMean, bootstrapMeanOfGroups } from '#policies/learning/bootstrap.js';
import { evaluate, overallOf } from '#policies/learning/evaluate.js';
import { paretoOf, preferences } from '#policies/learning/pareto.js';
import { threeServers, type ThreeServers } from './three-servers.js';

const random = new RandomStream(3);
const cell = (name: string, load: number) => ({
  name,
  scenarios: Array.from({ length: 10 }, (_, seed): ThreeServers => ({ seed: 50 + seed, requests: 500, load })),
});
const options = {
  rollouts: rolloutsHere(threeServers),
  classes: threeServers.classes,
  objective: ({ cost }: { readonly cost: Float64Array }) => {
    const total = cost.reduce((sum, value) => sum + value, 0) / cost.length;
    return { total, cost: total, energy: 0 };
  },
  random,
  withBounds: true,
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
    const scenariosOf = (name: string) =>
      orders.filter(({ player }) => player.kind === 'rule' && player.name === name).map(({ scenario }) => scenario);
    expect(scenariosOf('shortest')).toHaveLength(10);
    expect(scenariosOf('round-robin')).toEqual(scenariosOf('shortest'));
    const arrivals = async (order: EpisodeOrder<ThreeServers>) =>
      (await threeServers.runEpisode(order)).outcomes.arrivedMs;
    expect(await arrivals(orders[0]!)).toEqual(await arrivals(orders[1]!));
  });

  it('a policy against itself differs by nothing, with an interval of no width', async () => {
    const [report] = await evaluate([cell('calm', 0.3)], [rule('shortest'), rule('shortest', false)], options);
    expect(report!.comparisons[0]).toMatchObject({ change: 0, changeLow: 0, changeHigh: 0, missChange: [0, 0] });
  });

  it('stopped early, it compares the seeds that all contenders have played', async () => {
    let seeds = 0;
    const reports = await evaluate(
      [cell('calm', 0.3), cell('busy', 0.7)],
      [rule('round-robin'), rule('shortest', false)],
      { ...options, onProgress: () => (seeds += 1), isStopWanted: () => seeds >= 13 },
    );
    expect(reports.map(({ cell: name, seeds: played }) => [name, played])).toEqual([
      ['calm', 10],
      ['busy', 3],
    ]);
    expect(reports[1]!.figures.map(({ seeds: played }) => played)).toEqual([3, 3]);
  });

  it('sums up over cells: mean, worst cell, and an interval that holds the mean', async () => {
    const reports = await evaluate(
      [cell('calm', 0.3), cell('busy', 0.7)],
      [rule('random'), rule('shortest', false)],
      options,
    );
    const [calm, busy] = reports.map(({ comparisons }) => comparisons[0]!);
    const [overall] = overallOf(reports, { random });
    expect(overall).toMatchObject({ contender: 'shortest', cells: 2 });
    expect(overall!.change).toBeCloseTo((calm!.change + busy!.change) / 2, 9);
    expect(overall!.worstCell).toBe(calm!.change > busy!.change ? 'calm' : 'busy');
    expect(overall!.worstChange).toBe(Math.max(calm!.change, busy!.change));
    expect(overall!.changeLow).toBeLessThan(overall!.change);
    expect(overall!.changeHigh).toBeGreaterThan(overall!.change);
  });

  it('the front holds who is best in nothing less, and weights decide who is best', async () => {
    const [report] = await evaluate([cell('calm', 0.3)], [rule('round-robin'), rule('shortest', false)], options);
    const [first] = report!.figures;
    const figures = (contender: string, cost: number, missCost: number, energy = 1) => ({
      ...first!,
      ...{ contender, cost, missCost, energy },
    });
    const points = paretoOf([
      { figures: [figures('thrifty', 1, 5), figures('safe', 3, 0.1), figures('worse', 3, 0.2)] },
      { figures: [figures('thrifty', 1, 7), figures('safe', 3, 0.1), figures('worse', 3, 0.2)] },
    ]);
    expect(points.map(({ isFront }) => isFront)).toEqual([true, true, false]);
    expect(points[0]).toMatchObject({ cost: 1, misses: 0.6, energy: 1 });
    const [thrifty, safe] = points;
    for (const [at, { missWeight, energyWeight }] of preferences.entries()) {
      expect(thrifty!.objectives[at]).toBeCloseTo(1 + 0.6 * missWeight + energyWeight, 9);
      expect(thrifty!.objectives[at]! < safe!.objectives[at]!).toBe(missWeight < 2 / 0.59);
    }
  });

  it('the interval over groups is that of one group when there is one', () => {
    const values = [1, 2, 3, 4, 5, 9];
    const drawn = () => ({ random: new RandomStream('groups'), resamples: 500 });
    expect(bootstrapMeanOfGroups([values], drawn())).toEqual(bootstrapMean(values, drawn()));
    const { low, high } = bootstrapMeanOfGroups([values, [10, 10, 10]], drawn());
    expect(low).toBeGreaterThanOrEqual(5.5);
    expect(high).toBeLessThanOrEqual(9.5);
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
