import { describe, expect, it } from 'vitest';
import type { LaunchChoice, LaunchView } from '#policies/batching/batching-policy.js';
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
