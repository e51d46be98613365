import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { newDispatchCandidate, newFleetView, SHED, type DispatchCandidate } from '#core/scheduling/dispatch-view.js';
import { featureCount, planFeatureCount, planFeatureNames, writeRows } from '#core/scheduling/features.js';
import { RatePlan } from '#core/scheduling/rate-plan.js';
import { LearnedDispatch } from '#policies/placement/dispatch-learned.js';
import { rateMatching } from '#policies/placement/dispatch-milp-rate.js';
import { dispatchOf } from '#policies/placement/dispatch-from-file.js';
import { leastHeadroom } from '#policies/placement/dispatch-least-headroom.js';
import type { Scorer } from '#ports/scorer.js';
import { seededRandom } from '#sim/random.js';
import { interactiveRequest } from './candidates.js';
import { anyNetwork } from './networks.js';

const fleet = newFleetView();
const scale = { usd: 0, joules: 0 };
const wide = (value: number): number[] => new Array<number>(planFeatureCount).fill(value);

function device(number: number, part: Partial<DispatchCandidate> = {}): DispatchCandidate {
  return { ...newDispatchCandidate(), device: number, usdPerHour: 1, fullMs: 8, itemsMax: 4, ...part };
}

const anyDevice = fc.record({
  usdPerHour: fc.double({ min: 0.1, max: 5, noNaN: true }),
  fullMs: fc.double({ min: 1, max: 60, noNaN: true }),
});

/** Told of `count` requests a virtual second for so many seconds, with nothing chosen. */
function seen(plan: RatePlan, among: readonly DispatchCandidate[], count: number, seconds: number): number {
  let nowMs = 0;
  for (let number = 0; number <= count * seconds; number += 1) {
    nowMs = (number * 1000) / count;
    plan.observe({ ...interactiveRequest, nowMs }, among, fleet);
  }
  return nowMs;
}

const featuresOf = (plan: RatePlan, candidate: DispatchCandidate): number[] => {
  const out = new Float32Array(planFeatureNames.length);
  plan.write(candidate, out, 0);
  return [...out];
};

