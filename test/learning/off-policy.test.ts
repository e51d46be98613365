import { describe, expect, it } from 'vitest';
import { RandomStream } from '#core/random.js';
import { estimateOffPolicy, type OffPolicyRows } from '#policies/learning/off-policy.js';
import { fitRewards, predictRewards } from '#policies/learning/reward-model.js';

/** Two choices, paid 1 + state and 3 − state (and noise); the log takes the first with chance 0.8. */
function bandit(
  count: number,
  chanceOfFirst: (state: number) => number,
  model: (choice: number, state: number) => number,
  seed = 1,
): { readonly rows: OffPolicyRows; readonly truth: number } {
  const random = new RandomStream(seed);
  const column = () => new Float64Array(count);
  const [rewards, propensities, chances, modelTaken, modelWanted] = [column(), column(), column(), column(), column()];
  let truth = 0;
  for (let index = 0; index < count; index += 1) {
    const state = random.next();
    const choice = random.next() < 0.8 ? 0 : 1;
    const paid = (which: number): number => (which === 0 ? 1 + state : 3 - state);
    const first = chanceOfFirst(state);
    rewards[index] = paid(choice) + random.next() - 0.5;
    propensities[index] = choice === 0 ? 0.8 : 0.2;
    chances[index] = choice === 0 ? first : 1 - first;
    modelTaken[index] = model(choice, state);
    modelWanted[index] = first * model(0, state) + (1 - first) * model(1, state);
    truth += (first * paid(0) + (1 - first) * paid(1)) / count;
  }
  return { rows: { rewards, propensities, chances, modelTaken, modelWanted }, truth };
}
const right = (choice: number, state: number): number => (choice === 0 ? 1 + state : 3 - state);
const nothing = (): number => 0;

