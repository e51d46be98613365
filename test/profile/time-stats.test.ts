import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addTimes, noTimes, quantileMs, timeFigures, timesOfMean, timeStats } from '#core/profile/time-stats.js';

const someMs = fc.array(fc.double({ min: 1e-4, max: 1e7, noNaN: true }), { minLength: 1, maxLength: 60 });

describe('times that add up', () => {
  it('are the same added up in parts as all at once', () => {
    fc.assert(
      fc.property(someMs, someMs, someMs, (a, b, c) => {
        const whole = timeStats([...a, ...b, ...c]);
        for (const parts of [
          addTimes(addTimes(timeStats(a), timeStats(b)), timeStats(c)),
          addTimes(timeStats(c), addTimes(timeStats(b), timeStats(a))),
        ]) {
          expect(parts.count).toBe(whole.count);
          expect(parts.classes).toEqual(whole.classes);
          expect([parts.minMs, parts.maxMs]).toEqual([whole.minMs, whole.maxMs]);
          expect(Math.abs(parts.sumMs / whole.sumMs - 1)).toBeLessThan(1e-12);
          expect(Math.abs(parts.squaresMs2 - whole.squaresMs2)).toBeLessThanOrEqual(1e-9 * whole.sumMs ** 2);
        }
      }),
    );
  });

  it('tell any quantile within 2 % of the sorted list, never beyond its ends', () => {
    fc.assert(
      fc.property(someMs, fc.double({ min: 0, max: 1, noNaN: true }), (times, share) => {
        const sorted = [...times].sort((a, b) => a - b);
        const exact = sorted[Math.max(0, Math.ceil(share * times.length) - 1)] as number;
        const told = quantileMs(timeStats(times), share);
        expect(Math.abs(told / exact - 1)).toBeLessThanOrEqual(0.0201);
        expect(told).toBeGreaterThanOrEqual(sorted[0] as number);
        expect(told).toBeLessThanOrEqual(sorted.at(-1) as number);
      }),
    );
  });

  it('leave out what is no time, and say that nobody knows how far off a single one is', () => {
    expect(timeStats([Number.NaN, -1, 0, Infinity])).toEqual(noTimes);
    expect(addTimes(noTimes, timeStats([2]))).toEqual(timeStats([2]));
    expect(timeFigures(timeStats([2]))).toMatchObject({ count: 1, meanMs: 2, spread: 0, relativeError: 1 });
    const { meanMs, spread, relativeError } = timeFigures(timeStats([1, 2, 3]));
    expect([meanMs, spread]).toEqual([2, 0.5]);
    expect(relativeError).toBeCloseTo(0.5 / Math.sqrt(3), 12);
  });

  it('count intervals of which only the mean is known', () => {
    const figures = timeFigures(addTimes(timesOfMean(2, 100), timesOfMean(4, 300)));
    expect(figures).toMatchObject({ count: 400, meanMs: 3.5, minMs: 2, maxMs: 4 });
    expect(timesOfMean(1, 0)).toEqual(noTimes);
  });
});
