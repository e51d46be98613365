import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { batchFeatureCount } from '#core/scheduling/batch-features.js';
import { encodePolicy, type PolicyArtifact } from '#core/scheduling/policy-file.js';
import { SimdScorer } from '#core/scheduling/simd-scorer.js';
import { deadlineCapBatching } from '#policies/batching/batching-deadline-cap.js';
import { batchingFromFile } from '#policies/batching/batching-from-file.js';
import { LearnedBatching } from '#policies/batching/batching-learned.js';
import type { LaunchChoice, LaunchView } from '#policies/batching/batching-policy.js';
import { batchRuleLayers } from '#policies/learning/batch-rule-network.js';

const layers = batchRuleLayers();
const anything = {
  ...{ least: new Array<number>(batchFeatureCount).fill(-3), low: new Array<number>(batchFeatureCount).fill(-3) },
  ...{ high: new Array<number>(batchFeatureCount).fill(3), greatest: new Array<number>(batchFeatureCount).fill(3) },
};

function policy(ranges?: typeof anything): LearnedBatching {
  return new LearnedBatching({
    name: 'test',
    scorer: new SimdScorer({ layers, activation: 'tanh' }),
    fallback: deadlineCapBatching(),
    ...(ranges === undefined ? {} : { ranges }),
  });
}

interface Queue {
  queuedItems: number;
  itemsMax: number;
  oldestArrivedMs: number;
  nearestTargetMs: number;
  firstMs: number;
  moreMs: number;
}

/** The same object again and again, as devices show their queues. */
class Views {
  readonly all: LaunchView[];
  constructor(queues: readonly Queue[]) {
    this.all = queues.map(
      (queue) =>
        ({
          ...{ urgency: 0.5, isProfiled: true },
          ...queue,
          runMs: (items: number) => (items === 0 ? 0 : queue.firstMs + queue.moreMs * (items - 1)),
        }) as unknown as LaunchView,
    );
  }

  set(index: number, change: Partial<Queue>): void {
    Object.assign(this.all[index] as object, change);
  }
}

function decided(by: LearnedBatching, views: Views, nowMs: number): LaunchChoice {
  const choice: LaunchChoice = { queue: 0, itemsMax: 0, untilMs: 0 };
  by.choose(views.all, nowMs, choice);
  return choice;
}

const steady = { queuedItems: 1, itemsMax: 16, firstMs: 20, moreMs: 0.5 };

/** Full batches have come every 10 ms until 100; then two requests wait. */
function warmed(by: LearnedBatching, others: readonly Queue[] = []): Views {
  const views = new Views([{ ...steady, oldestArrivedMs: 0, nearestTargetMs: 1_000 }, ...others]);
  for (let atMs = -6_000; atMs <= 100; atMs += 10) {
    views.set(0, { queuedItems: 16, oldestArrivedMs: atMs, nearestTargetMs: atMs + 1_000 });
    by.choose(views.all.slice(0, 1), atMs, { queue: 0, itemsMax: 0, untilMs: 0 });
  }
  views.set(0, { queuedItems: 2, oldestArrivedMs: 100, nearestTargetMs: 600 });
  return views;
}

