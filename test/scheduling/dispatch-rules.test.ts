import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  expectedMs,
  marginalUsd,
  newDispatchCandidate,
  newFleetView,
  NONE,
  SHED,
  type DispatchCandidate,
  type DispatchPolicy,
  type DispatchRequest,
} from '#core/scheduling/dispatch-view.js';
import { cheapestByRisk, normalQuantile } from '#policies/placement/dispatch-cf-risk.js';
import { cheapest } from '#policies/placement/dispatch-cheap.js';
import { cheapestFeasible } from '#policies/placement/dispatch-cheapest-feasible.js';
import { joinShortestQueue } from '#policies/placement/dispatch-jsq.js';
import { leastHeadroom } from '#policies/placement/dispatch-least-headroom.js';
import { leastWorkLeft } from '#policies/placement/dispatch-lwl.js';
import { dispatchByName, dispatchRuleNames } from '#policies/placement/dispatch-by-name.js';
import { rateMatching } from '#policies/placement/dispatch-milp-rate.js';
import { maxWeight } from '#policies/placement/dispatch-max-weight.js';
import { powerOfTwoQueues } from '#policies/placement/dispatch-p2c-jsq.js';
import { powerOfTwoDelays } from '#policies/placement/dispatch-p2c-sed.js';
import { uniformRandom } from '#policies/placement/dispatch-random.js';
import { roundRobin } from '#policies/placement/dispatch-round-robin.js';
import { shortestExpectedDelay } from '#policies/placement/dispatch-sed.js';
import { shedding } from '#policies/placement/dispatch-shedding.js';
import { weightedRoundRobin } from '#policies/placement/dispatch-weighted-round-robin.js';
import { seededRandom } from '#sim/random.js';

const fleet = newFleetView();
const request: DispatchRequest = {
  model: 'm',
  items: 1,
  sloMs: 100,
  class: 'interactive',
  nowMs: 0,
  arrivedMs: 0,
  mayShed: true,
};

const anyCandidate = fc
  .record({
    netMs: fc.nat({ max: 20 }),
    runningMs: fc.nat({ max: 40 }),
    queuedAheadMs: fc.nat({ max: 100 }),
    serviceMs: fc.integer({ min: 1, max: 60 }),
    marginalMs: fc.nat({ max: 60 }),
    fullMs: fc.integer({ min: 1, max: 80 }),
    workMs: fc.nat({ max: 200 }),
    queueItems: fc.nat({ max: 30 }),
    deviceItems: fc.nat({ max: 30 }),
    itemsMax: fc.integer({ min: 1, max: 16 }),
    usdPerHour: fc.integer({ min: 1, max: 9 }),
    spread: fc.constantFrom(0, 0.1, 0.5),
    resident: fc.boolean(),
    loadMs: fc.nat({ max: 300 }),
    masked: fc.constantFrom('', '', '', 'not ready'),
  })
  .map((part): DispatchCandidate => ({ ...newDispatchCandidate(), ...part }));
const anyFleet = fc
  .array(anyCandidate, { minLength: 1, maxLength: 12 })
  .map((all) => all.map((each, device) => ({ ...each, device })));

const makers: [string, () => DispatchPolicy][] = [
  ['rand', uniformRandom],
  ['rr', roundRobin],
  ['wrr', weightedRoundRobin],
  ['jsq', joinShortestQueue],
  ['p2c-jsq', powerOfTwoQueues],
  ['p2c-sed', powerOfTwoDelays],
  ['lwl', leastWorkLeft],
  ['sed', shortestExpectedDelay],
  ['max-weight', maxWeight],
  ['cheap', cheapest],
  ['least-headroom', leastHeadroom],
  ['cheapest-feasible:0.6', cheapestFeasible],
  ['cf-risk:0.02', cheapestByRisk],
  ['milp-rate', rateMatching],
];

describe.each(makers)('dispatch rule %s', (name, make) => {
  it('is called by its name and chooses an unmasked candidate whenever there is one', () => {
    expect(make().name).toBe(name);
    fc.assert(
      fc.property(anyFleet, fc.integer({ min: 1, max: 5 }), (candidates, picks) => {
        const policy = make();
        const random = seededRandom(1);
        for (let pick = 0; pick < picks; pick += 1) {
          const chosen = policy.choose(request, candidates, fleet, random);
          if (candidates.every(({ masked }) => masked !== '')) expect(chosen).toBe(NONE);
          else expect(candidates[chosen]?.masked).toBe('');
        }
      }),
    );
  });

  it('reaches every one of equal candidates', () => {
    const policy = make();
    const random = seededRandom(3);
    const equal = [0, 1, 2].map((device) => ({ ...newDispatchCandidate(), device, usdPerHour: 1 }));
    const chosen = new Set(Array.from({ length: 60 }, () => policy.choose(request, equal, fleet, random)));
    expect([...chosen].sort()).toEqual([0, 1, 2]);
  });
});

