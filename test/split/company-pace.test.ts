/** The pace of devices in company, from moments of answers of devices that are known to take so long. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { pacesTogether } from '#core/split/company-pace.js';

/** Answers of a device that takes `ms` for a run, does `width` of them at once, and has `inFlight` at any time. */
function answersOf(
  { ms, startMs }: { readonly ms: number; readonly startMs: number },
  { inFlight, width, endMs }: { readonly inFlight: number; readonly width: number; readonly endMs: number },
): readonly number[] {
  const answers: number[] = [];
  const free = Array.from({ length: width }, () => startMs);
  const clients = Array.from({ length: inFlight }, () => startMs);
  for (;;) {
    const client = clients.indexOf(Math.min(...clients));
    const askedMs = clients[client] ?? 0;
    // Nobody asks once it is over; what was asked is still answered.
    if (askedMs >= endMs) return answers.sort((a, b) => a - b);
    const lane = free.indexOf(Math.min(...free));
    const doneMs = Math.max(askedMs, free[lane] ?? 0) + ms;
    free[lane] = doneMs;
    clients[client] = doneMs;
    answers.push(doneMs);
  }
}

const device = fc.record({ ms: fc.double({ min: 1, max: 100, noNaN: true }), startMs: fc.nat(50) });
const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

describe('the pace of devices in company', () => {
  it('is what a run takes, not how long it waited for the one before it', () => {
    fc.assert(
      fc.property(
        fc.array(device, { minLength: 1, maxLength: 4 }),
        fc.integer({ min: 1, max: 3 }),
        (devices, inFlight) => {
          const answers = devices.map((each) => answersOf(each, { inFlight, width: 1, endMs: 2_000 }));
          for (const [index, pace] of pacesTogether(answers, inFlight).entries()) {
            expect(mean(pace)).toBeCloseTo(devices[index]?.ms ?? 0, 6);
          }
        },
      ),
    );
  });

  it('is half of what a run takes where two run at once, even if their answers come together', () => {
    fc.assert(
      fc.property(fc.array(device, { minLength: 1, maxLength: 3 }), (devices) => {
        const answers = devices.map((each) => answersOf(each, { inFlight: 2, width: 2, endMs: 2_000 }));
        for (const [index, pace] of pacesTogether(answers, 2).entries()) {
          expect(mean(pace)).toBeCloseTo((devices[index]?.ms ?? 0) / 2, 6);
        }
      }),
    );
  });

  it('leaves out pauses of the machine, warming up, and what came when another had not begun or had ended', () => {
    const steady = Array.from({ length: 40 }, (_, index) => 1_000 + 10 * index);
    const paused = steady.map((atMs) => (atMs < 1_200 ? atMs : atMs + 500));
    const short = [0, 900, 1_010, 1_040, 1_070, 1_100, 1_130, 1_160, 1_190, 1_800];
    expect(pacesTogether([paused, short], 2).map(mean)).toEqual([10, 30]);
  });

  it('is unknown where devices shared no time', () => {
    expect(
      pacesTogether(
        [
          [1, 2, 3, 4],
          [5, 6, 7, 8],
        ],
        2,
      ),
    ).toEqual([[], []]);
    expect(pacesTogether([[1, 2, 3, 4], []], 2)).toEqual([[], []]);
    expect(pacesTogether([[5], [5]], 2)).toEqual([[], []]);
  });
});
