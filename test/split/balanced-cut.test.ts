import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chooseBalanced } from '#core/split/balanced-cut.js';

/** Every way to choose so many of the positions. */
function subsets(positions: readonly number[], take: number): readonly (readonly number[])[] {
  if (take === 0) return [[]];
  return positions.flatMap((first, index) =>
    subsets(positions.slice(index + 1), take - 1).map((rest) => [first, ...rest]),
  );
}

function busiest(work: readonly number[], cut: readonly number[]): number {
  const bounds = [0, ...cut, work.length];
  return Math.max(
    ...bounds.slice(1).map((to, stage) => work.slice(bounds[stage], to).reduce((sum, one) => sum + one, 0)),
  );
}

describe('a balanced cut', () => {
  it('has a busiest stage within 5 % of the best of all cuts, and sends least among those', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 3, maxLength: 9 }),
        fc.infiniteStream(fc.integer({ min: 0, max: 9 })),
        fc.integer({ min: 1, max: 4 }),
        (work, bytes, stages) => {
          const legal = work.slice(1).map((_, index) => ({
            position: index + 1,
            boundaryBytes: bytes.next().value as number,
          }));
          fc.pre(legal.length >= stages - 1);
          const cut = chooseBalanced(work, legal, stages);
          const sent = (one: readonly number[]): number =>
            one.reduce((sum, at) => sum + (legal[at - 1]?.boundaryBytes ?? 0), 0);
          const all = subsets(
            legal.map(({ position }) => position),
            stages - 1,
          );
          const best = Math.min(...all.map((one) => busiest(work, one)));
          expect(busiest(work, cut)).toBeLessThanOrEqual(best * 1.05);
          const least = Math.min(...all.filter((one) => busiest(work, one) <= best * 1.05).map(sent));
          expect(sent(cut)).toBe(least);
        },
      ),
      { numRuns: 300 },
    );
  });
});
