/** Deadlines of many questions against a slow, obvious model: each ends at its exact moment, in order, unless it left. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AskDeadlines } from '#runtime/ask-deadlines.js';
import type { Deadlined } from '#runtime/ask-deadlines.js';
import { VirtualClock } from '#sim/virtual-clock.js';

const step = fc.oneof(
  fc.record({ kind: fc.constant('add' as const), inMs: fc.integer({ min: -50, max: 450 }) }),
  fc.record({ kind: fc.constant('remove' as const), index: fc.nat(30) }),
  fc.record({ kind: fc.constant('advance' as const), ms: fc.integer({ min: 0, max: 130 }) }),
);

describe('deadlines of questions', () => {
  it('end each question at its exact moment, and none that has left', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const clock = new VirtualClock();
        const deadlines = new AskDeadlines(clock);
        const items: (Deadlined & { endedMs?: number; removedMs?: number; addedMs: number })[] = [];
        for (const each of steps) {
          if (each.kind === 'advance') clock.advance(each.ms);
          else if (each.kind === 'add') {
            const item: (typeof items)[number] = {
              deadlineMs: clock.nowMs() + each.inMs,
              addedMs: clock.nowMs(),
              earlier: undefined,
              later: undefined,
              span: undefined,
              timer: undefined,
              onDeadline: () => {
                expect(item.endedMs).toBeUndefined();
                item.endedMs = clock.nowMs();
              },
            };
            items.push(item);
            deadlines.add(item);
          } else {
            const item = items[each.index];
            if (item === undefined || item.endedMs !== undefined) continue;
            deadlines.remove(item);
            item.removedMs ??= clock.nowMs();
          }
        }
        clock.runUntilIdle();
        for (const item of items) {
          const dueMs = Math.max(item.addedMs, item.deadlineMs);
          expect(item.endedMs).toBe(item.removedMs === undefined ? dueMs : undefined);
        }
        expect(clock.pending).toBe(0);
      }),
    );
  });

  it('leave no timer behind once every question was answered', () => {
    const clock = new VirtualClock();
    const deadlines = new AskDeadlines(clock);
    const item: Deadlined = {
      deadlineMs: 60_000,
      earlier: undefined,
      later: undefined,
      span: undefined,
      timer: undefined,
      onDeadline: () => expect.unreachable('it was answered'),
    };
    for (let question = 0; question < 100; question += 1) {
      deadlines.add(item);
      deadlines.remove(item);
    }
    clock.runDue();
    expect(clock.pending).toBe(0);
    expect(clock.nowMs()).toBe(0);
  });
});
