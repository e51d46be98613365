/** The virtual clock: exact times, insertion order, bounded runs, and a trace that tells runs apart. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { VirtualClock } from '#sim/virtual-clock.js';
import { seededRandom } from '#sim/random.js';

describe('virtual clock', () => {
  it('fires timers at their moment and tasks of one moment in the order of the calls', () => {
    const clock = new VirtualClock({ startMs: 100 });
    const seen: string[] = [];
    const note = (name: string) => () => void seen.push(`${name}@${clock.nowMs()}`);
    clock.schedule(5, note('b'));
    clock.schedule(0, note('now timer'));
    clock.defer(note('deferred'));
    clock.schedule(5, note('c'));
    clock.schedule(-3, note('past'));
    clock.schedule(1.5, note('a'));
    clock.runUntil(104);
    expect(seen).toEqual(['now timer@100', 'deferred@100', 'past@100', 'a@101.5']);
    expect(clock.nowMs()).toBe(104);
    clock.runUntilIdle();
    expect(seen.slice(4)).toEqual(['b@105', 'c@105']);
    expect(clock.step()).toBe(false);
  });

  it('never fires a cancelled timer and never an infinite one', () => {
    const clock = new VirtualClock();
    let fired = 0;
    const timer = clock.schedule(5, () => (fired += 1));
    clock.schedule(Infinity, () => (fired += 1));
    timer.cancel();
    timer.cancel();
    clock.advance(1e9);
    expect(fired).toBe(0);
    expect(clock.pending).toBe(0);
  });

  it('runs in the order of a slow, obvious list', () => {
    const program = fc.array(
      fc.record({ delayMs: fc.integer({ min: 0, max: 5 }), cancels: fc.option(fc.nat(30), { nil: undefined }) }),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(program, (steps) => {
        const clock = new VirtualClock();
        const seen: number[] = [];
        const timers = steps.map(({ delayMs }, index) => clock.schedule(delayMs, () => void seen.push(index)));
        const cancelled = new Set<number>();
        for (const { cancels } of steps) {
          if (cancels === undefined) continue;
          timers[cancels]?.cancel();
          cancelled.add(cancels);
        }
        clock.runUntilIdle();
        const expected = steps
          .map(({ delayMs }, index) => ({ delayMs, index }))
          .filter(({ index }) => !cancelled.has(index))
          .sort((left, right) => left.delayMs - right.delayMs || left.index - right.index)
          .map(({ index }) => index);
        expect(seen).toEqual(expected);
      }),
    );
  });

  it('ends a run that never rests, and says so', () => {
    const clock = new VirtualClock({ stepsMax: 100 });
    const again = (): void => clock.defer(again);
    again();
    expect(() => clock.runUntilIdle()).toThrow(/ran 100 tasks in one go and 1 still wait at 0 ms/);
  });

  it('gives the same trace hash for the same seed and another for another', () => {
    const run = (seed: number): string => {
      const clock = new VirtualClock();
      const random = seededRandom(seed);
      let left = 50;
      const again = (): void => {
        left -= 1;
        if (left > 0) clock.schedule(random.next() * 10, again);
      };
      again();
      clock.runUntilIdle();
      expect(clock.steps).toBe(49);
      return clock.trace.hash();
    };
    expect(run(1)).toBe(run(1));
    expect(run(1)).not.toBe(run(2));
  });

  it('lets awaiting code go on at its own moment when it settles', async () => {
    const clock = new VirtualClock();
    const seen: number[] = [];
    const sleep = (ms: number): Promise<void> => new Promise((resolve) => clock.schedule(ms, resolve));
    const work = (async () => {
      for (const ms of [1, 2, 3]) {
        await sleep(ms);
        seen.push(clock.nowMs());
      }
    })();
    await clock.settle();
    await work;
    expect(seen).toEqual([1, 3, 6]);
  });
});