describe('off-policy estimates', () => {
  it('both are the closed form of a small log', () => {
    const thousand = <Value>(values: readonly Value[]): Value[] => Array.from({ length: 1_000 }, () => values).flat();
    const rows = {
      rewards: Float64Array.from(thousand([1, 2, 4])),
      propensities: Float64Array.from(thousand([0.5, 0.5, 0.25])),
      chances: Float64Array.from(thousand([0, 1, 0.5])),
      modelTaken: Float64Array.from(thousand([1, 1, 3])),
      modelWanted: Float64Array.from(thousand([2, 1, 2])),
    };
    const { snips, doublyRobust, logged, effectiveDecisions, clipped } = estimateOffPolicy(rows);
    // Weights 0, 2, 2.
    expect(snips.value).toBeCloseTo((2 * 2 + 2 * 4) / 4, 12);
    expect(doublyRobust.value).toBeCloseTo((2 + 0 + (1 + 2 * 1) + (2 + 2 * 1)) / 3, 12);
    expect(logged.value).toBeCloseTo(7 / 3, 12);
    expect(effectiveDecisions).toBeCloseTo((4_000 * 4_000) / (8 * 1_000), 9);
    expect(clipped).toBe(0);
  });

  it('the policy that wrote the log is worth the mean of its log', () => {
    const { rows } = bandit(5_000, () => 0.8, right);
    const { snips, logged, effectiveDecisions } = estimateOffPolicy(rows);
    expect(snips.value).toBeCloseTo(logged.value, 12);
    expect(effectiveDecisions).toBeCloseTo(5_000, 6);
  });

  it('intervals hold the truth in about 95 of 100 logs, and the doubly robust ones are narrower', () => {
    const held = { snips: 0, doublyRobust: 0 };
    let narrower = 0;
    for (let seed = 0; seed < 200; seed += 1) {
      const { rows, truth } = bandit(4_000, (state) => (state > 0.5 ? 1 : 0.1), right, seed);
      const { snips, doublyRobust } = estimateOffPolicy(rows);
      if (snips.low <= truth && truth <= snips.high) held.snips += 1;
      if (doublyRobust.low <= truth && truth <= doublyRobust.high) held.doublyRobust += 1;
      if (doublyRobust.high - doublyRobust.low < snips.high - snips.low) narrower += 1;
    }
    expect(held.snips).toBeGreaterThan(180);
    expect(held.doublyRobust).toBeGreaterThan(180);
    expect(narrower).toBe(200);
  });

  it('doubly robust is right with a wrong model and right propensities, and the other way round', () => {
    const chance = (state: number): number => (state > 0.5 ? 0.9 : 0.1);
    const wrongModel = bandit(200_000, chance, nothing);
    expect(estimateOffPolicy(wrongModel.rows).doublyRobust.value).toBeCloseTo(wrongModel.truth, 1);
    const { rows, truth } = bandit(200_000, chance, right);
    const wrongChances = { ...rows, propensities: rows.propensities.map(() => 0.5) };
    expect(estimateOffPolicy(wrongChances).doublyRobust.value).toBeCloseTo(truth, 1);
    expect(Math.abs(estimateOffPolicy(wrongChances).snips.value - truth)).toBeGreaterThan(0.05);
  });

  it('weights are clipped at 20, and counted', () => {
    const { rows } = bandit(3_000, () => 0.5, right);
    const rare = { ...rows, propensities: rows.propensities.map((chance, index) => (index === 0 ? 1e-4 : chance)) };
    const { clipped, effectiveDecisions } = estimateOffPolicy(rare);
    expect(clipped).toBe(1 / 3_000);
    const weights = Array.from(rare.chances, (chance, index) => Math.min(20, chance / rare.propensities[index]!));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    expect(effectiveDecisions).toBeCloseTo(sum ** 2 / weights.reduce((total, weight) => total + weight ** 2, 0), 6);
  });

  it('refuses a verdict below an effective sample size of 1,000', () => {
    const { rows } = bandit(1_500, () => 0, right);
    expect(() => estimateOffPolicy(rows)).toThrow(/effective sample size\); 1000 are needed/);
    const none = { ...rows, chances: rows.chances.map(() => 0) };
    expect(() => estimateOffPolicy(none)).toThrow(/speaks for 0 decisions/);
  });

  it('refuses propensities that are no chances, and columns that do not fit', () => {
    const { rows } = bandit(2_000, () => 0.8, right);
    for (const wrong of [0, -0.1, 1.5, Number.NaN]) {
      const propensities = rows.propensities.slice();
      propensities[7] = wrong;
      expect(() => estimateOffPolicy({ ...rows, propensities })).toThrow(/decision 7 is .* no chance/);
    }
    expect(() => estimateOffPolicy({ ...rows, chances: new Float64Array(3) })).toThrow(/chances has 3 values/);
  });
});

describe('the model of rewards', () => {
  it('finds a linear reward, and the least squares of a noisy one', () => {
    const random = new RandomStream(4);
    const rows = Float32Array.from({ length: 3_000 }, () => random.next());
    const exact = Float64Array.from({ length: 1_000 }, (_, at) => 2 * rows[at * 3]! - rows[at * 3 + 2]! + 0.5);
    const { weights } = fitRewards(rows, exact, 3, 1e-12);
    expect([...weights].map((weight) => Number(weight.toFixed(5)))).toEqual([2, 0, -1, 0.5].map((value) => value + 0));
    const predicted = predictRewards({ weights }, rows);
    for (const [at, value] of predicted.entries()) expect(value).toBeCloseTo(exact[at]!, 6);
  });

  it('a feature that never changes is no trouble', () => {
    const rows = Float32Array.from([1, 1, 1, 2, 1, 3, 1, 4]);
    const predicted = predictRewards(fitRewards(rows, Float64Array.from([1, 2, 3, 4]), 2, 1e-9), rows);
    for (const [at, value] of predicted.entries()) expect(value).toBeCloseTo(at + 1, 4);
  });

  it('refuses sizes that do not fit and values that are not finite', () => {
    expect(() => fitRewards(new Float32Array(5), new Float64Array(2), 2)).toThrow(/not 2 rows of 2/);
    expect(() => fitRewards(new Float32Array(4), Float64Array.from([1, Number.NaN]), 2)).toThrow(/not finite/);
  });
});