describe('batches formed by a network', () => {
  it('waits while more are expected and all queues can still be in time, and launches when another queue could not be', () => {
    const by = policy();
    const calm = decided(by, warmed(by), 101);
    expect(calm.queue).toBe(-1);
    expect(calm.untilMs).toBeGreaterThan(101);
    expect(calm.untilMs).toBeLessThan(600 - 20);
    const pressed = policy();
    const other: Queue = { ...steady, oldestArrivedMs: 90, nearestTargetMs: 165, firstMs: 40, moreMs: 1 };
    const views = warmed(pressed, [other]);
    expect(decided(pressed, views, 101)).toMatchObject({ queue: 1, untilMs: Infinity });
  });

  it('waits neither beside a full batch nor with a head that has waited for half of its target', () => {
    const by = policy();
    const views = warmed(by);
    views.set(0, { queuedItems: 16 });
    expect(decided(by, views, 101)).toMatchObject({ queue: 0, itemsMax: 16 });
    views.set(0, { queuedItems: 2, oldestArrivedMs: 100, nearestTargetMs: 600 });
    expect(decided(by, views, 351).queue).toBe(0);
  });

  it('leaves to the rule what has no target, was never measured, or lies outside of what training saw', () => {
    const by = policy({
      ...anything,
      greatest: anything.greatest.map((value, at) => (at === 12 ? 0 : value)),
      high: anything.high.map((value, at) => (at === 12 ? 0 : value)),
    });
    const views = new Views([{ ...steady, oldestArrivedMs: 0, nearestTargetMs: Infinity }]);
    expect(decided(by, views, 10).queue).toBe(0);
    views.set(0, { nearestTargetMs: 100, firstMs: 0, moreMs: 0 });
    expect(by.counts).toEqual({ decisions: 1, fallbacks: 1 });
    const unmeasured = new Views([{ ...steady, oldestArrivedMs: 0, nearestTargetMs: 100, firstMs: 0, moreMs: 0 }]);
    expect(decided(by, unmeasured, 10).queue).toBe(0);
    const many = Array.from({ length: 8 }, () => ({ ...steady, oldestArrivedMs: 0, nearestTargetMs: 1_000 }));
    expect(decided(by, new Views(many), 10).queue).toBe(0);
    expect(by.counts).toEqual({ decisions: 3, fallbacks: 3 });
  });

  it('whatever the queues, it launches items that are there, or waits no longer than the least slack of any queue', () => {
    const queue = fc.record({
      queuedItems: fc.integer({ min: 1, max: 40 }),
      itemsMax: fc.integer({ min: 1, max: 32 }),
      ageMs: fc.double({ min: 0, max: 500, noNaN: true }),
      leftMs: fc.double({ min: -200, max: 5_000, noNaN: true }),
      firstMs: fc.double({ min: 0.1, max: 300, noNaN: true }),
      moreMs: fc.double({ min: 0, max: 50, noNaN: true }),
    });
    fc.assert(
      fc.property(fc.array(queue, { minLength: 1, maxLength: 6 }), (queues) => {
        const nowMs = 1_000;
        const views = new Views(
          queues.map(({ ageMs, leftMs, ...rest }) => ({
            ...rest,
            oldestArrivedMs: nowMs - ageMs,
            nearestTargetMs: nowMs + leftMs,
          })),
        );
        const choice = decided(policy(), views, nowMs);
        if (choice.queue >= 0) {
          expect(choice.queue).toBeLessThan(queues.length);
          expect(choice.itemsMax).toBeGreaterThanOrEqual(1);
          return;
        }
        // Slowly: queues one after another by their targets, each in a batch of all that waits.
        const byTarget = [...views.all].sort((left, right) => left.nearestTargetMs - right.nearestTargetMs);
        let sumMs = 0;
        for (const view of byTarget) {
          sumMs += view.runMs(Math.min(view.queuedItems, view.itemsMax));
          expect(choice.untilMs).toBeLessThanOrEqual(view.nearestTargetMs - sumMs + 1e-6);
          expect(view.queuedItems).toBeLessThan(view.itemsMax);
          expect(nowMs - view.oldestArrivedMs).toBeLessThan(0.5 * (view.nearestTargetMs - view.oldestArrivedMs));
        }
        expect(choice.untilMs).toBeGreaterThan(nowMs);
      }),
      { numRuns: 300 },
    );
  });
});

describe('a learned batching policy’s file', () => {
  const artifact: PolicyArtifact = {
    name: 'batches',
    decides: 'batching',
    network: { layers, activation: 'tanh' },
    ranges: anything,
    fallback: 'deadline-cap+shed',
    notes: {},
  };

  it('decides as the network in it, a policy of its own for each device', () => {
    const make = batchingFromFile(encodePolicy(artifact));
    const by = make();
    expect(make()).not.toBe(by);
    expect(decided(by, warmed(by), 101).queue).toBe(-1);
    expect(by.counts.fallbacks).toBe(0);
  });

  it('is refused when its fallback is no rule here', () => {
    expect(() => batchingFromFile(encodePolicy({ ...artifact, fallback: 'hope' }))).toThrow(
      /batching policy "hope" is not known/,
    );
  });
});
