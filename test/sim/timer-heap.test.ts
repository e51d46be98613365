/** The heap of timers against a sorted list. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TimerHeap } from '#core/timer-heap.js';
import type { TimerEntry } from '#core/timer-heap.js';

const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('push' as const), dueMs: fc.nat(200) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('remove' as const), index: fc.nat(200) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('pop' as const) }) },
);

describe('timer heap', () => {
  it('gives timers in the order of a sorted list, whatever is cancelled in between', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 200, size: 'max' }), (steps) => {
        const heap = new TimerHeap();
        const made: TimerEntry[] = [];
        let sorted: TimerEntry[] = [];
        for (const each of steps) {
          if (each.kind === 'push') {
            const entry: TimerEntry = { dueMs: each.dueMs, sequence: made.length, task: () => {}, place: -1 };
            made.push(entry);
            heap.push(entry);
            sorted = [...sorted, entry].sort(
              (left, right) => left.dueMs - right.dueMs || left.sequence - right.sequence,
            );
          } else {
            const entry = each.kind === 'pop' ? sorted[0] : made[each.index];
            if (entry === undefined) continue;
            expect(heap.remove(entry)).toBe(sorted.includes(entry));
            sorted = sorted.filter((other) => other !== entry);
          }
          expect(heap.size).toBe(sorted.length);
          expect(heap.first()).toBe(sorted[0]);
        }
        for (const entry of sorted) {
          expect(heap.first()).toBe(entry);
          heap.remove(entry);
        }
        expect(heap.first()).toBeUndefined();
      }),
      { numRuns: 200 },
    );
  });
});
