import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Breaker } from '#core/scheduling/breaker.js';
import {
  newDispatchCandidate,
  newFleetView,
  NONE,
  SHED,
  type DispatchCandidate,
  type DispatchPolicy,
} from '#core/scheduling/dispatch-view.js';
import { featureCount, featureNames } from '#core/scheduling/features.js';
import type { TrainedRanges } from '#core/scheduling/policy-file.js';
import { SimdScorer } from '#core/scheduling/simd-scorer.js';
import { cheapestByRisk } from '#policies/placement/dispatch-cf-risk.js';
import { cheapestFeasible } from '#policies/placement/dispatch-cheapest-feasible.js';
import { exploring } from '#policies/placement/dispatch-exploring.js';
import { LearnedDispatch, type LearnedDispatchOptions } from '#policies/placement/dispatch-learned.js';
import { shedding } from '#policies/placement/dispatch-shedding.js';
import type { Scorer } from '#ports/scorer.js';
import { seededRandom } from '#sim/random.js';
import { insaneCandidates, interactiveRequest as request } from './candidates.js';
import { anyNetwork } from './networks.js';

const fleet = newFleetView();
const flat = (value: number): number[] => new Array<number>(featureCount).fill(value);
const everything: TrainedRanges = { least: flat(-3), low: flat(-3), high: flat(3), greatest: flat(3) };
const random = seededRandom(1);

/** Scores a row by one of its features. */
function byFeature(name: string, sign = 1, heads: readonly number[] = [1]): Scorer {
  const at = featureNames.indexOf(name);
  return {
    inputs: featureCount,
    outputs: heads.length,
    score: (rows, count, out) => {
      for (let row = 0; row < count; row += 1) {
        heads.forEach((head, index) => {
          out[row * heads.length + index] = sign * head * (rows[row * featureCount + at] as number);
        });
      }
    },
  };
}

const marker: DispatchPolicy = {
  name: 'rule',
  choose: (_request, candidates) => candidates.findIndex(({ masked }) => masked === ''),
};

function learned(options: Partial<LearnedDispatchOptions> = {}): LearnedDispatch {
  return new LearnedDispatch({
    name: 'learned',
    scorer: byFeature('slack'),
    ranges: everything,
    fallback: marker,
    ...options,
  });
}

const slow = (serviceMs: number, part: Partial<DispatchCandidate> = {}): DispatchCandidate => ({
  ...newDispatchCandidate(),
  serviceMs,
  ...part,
});

