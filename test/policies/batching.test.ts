import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { aimdBatching } from '#policies/batching/batching-aimd.js';
import { deadlineCapBatching } from '#policies/batching/batching-deadline-cap.js';
import { delayBatching } from '#policies/batching/batching-delay.js';
import type { BatchingPolicy, LaunchChoice, LaunchView } from '#policies/batching/batching-policy.js';
import { proteusBatching } from '#policies/batching/batching-proteus.js';
import { smdpBatching } from '#policies/batching/batching-smdp.js';
import { tritonBatching } from '#policies/batching/batching-triton.js';

function view(oldestArrivedMs: number, urgency = 0.5): LaunchView {
  return { oldestArrivedMs, urgency } as LaunchView;
}
function chosen(views: readonly LaunchView[], nowMs = 100): number {
  const choice: LaunchChoice = { queue: -1, itemsMax: 0, untilMs: 0 };
  tritonBatching().choose(views, nowMs, choice);
  expect(choice.itemsMax).toBe(Infinity);
  return choice.queue;
}

describe('the default batching policy', () => {
  it('launches the queue whose head has waited longest', () => {
    expect(chosen([view(50), view(40), view(60)])).toBe(1);
  });

  it('puts the more urgent class first', () => {
    expect(chosen([view(40), view(60, 0.3), view(50, 0.7)])).toBe(1);
  });

  it('does not let urgency starve a head that has waited for a second', () => {
    expect(chosen([view(0), view(1000, 0.1)], 999)).toBe(1);
    expect(chosen([view(0), view(1000, 0.1)], 1001)).toBe(0);
  });
});

/** A queue whose runs take `first` ms and `more` for each further item. */
function queue(changes: Partial<LaunchView> & { readonly first?: number; readonly more?: number }): LaunchView {
  const { first = 10, more = 1, ...rest } = changes;
  return {
    ...{ queuedItems: 1, itemsMax: 8, oldestArrivedMs: 0, nearestTargetMs: Infinity, urgency: 0.5, isProfiled: true },
    runMs: (items: number) => (items === 0 ? 0 : first + more * (items - 1)),
    ...rest,
  } as LaunchView;
}
function decided(policy: BatchingPolicy, views: readonly LaunchView[], nowMs: number): LaunchChoice {
  const choice: LaunchChoice = { queue: 0, itemsMax: 0, untilMs: 0 };
  policy.choose(views, nowMs, choice);
  return choice;
}

describe('deadline-capped batches', () => {
  const policy = deadlineCapBatching();

  it('launches the queue whose head must begin soonest, not the one that has waited longest', () => {
    const views = [
      queue({ oldestArrivedMs: 0, nearestTargetMs: 500 }),
      queue({ oldestArrivedMs: 50, nearestTargetMs: 130 }),
    ];
    expect(decided(policy, views, 100).queue).toBe(1);
  });

  it('takes no more items than the head and the most urgent other head can wait for', () => {
    const own = (nearestTargetMs: number): LaunchView => queue({ queuedItems: 8, nearestTargetMs });
    expect(decided(policy, [own(1000)], 0).itemsMax).toBe(8);
    expect(decided(policy, [own(13)], 0).itemsMax).toBe(4);
    // The other must begin 12.5 ms from now.
    expect(decided(policy, [own(20), queue({ nearestTargetMs: 22.5 })], 0)).toMatchObject({ queue: 0, itemsMax: 3 });
  });

  it('holds nothing against a head that is late anyway', () => {
    expect(decided(policy, [queue({ queuedItems: 8, nearestTargetMs: 5 })], 100).itemsMax).toBe(8);
  });

  it('takes one at a time where batches gain nothing, and stops before a cliff', () => {
    const timed = { nearestTargetMs: 1e6 };
    expect(decided(policy, [queue({ ...timed, queuedItems: 8, first: 10, more: 10 })], 0).itemsMax).toBe(1);
    const cliff = queue({ ...timed, queuedItems: 8, runMs: (items) => (items > 4 ? 400 : 10 + items) });
    expect(decided(policy, [cliff], 0).itemsMax).toBe(4);
  });

  it('takes the largest that is in time where run times are only measured: noise says nothing about efficiency', () => {
    const measured = { isProfiled: false, queuedItems: 8, nearestTargetMs: 1e6 };
    expect(decided(policy, [queue({ ...measured, runMs: (items) => 5 + items * 1.5 })], 0).itemsMax).toBe(8);
    expect(decided(policy, [queue({ ...measured, nearestTargetMs: 13, first: 10, more: 1 })], 0).itemsMax).toBe(4);
  });

  it('does as the default rule among queues without any target', () => {
    const views = [queue({ oldestArrivedMs: 40 }), queue({ oldestArrivedMs: 60, urgency: 0.3, queuedItems: 8 })];
    expect(decided(policy, views, 100)).toMatchObject({ queue: 1, itemsMax: Infinity });
    expect(decided(policy, [...views, queue({ oldestArrivedMs: 70, nearestTargetMs: 1e6 })], 100).queue).toBe(2);
    expect(decided(policy, views, 1050)).toMatchObject({ queue: 0, itemsMax: Infinity });
  });

  it('takes all while no run was measured', () => {
    expect(decided(policy, [queue({ queuedItems: 8, runMs: () => 0 })], 0).itemsMax).toBe(Infinity);
  });

  it('never lets a head miss its target that it could have met, whatever the queues', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            items: fc.integer({ min: 1, max: 8 }),
            slack: fc.integer({ min: 1, max: 200 }),
            first: fc.integer({ min: 1, max: 40 }),
            more: fc.integer({ min: 0, max: 20 }),
          }),
          { minLength: 1, maxLength: 4 },
        ),
        (rows) => {
          const views = rows.map(({ items, slack, first, more }) =>
            queue({ queuedItems: items, nearestTargetMs: slack, first, more }),
          );
          const { queue: chosen, itemsMax } = decided(policy, views, 0);
          const view = views[chosen]!;
          const runMs = view.runMs(Math.min(itemsMax, view.queuedItems));
          if (view.runMs(1) <= view.nearestTargetMs) expect(runMs).toBeLessThanOrEqual(view.nearestTargetMs);
          for (const other of views) {
            const latestMs = other.nearestTargetMs - other.runMs(1);
            if (other !== view && latestMs >= view.runMs(1)) expect(runMs).toBeLessThanOrEqual(latestMs);
          }
        },
      ),
    );
  });
});

