import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { newDeviceStanding, newHostStanding, newReplicaStanding } from '#core/grid/standing.js';
import { hostId, replicaId } from '#core/ids.js';
import type { InferenceRequest } from '#core/inference.js';
import type { Candidate } from '#core/picker.js';
import { gridPicker } from '#policies/placement/placement-grid.js';
import { WeightedDraw } from '#policies/placement/weighted-draw.js';
import type { Random } from '#ports/random.js';
import { seededRandom } from '#sim/random.js';

interface Wanted {
  readonly local?: boolean;
  readonly msPerItem?: number;
  readonly itemsInFlight?: number;
  readonly linkMs?: number;
  readonly speed?: number;
  readonly ready?: boolean;
  readonly bannedUntilMs?: number;
  readonly queueMs?: number;
  /** Default: a moment ago, whenever that is. */
  readonly answeredMs?: number;
}

function candidate(index: number, wanted: Wanted): Candidate {
  const host = newHostStanding(hostId(`h${index}`), wanted.local === true);
  host.linkMs = wanted.linkMs ?? 0;
  const device = newDeviceStanding();
  device.bannedUntilMs = wanted.bannedUntilMs ?? -Infinity;
  const standing = newReplicaStanding(host, device, wanted.speed ?? 1);
  standing.queueMs = wanted.queueMs ?? 0;
  standing.answeredMs = wanted.answeredMs ?? Infinity;
  host.linkAtMs = Infinity;
  return {
    replica: { id: replicaId(`r${index}`), stages: [] } as unknown as Candidate['replica'],
    load: { itemsInFlight: wanted.itemsInFlight ?? 0, msPerItem: wanted.msPerItem ?? 1, ready: wanted.ready ?? true },
    standing,
  };
}
const candidates = (...all: readonly Wanted[]): Candidate[] => all.map((each, index) => candidate(index, each));
const request = (items = 1): InferenceRequest => ({ items }) as InferenceRequest;
const none: ReadonlySet<string> = new Set();