/** What a rule's choice must measure: the least over the unmasked by an obviously right loop. */
function least(candidates: readonly DispatchCandidate[], measure: (each: DispatchCandidate) => number): number {
  return Math.min(...candidates.filter(({ masked }) => masked === '').map(measure));
}

describe('what rules minimise', () => {
  const measures: [string, DispatchPolicy, (each: DispatchCandidate) => number][] = [
    ['jsq', joinShortestQueue(), ({ deviceItems }) => deviceItems],
    ['lwl', leastWorkLeft(), ({ netMs, workMs }) => netMs + workMs],
    ['sed', shortestExpectedDelay(), expectedMs],
    ['max-weight', maxWeight(), ({ queueItems, fullMs, itemsMax }) => ((queueItems + 1) * fullMs) / itemsMax],
    ['cheap', cheapest(), ({ marginalMs, usdPerHour }) => marginalMs * usdPerHour],
  ];
  it('is the least of its measure over the unmasked', () => {
    fc.assert(
      fc.property(anyFleet, (candidates) => {
        fc.pre(candidates.some(({ masked }) => masked === ''));
        for (const [name, policy, measure] of measures) {
          const chosen = candidates[policy.choose(request, candidates, fleet, seededRandom(1))];
          expect(measure(chosen as DispatchCandidate), name).toBe(least(candidates, measure));
        }
      }),
    );
  });

  it('least headroom takes the tightest that is in time, cheapest feasible the cheapest within its share, else the soonest', () => {
    fc.assert(
      fc.property(anyFleet, fc.constantFrom(0.4, 0.6, 0.8, 1), fc.nat({ max: 50 }), (candidates, share, waited) => {
        const able = candidates.filter(({ masked }) => masked === '');
        fc.pre(able.length > 0);
        const aged = { ...request, nowMs: waited };
        const soonest = least(candidates, expectedMs);
        const inTime = able.filter((each) => expectedMs(each) <= 100 - waited);
        const tight = candidates[leastHeadroom().choose(aged, candidates, fleet, seededRandom(1))] as DispatchCandidate;
        expect(expectedMs(tight)).toBe(inTime.length === 0 ? soonest : Math.max(...inTime.map(expectedMs)));
        const cf = candidates[
          cheapestFeasible({ share }).choose(aged, candidates, fleet, seededRandom(1))
        ] as DispatchCandidate;
        const within = able.filter((each) => expectedMs(each) <= share * 100 - waited);
        if (within.length === 0) expect(expectedMs(cf)).toBe(soonest);
        else {
          const usd = Math.min(...within.map((each) => marginalUsd(each, fleet)));
          expect(marginalUsd(cf, fleet)).toBe(usd);
          const cheapOnes = within.filter((each) => marginalUsd(each, fleet) === usd).map(expectedMs);
          expect(expectedMs(cf)).toBe(Math.min(...cheapOnes));
        }
      }),
    );
  });

  it('cheapest feasible is the shortest expected delay where a price is unknown', () => {
    const slowFree = { ...newDispatchCandidate(), serviceMs: 40, marginalMs: 40, usdPerHour: 0 };
    const fast = { ...newDispatchCandidate(), serviceMs: 10, usdPerHour: 3 };
    expect(cheapestFeasible().choose(request, [slowFree, fast], fleet, seededRandom(1))).toBe(1);
    const slowCheap = { ...slowFree, usdPerHour: 0.01 };
    expect(cheapestFeasible().choose(request, [slowCheap, fast], fleet, seededRandom(1))).toBe(0);
  });
});