describe('learned dispatch', () => {
  it('chooses the row with the best score, the row of refusing among them', () => {
    const policy = learned();
    expect(policy.choose(request, [slow(50), slow(20), slow(30)], fleet, random)).toBe(1);
    // Only the row of refusing has no stages.
    const shedder = learned({ scorer: byFeature('stages', -1) });
    expect(shedder.choose(request, [slow(50)], fleet, random)).toBe(SHED);
    expect(shedder.choose({ ...request, mayShed: false }, [slow(50)], fleet, random)).toBe(0);
    expect(policy.counts.decisions).toBe(1);
  });

  it('never chooses a masked candidate, never sheds what must be served and always answers, whatever the figures and scores', () => {
    const scorers: Scorer[] = [
      new SimdScorer(anyNetwork([featureCount, 32, 32, 3], 3, 30)),
      byFeature('slack', Number.NaN),
      byFeature('cost', Infinity),
    ];
    fc.assert(
      fc.property(
        insaneCandidates,
        fc.constantFrom(...scorers),
        fc.boolean(),
        fc.nat({ max: 10_000 }),
        (candidates, scorer, mayShed, seed) => {
          const policy = exploring(learned({ scorer, fallback: shedding(cheapestFeasible()), staleMsMax: 1000 }), {
            share: 0.1,
          });
          for (let turn = 0; turn < 3; turn += 1) {
            const chosen = policy.choose({ ...request, mayShed }, candidates, fleet, seededRandom(seed));
            if (candidates.every(({ masked }) => masked !== '')) expect([NONE, SHED]).toContain(chosen);
            else if (chosen === SHED) expect(mayShed).toBe(true);
            else expect(candidates[chosen]?.masked).toBe('');
            expect(policy.trace?.propensity).toBeGreaterThan(0);
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  it('leaves decisions to the rule outside of what training has seen, and counts why', () => {
    const narrow: TrainedRanges = { ...everything, least: flat(-3), greatest: flat(3) };
    const at = featureNames.indexOf('service');
    const ranges = { ...narrow, greatest: narrow.greatest.map((value, index) => (index === at ? 0.4 : value)) };
    const inside = learned({ ranges: { ...ranges, high: ranges.greatest } });
    // The range is 3.4 wide, a fifth of it beyond 0.4 is still allowed.
    expect(inside.choose(request, [slow(90), slow(100)], fleet, random)).toBe(0);
    expect(inside.trace.fallback).toBe('');
    expect(inside.choose(request, [slow(109), slow(100)], fleet, random)).toBe(0);
    expect(inside.trace.fallback).toBe('range');
    expect(inside.choose(request, [slow(Number.NaN), slow(100)], fleet, random)).toBe(0);
    expect(inside.trace.fallback).toBe('nan');
    // What may not be chosen may be as strange as it likes.
    expect(inside.choose(request, [slow(Number.NaN, { masked: 'banned' }), slow(100)], fleet, random)).toBe(1);
    const rare = learned({ ranges: { ...everything, low: flat(-0.01), high: flat(0.01) } });
    rare.choose(request, [slow(20)], fleet, random);
    expect(rare.trace.fallback).toBe('rare');
    const old = learned();
    old.choose(request, [slow(20, { telemetryAgeMs: 2001 }), slow(20, { telemetryAgeMs: 9999 })], fleet, random);
    expect(old.trace.fallback).toBe('stale');
    old.choose(request, [slow(20, { telemetryAgeMs: 2001 }), slow(20)], fleet, random);
    expect(old.trace.fallback).toBe('');
    let nowMs = 0;
    const late = learned({ clockMs: () => (nowMs += 2) });
    late.choose(request, [slow(20)], fleet, random);
    expect(late.trace.fallback).toBe('time');
    expect(inside.counts.fallbacks).toMatchObject({ range: 1, nan: 1 });
    expect([rare.counts.fallbacks.rare, old.counts.fallbacks.stale, late.counts.fallbacks.time]).toEqual([1, 1, 1]);
  });

  it('leaves the decision to the rule when heads disagree about rows of nearly the same score, and only then', () => {
    const torn = learned({ scorer: byFeature('slack', 1, [1, 1, -1.99]), leadMin: 0.02 });
    torn.choose({ ...request, mayShed: false }, [slow(20), slow(60)], fleet, random);
    expect(torn.trace.fallback).toBe('disagreement');
    const sure = learned({ scorer: byFeature('slack', 1, [1, 1, -0.5]), leadMin: 0.02 });
    sure.choose({ ...request, mayShed: false }, [slow(20), slow(60)], fleet, random);
    expect(sure.trace.fallback).toBe('');
    sure.choose({ ...request, mayShed: false }, [slow(20), slow(20)], fleet, random);
    expect(sure.trace.fallback).toBe('');
  });

  it('stops deciding for a model whose answers come too late, for ten seconds at first, and for no other model', () => {
    const policy = learned();
    for (let index = 0; index < 30; index += 1) policy.finished('m', 'interactive', index % 2 === 0, 500 * index);
    expect(policy.trips).toBe(1);
    const fallbackAt = (model: string, nowMs: number): string => {
      policy.choose({ ...request, model, nowMs, arrivedMs: nowMs }, [slow(20)], fleet, random);
      return policy.trace.fallback;
    };
    expect(fallbackAt('m', 15_000)).toBe('breaker');
    expect(fallbackAt('other', 15_000)).toBe('');
    expect(fallbackAt('m', 25_000)).toBe('');
  });

  it('leaves decisions to the very choice of a rule without memory, whatever came before', () => {
    fc.assert(
      fc.property(fc.array(insaneCandidates, { minLength: 1, maxLength: 8 }), (decisions) => {
        const doubtful = learned({ scorer: byFeature('slack', Number.NaN), fallback: cheapestByRisk() });
        const rule = cheapestByRisk();
        for (const [turn, candidates] of decisions.entries()) {
          const nowMs = 1000 * turn;
          const moment = { ...request, nowMs, arrivedMs: nowMs };
          const chosen = doubtful.choose(moment, candidates, fleet, random);
          if (doubtful.trace.fallback !== '') expect(chosen).toBe(rule.choose(moment, candidates, fleet, random));
        }
      }),
    );
  });
});

/** Tells a breaker of one answer every `everyMs` for so long, late with that chance; answers the times at which it opened. */
function openings(
  breaker: Breaker,
  lateShare: number,
  everyMs: number,
  untilMs: number,
  dice = seededRandom(4),
): number[] {
  const opened: number[] = [];
  for (let nowMs = 0; nowMs < untilMs; nowMs += everyMs) {
    const before = breaker.trips;
    breaker.answered('m', dice.next() < lateShare, 0.01, nowMs);
    if (breaker.trips > before) opened.push(nowMs);
  }
  return opened;
}

describe('breaker', () => {
  it('never opens at a rate that is allowed and opens the sooner the worse it is', () => {
    const until = (every: number): number => {
      const breaker = new Breaker();
      for (let index = 1; index <= 20_000; index += 1) {
        breaker.answered('m', index % every === 0, 0.01, 200 * index);
        if (breaker.trips > 0) return index;
      }
      return Infinity;
    };
    expect(until(100)).toBe(Infinity);
    expect(until(20)).toBe(Infinity);
    expect(until(1)).toBe(9);
    expect(until(2)).toBeLessThan(25);
    expect(until(5)).toBeGreaterThan(until(2));
    expect(until(5)).toBeLessThan(100);
  });

  it('takes a second of nothing but late answers to open however many there are, and no single late batch opens it', () => {
    for (const everyMs of [0.5, 2, 10]) {
      const [first = Infinity] = openings(new Breaker(), 1, everyMs, 5_000);
      expect(first).toBeGreaterThan(1_000);
      expect(first).toBeLessThan(1_500);
    }
    const breaker = new Breaker();
    for (let nowMs = 0; nowMs < 60_000; nowMs += 5) {
      const inLateBatch = nowMs % 5_000 < 160;
      breaker.answered('m', inLateBatch, 0.01, nowMs);
    }
    expect(breaker.trips).toBe(0);
  });

  it('opens when more than a fifth of the recent decisions, at least 100, fell back', () => {
    const breaker = new Breaker();
    for (let index = 0; index < 99; index += 1) breaker.decided('m', true, index);
    expect(breaker.isOpen('m', 99)).toBe(false);
    breaker.decided('m', true, 99);
    expect(breaker.isOpen('m', 99)).toBe(true);
    const calm = new Breaker();
    for (let index = 0; index < 1000; index += 1) calm.decided('m', index % 6 === 0, index);
    expect(calm.isOpen('m', 1000)).toBe(false);
    // A moment of doubt in a busy minute is no reason; the same doubt for seconds is.
    const busy = new Breaker();
    for (let nowMs = 0; nowMs < 30_000; nowMs += 1) busy.decided('m', nowMs >= 20_000 && nowMs < 21_000, nowMs);
    expect(busy.trips).toBe(0);
    for (let nowMs = 30_000; nowMs < 36_000; nowMs += 1) busy.decided('m', true, nowMs);
    expect(busy.trips).toBe(1);
  });

  it('stays open for ten seconds first, twice as long each time it fails on trial, ten minutes at most, and ten seconds again after it has held', () => {
    const breaker = new Breaker();
    const openFor: number[] = [];
    let nowMs = 0;
    const trip = (): void => {
      const before = breaker.trips;
      while (breaker.trips === before) breaker.decided('m', true, (nowMs += 10));
      const openedMs = nowMs;
      while (breaker.isOpen('m', nowMs)) nowMs += 10;
      openFor.push(Math.round((nowMs - openedMs) / 1000));
    };
    for (let time = 0; time < 9; time += 1) trip();
    expect(openFor).toEqual([10, 20, 40, 80, 160, 320, 600, 600, 600]);
    for (const untilMs = nowMs + 601_000; nowMs < untilMs; nowMs += 100) breaker.decided('m', false, nowMs);
    trip();
    expect(openFor.at(-1)).toBe(10);
  });

  it('is open for a share of the time that grows with what goes wrong, whatever the rates', () => {
    const anyRate = fc.record({
      everyMs: fc.integer({ min: 1, max: 50 }),
      bad: fc.double({ min: 0.3, max: 1, noNaN: true }),
      good: fc.double({ min: 0, max: 0.1, noNaN: true }),
      seed: fc.nat({ max: 1000 }),
    });
    fc.assert(
      fc.property(anyRate, ({ everyMs, bad, good, seed }) => {
        const dice = seededRandom(seed);
        const openShare = (share: number): number => {
          const breaker = new Breaker();
          let open = 0;
          let all = 0;
          for (let nowMs = 0; nowMs < 600_000; nowMs += 10 * everyMs) {
            breaker.decided('m', dice.next() < share, nowMs);
            all += 1;
            if (breaker.isOpen('m', nowMs)) open += 1;
          }
          return open / all;
        };
        expect(openShare(good)).toBeLessThan(0.1);
        expect(openShare(bad)).toBeGreaterThan(0.5);
      }),
      { numRuns: 20 },
    );
  });

  it('forgives on trial what came late while the rule decided, and no more than that', () => {
    const overload = openings(new Breaker(), 0.5, 2, 70_000);
    expect(overload).toHaveLength(1);
    const breaker = new Breaker();
    expect(openings(breaker, 0.5, 2, 2_500)).toHaveLength(1);
    // The rule was hardly ever late.
    let nowMs = 2_500;
    for (; breaker.isOpen('m', nowMs); nowMs += 2) breaker.answered('m', false, 0.01, nowMs);
    for (const untilMs = nowMs + 10_000; nowMs < untilMs; nowMs += 2)
      breaker.answered('m', nowMs % 4 === 0, 0.01, nowMs);
    expect(breaker.trips).toBe(2);
  });
});

describe('exploration', () => {
  it('draws from the safe candidates only, as often as its propensities say', () => {
    const dice = seededRandom(9);
    const candidates = [slow(20), slow(40), slow(60), slow(90), slow(10, { masked: 'banned' })];
    const policy = exploring({ name: 'rule', choose: () => 3 }, { share: 0.1 });
    const drawn = new Map<number, number>();
    const told = new Map<number, number>();
    const count = 20_000;
    for (let index = 0; index < count; index += 1) {
      const chosen = policy.choose(request, candidates, fleet, dice);
      drawn.set(chosen, (drawn.get(chosen) ?? 0) + 1);
      told.set(chosen, policy.trace?.propensity ?? 0);
    }
    // 90 ms leaves 10 % of the target: the rule may choose it, exploration does not.
    expect([...drawn.keys()].sort()).toEqual([0, 1, 2, 3]);
    expect(told.get(3)).toBeCloseTo(0.9, 9);
    for (const [chosen, times] of drawn) expect(times / count).toBeCloseTo(told.get(chosen) ?? 0, 2);
  });

  it('keeps every chance at 0.002 or more by drawing from the soonest', () => {
    const dice = seededRandom(2);
    const candidates = Array.from({ length: 16 }, (_, index) => slow(10 + index));
    const policy = exploring({ name: 'rule', choose: () => 15 }, { share: 0.01 });
    const drawn = new Set<number>();
    for (let index = 0; index < 20_000; index += 1) {
      drawn.add(policy.choose(request, candidates, fleet, dice));
      expect(policy.trace?.propensity).toBeGreaterThanOrEqual(0.002);
    }
    expect([...drawn].sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 15]);
  });

  it('does not explore where nothing is safe', () => {
    const policy = exploring({ name: 'rule', choose: () => 0 }, { share: 0.1 });
    for (let index = 0; index < 100; index += 1) {
      expect(policy.choose(request, [slow(80), slow(200)], fleet, random)).toBe(0);
      expect(policy.trace?.propensity).toBe(1);
    }
  });
});
