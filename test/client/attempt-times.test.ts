/** When a second endpoint is asked beside the first, from how long such calls take. */
import { describe, expect, it } from 'vitest';
import { AttemptTimes } from '#client/attempt-times.js';

/** Calls that took so long, one like the other. */
function learnt(elapsedMs: number): AttemptTimes {
  const times = new AttemptTimes();
  for (let call = 0; call < 100; call += 1) times.learn('model', elapsedMs);
  return times;
}

describe('an attempt is overdue', () => {
  it('after a multiple of what such calls take, at least half a second', () => {
    expect(learnt(10).limitMs('model', 10_000)).toBe(500);
    expect(learnt(300).limitMs('model', 10_000)).toBeCloseTo(1_200, 0);
  });

  it('at half of the time that is left, where calls are slow and a second one can still end in the other half', () => {
    expect(learnt(600).limitMs('model', 2_000)).toBe(1_000);
    expect(learnt(900).limitMs('model', 2_000)).toBe(1_000);
  });

  it('never, where a second one could not end in the time that is left', () => {
    expect(learnt(1_100).limitMs('model', 2_000)).toBe(Infinity);
  });
});