describe('shedding', () => {
  const late = { ...newDispatchCandidate(), serviceMs: 200, usdPerHour: 1 };
  const inTime = { ...newDispatchCandidate(), serviceMs: 50, usdPerHour: 1 };

  it('refuses only what every candidate would answer too late, and only where it may', () => {
    const policy = shedding(cheapestFeasible());
    expect(policy.name).toBe('cheapest-feasible:0.6+shed');
    const random = seededRandom(1);
    expect(policy.choose(request, [late, late], fleet, random)).toBe(SHED);
    expect(policy.choose({ ...request, mayShed: false }, [late], fleet, random)).toBe(0);
    expect(policy.choose(request, [late, inTime], fleet, random)).toBe(1);
    expect(policy.choose({ ...request, nowMs: 60 }, [late, inTime], fleet, random)).toBe(SHED);
    expect(policy.choose(request, [{ ...late, masked: 'draining' }], fleet, random)).toBe(NONE);
  });
});

describe('risk', () => {
  it('knows the quantiles of the normal distribution', () => {
    expect([0.6, 0.95, 0.975, 0.99].map(normalQuantile).map((z) => Math.round(z * 1000) / 1000)).toEqual([
      0.253, 1.645, 1.96, 2.327,
    ]);
  });

  it('uses an even device nearly to the limit and an uneven one not', () => {
    const dear = { ...newDispatchCandidate(), serviceMs: 10, usdPerHour: 9 };
    const even = { ...newDispatchCandidate(), serviceMs: 90, marginalMs: 1, usdPerHour: 1, spread: 0.05 };
    const random = seededRandom(1);
    expect(cheapestByRisk().choose(request, [dear, even], fleet, random)).toBe(1);
    expect(cheapestByRisk().choose(request, [dear, { ...even, spread: 0.2 }], fleet, random)).toBe(0);
  });
});

describe('weighted round robin', () => {
  it('gives each candidate turns in proportion to its speed with full batches', () => {
    const policy = weightedRoundRobin();
    const slow = { ...newDispatchCandidate(), itemsMax: 1, fullMs: 10 };
    const fast = { ...newDispatchCandidate(), device: 1, itemsMax: 3, fullMs: 10 };
    const chosen = Array.from({ length: 40 }, () => policy.choose(request, [slow, fast], fleet, seededRandom(1)));
    expect(chosen.filter((index) => index === 1)).toHaveLength(30);
    expect(chosen.slice(0, 4).sort()).toEqual([0, 1, 1, 1]);
  });
});

describe('rate matching', () => {
  it('follows the shares of the linear programme once it has seen rates', () => {
    const policy = rateMatching();
    // One item in 4 ms; the cheap device can do one in 10 ms for 90 % of its time, so that it gets 9 of 25.
    const cheapOne = { ...newDispatchCandidate(), fullMs: 10, usdPerHour: 1 };
    const dearOne = { ...newDispatchCandidate(), device: 1, fullMs: 5, usdPerHour: 9 };
    const counts = [0, 0];
    for (let index = 0; index < 5000; index += 1) {
      const nowMs = 4 * index;
      const chosen = policy.choose(
        { ...request, nowMs, arrivedMs: nowMs },
        [cheapOne, dearOne],
        fleet,
        seededRandom(1),
      );
      if (nowMs >= 5000) counts[chosen] = (counts[chosen] ?? 0) + 1;
    }
    expect((counts[0] ?? 0) / 3750).toBeCloseTo(9 / 25, 2);
  });
});

describe('dispatch rules by name', () => {
  it('makes every rule by its name, with its number and with or without shedding', () => {
    for (const name of dispatchRuleNames) expect(dispatchByName(`${name}+serve`).name.split(':')[0]).toBe(name);
    expect(dispatchByName('cheapest-feasible').name).toBe('cheapest-feasible:0.6+shed');
    expect(dispatchByName('cheapest-feasible:0.8+serve').name).toBe('cheapest-feasible:0.8');
    expect(dispatchByName('cf-risk:0.01').name).toBe('cf-risk:0.01+shed');
    expect(dispatchByName('sed+shed').name).toBe('sed+shed');
  });

  it('refuses other names, numbers out of range and numbers where there is none, and says what there is', () => {
    expect(() => dispatchByName('fastest')).toThrow(/no dispatch rule 'fastest'; there are rand, rr/u);
    expect(() => dispatchByName('constructor')).toThrow(/no dispatch rule/u);
    expect(() => dispatchByName('cheapest-feasible:3')).toThrow(/above 0 and at most 2; it is 3/u);
    expect(() => dispatchByName('sed:1')).toThrow(/'sed' takes no number/u);
  });
});