describe('the fluid programme as it goes on', () => {
  it('gives features that are pinned: turn, share, how full the device, and that there is a plan', () => {
    const plan = new RatePlan(0.9);
    // 2 ms an item on the cheap one, 1 ms on the dear one: 600 items a second fill the cheap one, the rest goes to the dear one.
    const cheap = device(0, { usdPerHour: 0.2, fullMs: 8 });
    const dear = device(1, { usdPerHour: 2, fullMs: 4 });
    const idle = device(2, { usdPerHour: 9, fullMs: 4 });
    const among = [cheap, dear, idle];
    plan.observe(interactiveRequest, among, fleet);
    for (const each of among) expect(featuresOf(plan, each)).toEqual([0, 0, 0, 0]);
    seen(plan, among, 600, 5);
    const golden = (candidate: DispatchCandidate, values: readonly number[]): void => {
      featuresOf(plan, candidate).forEach((value, index) => {
        expect(value, planFeatureNames[index]).toBeCloseTo(values[index]!, 2);
      });
    };
    golden(cheap, [0.75, 0.75, 0.9, 1]);
    golden(dear, [0.25, 0.25, 0.15, 1]);
    golden(idle, [-1, 0, 0, 1]);
    plan.chose(cheap);
    plan.observe({ ...interactiveRequest, nowMs: 5_001 }, among, fleet);
    golden(cheap, [0.5, 0.75, 0.9, 1]);
    golden(dear, [0.5, 0.25, 0.15, 1]);
  });

  it('knows no plan for a model that it never sent anything of, nor where all that it sends to are masked', () => {
    const plan = new RatePlan(0.9);
    const among = [device(0, { usdPerHour: 0.1 }), device(1)];
    const nowMs = seen(plan, among, 100, 6);
    expect(plan.isKnown).toBe(true);
    plan.observe({ ...interactiveRequest, model: 'other', nowMs }, among, fleet);
    expect(plan.isKnown).toBe(false);
    plan.observe({ ...interactiveRequest, nowMs }, [{ ...among[0]!, masked: 'draining' }, among[1]!], fleet);
    expect(featuresOf(plan, among[1]!)).toEqual([0, 0, 0, 0]);
  });

  it('stands behind the features of the schema before, and is 0 in the row of refusing', () => {
    const plan = new RatePlan(0.9);
    const among = [device(0), device(1)];
    seen(plan, among, 100, 6);
    const plain = new Float32Array(3 * featureCount);
    const rows = new Float32Array(3 * planFeatureCount).fill(7);
    expect(writeRows(interactiveRequest, among, fleet, scale, plain)).toBe(3);
    expect(writeRows(interactiveRequest, among, fleet, scale, rows, plan)).toBe(3);
    for (let row = 0; row < 3; row += 1) {
      const from = row * planFeatureCount;
      expect(rows.slice(from, from + featureCount)).toEqual(plain.slice(row * featureCount, (row + 1) * featureCount));
      const behind = [...rows.slice(from + featureCount, from + planFeatureCount)];
      expect(behind).toEqual(row < 2 ? featuresOf(plan, among[row]!) : [0, 0, 0, 0]);
    }
  });

  it('begins anew after a while without requests: what was counted before gives no rates', () => {
    const plan = new RatePlan(0.9);
    const among = [device(0, { usdPerHour: 0.1 }), device(1)];
    const nowMs = seen(plan, among, 100, 6);
    expect(plan.isKnown).toBe(true);
    plan.observe({ ...interactiveRequest, nowMs: nowMs + 5_001 }, among, fleet);
    expect(plan.isKnown).toBe(false);
  });

  it('begins anew where a device goes or comes back, and not for what concerns one request', () => {
    for (const masked of ['not ready', 'banned']) {
      const plan = new RatePlan();
      const among = [device(0, { usdPerHour: 0.1 }), device(1)];
      const without = [among[0]!, { ...among[1]!, masked }];
      let nowMs = seen(plan, among, 100, 6);
      const isKnownWith = (those: readonly DispatchCandidate[]): boolean => {
        plan.observe({ ...interactiveRequest, nowMs }, those, fleet);
        return plan.isKnown;
      };
      expect(isKnownWith([among[0]!, { ...among[1]!, masked: 'failed this request' }])).toBe(true);
      expect(isKnownWith(among)).toBe(true);
      expect(isKnownWith(without)).toBe(false);
      nowMs += 4_990;
      expect(isKnownWith(without)).toBe(false);
      nowMs += 10;
      expect(isKnownWith(without)).toBe(true);
      expect(isKnownWith(among)).toBe(false);
    }
  });

  it('is followed by a rule that a learned policy falls back to as if the rule had planned by itself, whatever the devices', () => {
    fc.assert(
      fc.property(
        fc.array(anyDevice, { minLength: 1, maxLength: 6 }),
        fc.integer({ min: 20, max: 200 }),
        fc.nat({ max: 1000 }),
        (some, rate, seed) => {
          const among = some.map((part, number) => device(number, part));
          const network = anyNetwork([planFeatureCount, 4, 1], 3);
          // Whatever it sees is out of range.
          const ranges = { least: wide(9), low: wide(9), high: wide(9), greatest: wide(9) };
          const learned = dispatchOf({
            ...{ name: 'doubtful', decides: 'dispatch', network, ranges, fallback: 'milp-rate', notes: {} },
          });
          const rule = rateMatching(1);
          const random = seededRandom(seed);
          for (let number = 0; number < 11 * rate; number += 1) {
            const request = { ...interactiveRequest, mayShed: false, nowMs: (number * 1000) / rate };
            const chosen = learned.choose(request, among, fleet, random);
            expect(learned.trace.fallback).not.toBe('');
            expect(chosen).toBe(rule.choose(request, among, fleet, random));
          }
        },
      ),
      { numRuns: 20 },
    );
  });

  it('knows as much when the rule takes over as if the rule had decided all along', () => {
    const among = [device(0, { usdPerHour: 0.2, fullMs: 8 }), device(1, { usdPerHour: 2, fullMs: 4 })];
    const learned = new LearnedDispatch({
      ...{ name: 'first', plan: new RatePlan(0.9), fallback: leastHeadroom() },
      scorer: { inputs: planFeatureCount, outputs: 1, score: (_rows, count, out) => out.fill(0, 0, count) },
      ranges: { least: wide(-3), low: wide(-3), high: wide(3), greatest: wide(3) },
    });
    const random = seededRandom(1);
    const out = new Float32Array(planFeatureNames.length);
    for (let number = 0; number < 3_100; number += 1) {
      const nowMs = (number * 1000) / 600;
      learned.choose({ ...interactiveRequest, mayShed: false, nowMs }, among, fleet, random);
    }
    learned.trace.writePlan?.(among[0]!, out, 0);
    // The network took the first device each time; shares come from all requests, not from what it chose.
    expect(out[1]).toBeCloseTo(0.75, 2);
    expect(out[3]).toBe(1);
  });

  it('lets a learned policy that looks at nothing but turns send each device as much as rate matching does, whatever the devices', () => {
    const byTurn: Scorer = {
      inputs: planFeatureCount,
      outputs: 1,
      // Nobody refuses, whose row is all 0 behind the schema before.
      score: (rows, count, out) => {
        for (let row = 0; row < count; row += 1) {
          const from = row * planFeatureCount + featureCount;
          out[row] = rows[from + 3] === 0 ? -9 : rows[from]!;
        }
      },
    };
    fc.assert(
      fc.property(
        fc.array(anyDevice, { minLength: 1, maxLength: 6 }),
        fc.integer({ min: 20, max: 400 }),
        (some, rate) => {
          const among = some.map((part, number) => device(number, part));
          const rule = rateMatching();
          const learned = new LearnedDispatch({
            ...{ name: 'by turn', scorer: byTurn, plan: new RatePlan(0.9), fallback: leastHeadroom() },
            ranges: { least: wide(-3), low: wide(-3), high: wide(3), greatest: wide(3) },
          });
          const random = seededRandom(1);
          const more = some.map(() => 0);
          for (let number = 0; number < 7 * rate; number += 1) {
            const request = { ...interactiveRequest, nowMs: (number * 1000) / rate };
            const ruled = rule.choose(request, among, fleet, random);
            const chosen = learned.choose(request, among, fleet, random);
            // The first solution comes after 5 s; until then there is nothing to follow.
            if (request.nowMs < 5_001) continue;
            expect(chosen).not.toBe(SHED);
            more[chosen]! += 1;
            more[ruled]! -= 1;
          }
          // Turns that are nearly equal may be taken in another order.
          expect(Math.max(...more)).toBeLessThanOrEqual(2);
        },
      ),
      { numRuns: 30 },
    );
  });
});
