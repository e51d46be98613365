import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { EpisodeRecord, Outcomes } from '#policies/learning/environment.js';
import { advantagesOnSameArrivals, missesByClass, RewardLine, rewardsOf } from '#policies/learning/returns.js';

const options = { multipliers: [10, 5], latenessWeight: 0.2, energyWeight: 0.1, halfLifeMs: 100 };

interface Request {
  readonly arrivedMs: number;
  readonly takenMs: number;
  readonly cost: number;
  readonly late: number;
}

function outcomesOf(requests: readonly Request[]): Outcomes {
  return {
    arrivedMs: Float64Array.from(requests, ({ arrivedMs }) => arrivedMs),
    doneMs: Float64Array.from(requests, ({ arrivedMs, takenMs }) => arrivedMs + takenMs),
    cost: Float64Array.from(requests, ({ cost }) => cost),
    energy: Float64Array.from(requests, () => 1),
    missed: Uint8Array.from(requests, ({ late }) => (late > 0 ? 1 : 0)),
    lateness: Float64Array.from(requests, ({ late }) => late),
    sloClass: Uint8Array.from(requests, (_, index) => index % 2),
    lost: 0,
  };
}

const anyRequest = fc.record({
  arrivedMs: fc.integer({ min: 0, max: 1000 }),
  takenMs: fc.integer({ min: 0, max: 500 }),
  cost: fc.integer({ min: 0, max: 8 }),
  late: fc.constantFrom(-0.5, 0, 0.5, 4),
});

describe('returns of decisions', () => {
  it('a reward is cost, price of a miss by class, lateness up to twice the target, energy', () => {
    const outcomes = outcomesOf([
      { arrivedMs: 0, takenMs: 50, cost: 1.5, late: -0.5 },
      { arrivedMs: 0, takenMs: 300, cost: 1, late: 4 },
    ]);
    expect([...rewardsOf(outcomes, options)].map((value) => Number(value.toFixed(6)))).toEqual([
      -(1.5 + 0.1),
      -(1 + 5 * (1 + 0.2 * 2) + 0.1),
    ]);
  });

  it('returns are the sums of later rewards, faded by time and due no later than the target', () => {
    fc.assert(
      fc.property(
        fc.array(anyRequest, { maxLength: 20 }),
        fc.array(fc.integer({ min: 0, max: 1500 }), { maxLength: 10 }),
        (requests, moments) => {
          const outcomes = outcomesOf(requests);
          const rewards = rewardsOf(outcomes, options);
          const at = Float64Array.from(moments).sort();
          const slow = [...at].map((moment) => {
            let sum = 0;
            for (const [index, { arrivedMs, takenMs, late }] of requests.entries()) {
              const dueMs = arrivedMs + takenMs / (1 + Math.max(0, late));
              if (dueMs >= moment) sum += rewards[index]! * 0.5 ** ((dueMs - moment) / options.halfLifeMs);
            }
            return sum;
          });
          const fast = new RewardLine(outcomes, options).returnsAt(at);
          for (const [index, value] of slow.entries()) expect(fast[index]).toBeCloseTo(value, 6);
        },
      ),
    );
  });

  it('what all plays of the same arrivals share cancels out', () => {
    const play = (extra: number): EpisodeRecord => ({
      hash: '',
      outcomes: outcomesOf([{ arrivedMs: 10, takenMs: 5, cost: 100 + extra, late: 0 }]),
      decisions: {
        rows: new Float32Array(2),
        rowStarts: Uint32Array.from([0, 2]),
        atMs: Float64Array.from([10]),
        choices: new Uint16Array(1),
        logProbs: new Float32Array(1),
        teacherChoices: new Uint16Array(1),
      },
    });
    expect(advantagesOnSameArrivals([play(0), play(0), play(0)], options).map(([value]) => Math.abs(value!))).toEqual([
      0, 0, 0,
    ]);
    const [cheap, dear, middle] = advantagesOnSameArrivals([play(-1), play(1), play(0)], options);
    expect(cheap![0]!).toBeGreaterThan(0);
    expect(dear![0]!).toBeCloseTo(-cheap![0]!, 6);
    expect(middle![0]!).toBeCloseTo(0, 6);
  });

  it('misses are counted by class', () => {
    const outcomes = outcomesOf([0.5, 0.5, -1, 0, 0.5].map((late) => ({ arrivedMs: 0, takenMs: 1, cost: 0, late })));
    expect(missesByClass([{ hash: '', outcomes }], 2)).toEqual({ requests: [3, 2], missed: [2, 1] });
  });
});