describe('the picker of a grid', () => {
  it('of few replicas takes the one that would be done first, as looking at all of them says', () => {
    const wanted = fc.record({
      local: fc.boolean(),
      msPerItem: fc.constantFrom(0.5, 1, 7),
      itemsInFlight: fc.nat({ max: 20 }),
      linkMs: fc.constantFrom(0, 0.3, 5),
      ready: fc.boolean(),
      bannedUntilMs: fc.constantFrom(-Infinity, 50, 500),
      queueMs: fc.constantFrom(0, 3, 200),
      excluded: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(wanted, { maxLength: 8 }), fc.constantFrom(0, 100), (unordered, nowMs) => {
        const all = [...unordered.filter(({ local }) => local), ...unordered.filter(({ local }) => !local)];
        const exclude = new Set(all.flatMap(({ excluded }, index) => (excluded ? [`r${index}`] : [])));
        const doneMs = all.map((each) => {
          if (!each.ready || each.excluded || each.bannedUntilMs > nowMs) return Infinity;
          const queueMs = Math.max(0, each.queueMs - Math.max(0, nowMs));
          return each.linkMs + Math.max(each.itemsInFlight * each.msPerItem, queueMs) + 2 * each.msPerItem;
        });
        const index = gridPicker(seededRandom(1)).pick(request(2), candidates(...all), nowMs, exclude);
        const best = Math.min(...doneMs, Infinity);
        if (best === Infinity) expect(index).toBe(-1);
        else expect(doneMs[index]).toBe(best);
      }),
    );
  });

  it('takes one that is banned when it is asked without a moment', () => {
    const all = candidates({ bannedUntilMs: 500 }, { bannedUntilMs: 700 });
    expect(gridPicker(seededRandom(1)).pick(request(), all, 499, none)).toBe(-1);
    expect(gridPicker(seededRandom(1)).pick(request(), all, 500, none)).toBe(0);
    expect(gridPicker(seededRandom(1)).pick(request(), all, Infinity, none)).toBeGreaterThanOrEqual(0);
  });

  it('prefers the own host until another one is sooner done by more than the link costs', () => {
    const all = candidates({ local: true, msPerItem: 2 }, { msPerItem: 2, linkMs: 5 });
    const picker = gridPicker(seededRandom(1));
    const picked = Array.from({ length: 8 }, () => {
      const index = picker.pick(request(), all, 0, none);
      all[index]!.load.itemsInFlight += 1;
      return index;
    });
    expect(picked.slice(0, 3)).toEqual([0, 0, 0]);
    expect(picked).toContain(1);
  });

  it('takes a replica that was never measured for as fast as its device is said to be', () => {
    const all = candidates(
      { msPerItem: 4, speed: 1 },
      { msPerItem: 0, speed: 8, linkMs: 1 },
      { msPerItem: 0, speed: 0.5 },
    );
    expect(gridPicker(seededRandom(1)).pick(request(), all, 0, none)).toBe(1);
  });

  it('tries a replica again that was slow and has been silent for some seconds', () => {
    const all = candidates({ msPerItem: 1, answeredMs: 10_000 }, { msPerItem: 50, speed: 2, answeredMs: 4000 });
    expect(gridPicker(seededRandom(1)).pick(request(), all, 8000, none)).toBe(0);
    expect(gridPicker(seededRandom(1)).pick(request(), all, 10_000, none)).toBe(1);
  });

  it('of many takes one that may, whenever there is one', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { minLength: 9, maxLength: 60 }), fc.nat(), (ready, seed) => {
        const all = candidates(...ready.map((each) => ({ ready: each })));
        const index = gridPicker(seededRandom(seed)).pick(request(), all, 0, none);
        if (ready.includes(true)) expect(ready[index]).toBe(true);
        else expect(index).toBe(-1);
      }),
    );
  });

  it('spreads over many unlike replicas in proportion to their speed, with short queues everywhere', () => {
    const all = candidates(...Array.from({ length: 200 }, (_, index) => ({ msPerItem: index % 10 === 0 ? 1 : 10 })));
    const picker = gridPicker(seededRandom(3));
    const sent = { fast: 0, slow: 0 };
    for (let count = 0; count < 3800; count += 1) {
      const index = picker.pick(request(), all, 0, none);
      all[index]!.load.itemsInFlight += 1;
      sent[all[index]!.load.msPerItem === 1 ? 'fast' : 'slow'] += 1;
    }
    // 20 fast ones do 20 items a ms, 180 slow ones 18: nearly half and half.
    expect(sent.fast / 3800).toBeGreaterThan(0.45);
    expect(sent.fast / 3800).toBeLessThan(0.6);
    const longest = Math.max(...all.map(({ load }) => load.itemsInFlight * load.msPerItem));
    expect(longest).toBeLessThan(200);
  });

  it('looks at as many replicas in a grid of a thousand hosts as in one of ten', () => {
    const looked = (count: number): number => {
      let looks = 0;
      const watched = candidates(...Array.from({ length: count }, () => ({}))).map((each) => ({
        ...each,
        get load() {
          looks += 1;
          return each.load;
        },
      }));
      const picker = gridPicker(seededRandom(1));
      // The first pick measures all of them, for a thousand picks to come.
      picker.pick(request(), watched, 0, none);
      looks = 0;
      for (let pick = 0; pick < 200; pick += 1) picker.pick(request(), watched, 0, none);
      return looks / 200;
    };
    expect(looked(1000)).toBeLessThanOrEqual(looked(10) * 1.5);
    expect(looked(1000)).toBeLessThan(20);
  });
});

describe('a weighted draw', () => {
  it('draws each index as often as its weight says', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0.01, max: 100, noNaN: true }), { minLength: 1, maxLength: 20 }),
        (weights) => {
          const draw = new WeightedDraw(weights);
          const sum = weights.reduce((total, weight) => total + weight, 0);
          // Every cell of the table, and every hundredth of the coin: the chances are summed, not sampled.
          const chances = new Float64Array(weights.length);
          const parts = 1000;
          for (let cell = 0; cell < weights.length; cell += 1) {
            for (let part = 0; part < parts; part += 1) {
              const fixed = { below: () => cell, next: () => (part + 0.5) / parts } as unknown as Random;
              const index = draw.draw(fixed);
              chances[index] = (chances[index] ?? 0) + 1 / parts / weights.length;
            }
          }
          weights.forEach((weight, index) => expect(chances[index]).toBeCloseTo(weight / sum, 2));
        },
      ),
      { numRuns: 50 },
    );
  });
});