describe('other batching rules', () => {
  it('AIMD grows by one while in time and shrinks to nine tenths when late', () => {
    const policy = aimdBatching();
    const view = queue({ queuedItems: 8 });
    for (const cap of [1, 2, 3, 4]) {
      expect(decided(policy, [view], 0).itemsMax).toBe(cap);
      policy.ended?.(view, cap, true);
    }
    policy.ended?.(view, 5, false);
    expect(decided(policy, [view], 0).itemsMax).toBe(4);
    policy.ended?.(view, 2, true);
    expect(decided(policy, [view], 0).itemsMax).toBe(4);
  });

  it("Proteus's rule waits as long as the head can, and leaves out who came too late", () => {
    const policy = proteusBatching();
    const waiting = queue({ queuedItems: 3, nearestTargetMs: 100 });
    expect(decided(policy, [waiting], 0)).toMatchObject({ queue: -1, untilMs: 100 - 12 - 0.5 });
    expect(decided(policy, [waiting], 87.6)).toMatchObject({ queue: 0, itemsMax: 3 });
    expect(decided(policy, [waiting], 88.5)).toMatchObject({ queue: 0, itemsMax: 2 });
    expect(decided(policy, [queue({ queuedItems: 8, nearestTargetMs: 100 })], 0).queue).toBe(0);
    expect(decided(policy, [queue({})], 0).queue).toBe(0);
  });

  it('a delay holds a queue until it is full or its head has waited', () => {
    const policy = delayBatching({ delayMs: 5 });
    expect(decided(policy, [queue({ oldestArrivedMs: 10 }), queue({ oldestArrivedMs: 8 })], 11)).toMatchObject({
      queue: -1,
      untilMs: 13,
    });
    expect(decided(policy, [queue({ oldestArrivedMs: 10 }), queue({ oldestArrivedMs: 8 })], 13).queue).toBe(1);
    expect(decided(policy, [queue({ oldestArrivedMs: 10, queuedItems: 8 })], 11).queue).toBe(0);
  });

  it('the solved limit follows the arrival rate, and gives up waiting when nobody comes', () => {
    const policy = smdpBatching({ runWeight: 50 });
    const view = { ...queue({ first: 10, more: 0.5 }), queuedItems: 0 };
    let nowMs = 0;
    for (let step = 0; step < 4000; step += 1) {
      nowMs += 5;
      view.queuedItems += 1;
      if (view.queuedItems === 1) view.oldestArrivedMs = nowMs;
      const { queue: chosen } = decided(policy, [view], nowMs);
      if (chosen === 0) view.queuedItems = 0;
    }
    view.queuedItems = 1;
    view.oldestArrivedMs = nowMs;
    const { queue: chosen, untilMs } = decided(policy, [view], nowMs);
    expect(chosen).toBe(-1);
    expect(untilMs).toBeLessThan(nowMs + 1000);
    expect(decided(policy, [view], untilMs).queue).toBe(0);
  });
});
