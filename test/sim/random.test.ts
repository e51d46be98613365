/** Seeded chance: repeatable, with streams that do not disturb each other, and evenly spread. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SeededRandom } from '#adapters/node/random.js';
import type { Random } from '#ports/random.js';
import { seededRandom } from '#sim/random.js';

const take = (random: Random, count: number): number[] => Array.from({ length: count }, () => random.next());

describe('seeded random', () => {
  it('gives the same numbers in the simulator and in the running system', () => {
    expect(take(new SeededRandom('a').stream('x'), 20)).toEqual(take(seededRandom('a').stream('x'), 20));
    expect(take(seededRandom('a'), 20)).not.toEqual(take(seededRandom('b'), 20));
    expect(take(seededRandom('1'), 20)).not.toEqual(take(seededRandom(1), 20));
  });

  it('keeps streams apart: a draw from one never changes another', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), fc.nat(20), (left, right, draws) => {
        fc.pre(left !== right);
        const alone = take(seededRandom(7).stream(left), 5);
        const root = seededRandom(7);
        const other = root.stream(right);
        take(other, draws);
        take(root, draws);
        expect(take(root.stream(left), 5)).toEqual(alone);
        expect(take(root.stream(right), 5)).not.toEqual(alone);
      }),
    );
  });

  it('tells nested labels from joined ones', () => {
    expect(take(seededRandom(1).stream('a/b'), 5)).not.toEqual(take(seededRandom(1).stream('a').stream('b'), 5));
  });

  it('is evenly spread: chi-squared over 64 cells stays below the 99.99 % point', () => {
    const random = seededRandom('spread');
    const cells = new Array<number>(64).fill(0);
    const draws = 64_000;
    for (let draw = 0; draw < draws; draw += 1) {
      const cell = random.below(64);
      cells[cell] = (cells[cell] ?? 0) + 1;
    }
    const expected = draws / 64;
    const chiSquared = cells.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    expect(chiSquared).toBeLessThan(113.5);
    expect(random.below(1)).toBe(0);
  });
});
