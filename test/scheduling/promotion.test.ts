import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IntarsiaError } from '#core/errors.js';
import { readPointer } from '#core/scheduling/policy-records.js';
import {
  isTrial,
  loadedVersions,
  nextPointer,
  noPointer,
  stepAfter,
  type PolicyPointer,
  type PromotionStep,
  type StepNote,
} from '#core/scheduling/promotion.js';
import { RolloutWatch } from '#core/scheduling/rollout-watch.js';
import { isTrialSlice, Slices } from '#core/scheduling/switchback.js';

const note: StepNote = { gates: [], forced: '', reason: '', host: 'a', wallMs: 1, baseLate: -1 };
const version = fc.constantFrom('a@000000000001', 'b@000000000002', 'c@000000000003');
const step: fc.Arbitrary<PromotionStep> = fc.oneof(
  fc.record({ kind: fc.constant('shadow' as const), policy: version }),
  fc.record({ kind: fc.constant('share' as const), policy: version, percent: fc.integer({ min: 1, max: 99 }) }),
  fc.record({ kind: fc.constant('all' as const), policy: fc.oneof(version, fc.constantFrom('own', 'sed')) }),
  fc.record({ kind: fc.constant('rollback' as const) }),
);

describe('steps of promotion', () => {
  it('whatever was ordered: what decides is what last decided about all, and a rollback brings it back', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        let pointer: PolicyPointer = noPointer;
        // What decided about all requests, newest last: the obvious stack that the pointer keeps three of.
        let decided = ['own'];
        for (const each of steps) {
          let next: PolicyPointer;
          try {
            next = nextPointer(pointer, each, note);
          } catch (error) {
            expect(error).toBeInstanceOf(IntarsiaError);
            continue;
          }
          if (each.kind === 'all') decided = [...decided.filter((one) => one !== each.policy), each.policy];
          else if (each.kind === 'rollback' && !isTrial(pointer)) {
            decided = pointer.previous.length > 0 ? decided.slice(0, -1) : ['own'];
          }
          decided = decided.slice(-3);
          pointer = readPointer(JSON.stringify(next));
          expect(pointer.base).toBe(decided.at(-1));
          expect([...pointer.previous]).toEqual(decided.slice(0, -1).reverse());
          expect(isTrial(pointer)).toBe(each.kind === 'shadow' || each.kind === 'share');
          if (!isTrial(pointer)) expect(pointer.policy).toBe(pointer.base);
          expect(loadedVersions(pointer).size).toBeLessThanOrEqual(4);
        }
      }),
    );
  });

  it('are shadow, 1, 10, 50 and 100 percent where the operator names none', () => {
    const policy = 'a@000000000001';
    let pointer = noPointer;
    const taken: string[] = [];
    while (pointer.mode !== 'all') {
      pointer = nextPointer(pointer, stepAfter(pointer, policy), note);
      taken.push(`${pointer.mode} ${pointer.percent}`);
    }
    expect(taken).toEqual(['shadow 0', 'share 1', 'share 10', 'share 50', 'all 0']);
  });

  it('refuse a share, a length of slices and a seed out of bounds, and a rule on trial', () => {
    const share = { kind: 'share', policy: 'a@000000000001', percent: 10 } as const;
    for (const wrong of [{ percent: 0 }, { percent: 100 }, { sliceSeconds: 9 }, { seed: 2 ** 32 }, { policy: 'sed' }]) {
      expect(() => nextPointer(noPointer, { ...share, ...wrong }, note)).toThrow(IntarsiaError);
    }
  });
});

describe('time slices', () => {
  it('fall to the policy on trial in about the share asked for, the same on every host, whole slices at a time', () => {
    for (const percent of [1, 10, 50]) {
      let count = 0;
      for (let slice = 29_000_000; slice < 29_100_000; slice += 1) if (isTrialSlice(slice, 7, percent)) count += 1;
      expect(Math.abs(count / 1000 - percent)).toBeLessThan(0.6);
    }
    const here = new Slices({ sliceSeconds: 60, seed: 7, percent: 50 }, 1_700_000_000_000);
    const there = new Slices({ sliceSeconds: 60, seed: 7, percent: 50 }, 1_700_000_000_000 - 5_000_000);
    let changes = 0;
    let last = here.isTrial(0);
    for (let ms = 0; ms < 6_000_000; ms += 500) {
      const now = here.isTrial(ms);
      expect(there.isTrial(ms + 5_000_000)).toBe(now);
      if (now !== last) changes += 1;
      last = now;
    }
    // A hundred slices, of which about half follow one of the other kind.
    expect(changes).toBeGreaterThan(25);
    expect(changes).toBeLessThan(75);
  });
});

describe('the watch over a policy that decides', () => {
  it('never takes back a policy that is as late as the base and what is borne, and soon one that is not', () => {
    const watch = new RolloutWatch();
    for (let index = 0; index < 20_000; index += 1) {
      watch.answered('base', index % 20 === 0, 0.01);
      watch.answered('policy', index % 20 === 10, 0.01);
    }
    expect(watch.verdict).toBe('');
    let answers = 0;
    while (watch.verdict === '' && answers < 200) {
      answers += 1;
      watch.answered('policy', answers % 2 === 0, 0.01);
    }
    expect(answers).toBeLessThan(50);
    expect(watch.verdict).toMatch(/answers were late/);
  });

  it('takes one back that leaves too many decisions to its rule, trips its breaker or chooses what it may not', () => {
    const leaves = new RolloutWatch();
    for (let index = 0; index < 500; index += 1) leaves.decided(index % 4 === 0);
    expect(leaves.verdict).toBe('it left 125 of 500 decisions to its rule; 20.0 % is the most');
    const trips = new RolloutWatch();
    trips.tripped();
    trips.violated('a candidate that is masked: memory');
    expect(trips.verdict).toBe('its circuit breaker opened');
  });
});
