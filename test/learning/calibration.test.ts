import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { calibrate } from '#policies/learning/calibration.js';

const times = (values: readonly number[]): Float64Array => Float64Array.from(values);

/** By the definition: at every value, the share of each sample at or below it. */
function slowDistance(left: readonly number[], right: readonly number[]): number {
  const share = (values: readonly number[], most: number): number =>
    values.filter((value) => value <= most).length / values.length;
  return Math.max(...[...left, ...right].map((value) => Math.abs(share(left, value) - share(right, value))));
}

describe('calibration', () => {
  it('the distance is that of the definition, whatever the samples', () => {
    const sample = fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(sample, sample, (left, right) => {
        expect(calibrate(times(left), times(right)).ksDistance).toBeCloseTo(slowDistance(left, right), 12);
      }),
    );
  });

  it('a uniform sample against one that is shifted by a tenth differs by a tenth', () => {
    const uniform = Array.from({ length: 1_000 }, (_, index) => 100 + index / 10);
    const shifted = uniform.map((value) => value + 10);
    const { ksDistance, p50Error, p99Error } = calibrate(times(uniform), times(shifted));
    expect(ksDistance).toBeCloseTo(0.1, 3);
    expect(p50Error).toBeCloseTo(10 / 149.9, 6);
    expect(p99Error).toBeCloseTo(10 / 198.9, 6);
  });

  it('passes only with a distance below 0.1, p50 within 10 % and p99 within 20 %', () => {
    const base = Array.from({ length: 1_000 }, (_, index) => 1_000 + index);
    expect(calibrate(times(base), times(base))).toMatchObject({
      ksDistance: 0,
      p50Error: 0,
      p99Error: 0,
      passed: true,
    });
    expect(calibrate(times(base), times(base.map((value) => value * 1.04))).passed).toBe(true);
    // The distance alone.
    expect(calibrate(times(base), times(base.map((value) => value + 140)))).toMatchObject({ passed: false });
    // The last hundredth alone: 2 % of the answers take twice as long.
    const tail = base.map((value, index) => (index >= 980 ? value * 2 : value));
    const late = calibrate(times(base), times(tail));
    expect(late.ksDistance).toBeLessThan(0.1);
    expect(Math.abs(late.p50Error)).toBeLessThan(0.1);
    expect(late.p99Error).toBeGreaterThan(0.2);
    expect(late.passed).toBe(false);
  });

  it('refuses nothing to compare, and times that are none', () => {
    expect(() => calibrate(times([]), times([1]))).toThrow(/nothing measured/);
    expect(() => calibrate(times([1]), times([]))).toThrow(/nothing simulated/);
    expect(() => calibrate(times([1, Number.NaN]), times([1]))).toThrow(/measured time is NaN/);
  });
});
