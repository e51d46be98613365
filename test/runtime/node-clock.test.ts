/** The clock of the running system keeps the promises of the port, and costs the process nothing while it has no timers. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { NodeClock } from '#adapters/node/clock.js';

const timeouts = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
const immediate = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

afterEach(() => {
  vi.restoreAllMocks();
});

describe('node clock', () => {
  it('fires timers in order, never before their time, and never a cancelled one', async () => {
    const clock = new NodeClock();
    const seen: string[] = [];
    const early: number[] = [];
    const timer = (name: string, delayMs: number) => {
      const dueMs = clock.nowMs() + delayMs;
      return clock.scheduleAt(dueMs, () => {
        early.push(Math.max(0, dueMs - clock.nowMs()));
        seen.push(name);
      });
    };
    timer('c', 12);
    timer('a', 1.5);
    const cancelled = timer('never', 5);
    const end = new Promise<void>((resolve) => clock.schedule(20, resolve));
    timer('b', 7.25);
    clock.schedule(-5, () => seen.push('past'));
    clock.scheduleAt(Infinity, () => seen.push('infinite'));
    cancelled.cancel();
    expect(seen).toEqual([]);
    await end;
    expect(seen).toEqual(['past', 'a', 'b', 'c']);
    expect(early).toEqual([0, 0, 0]);
    expect(() => clock.schedule(NaN, () => {})).toThrow('NaN');
  });

  it('keeps the process alive only while a timer waits', async () => {
    const clock = new NodeClock();
    const before = timeouts();
    const timers = [1, 2, 3].map((minutes) => clock.schedule(minutes * 60_000, () => {}));
    expect(timeouts()).toBe(before + 1);
    for (const timer of timers) timer.cancel();
    await immediate();
    expect(timeouts()).toBe(before);
    const again = clock.schedule(300_000, () => {});
    expect(timeouts()).toBe(before + 1);
    again.cancel();
    await immediate();
    expect(timeouts()).toBe(before);
  });

  it('runs deferred tasks after the current code, in order, before the event loop goes on', async () => {
    const clock = new NodeClock();
    const seen: string[] = [];
    const done = new Promise<void>((resolve) =>
      setImmediate(() => {
        seen.push('loop');
        resolve();
      }),
    );
    clock.defer(() => {
      seen.push('first');
      clock.defer(() => seen.push('third'));
    });
    clock.defer(() => seen.push('second'));
    seen.push('current');
    await done;
    expect(seen).toEqual(['current', 'first', 'second', 'third', 'loop']);
  });

  it('runs the tasks behind one that throws, and hides the error from nobody', () => {
    const drains: (() => void)[] = [];
    vi.spyOn(globalThis, 'queueMicrotask').mockImplementation((task) => void drains.push(task));
    const clock = new NodeClock();
    const seen: string[] = [];
    clock.defer(() => {
      throw new Error('of the task');
    });
    clock.defer(() => seen.push('behind'));
    expect(() => drains.shift()?.()).toThrow('of the task');
    drains.shift()?.();
    expect(seen).toEqual(['behind']);
    expect(drains).toEqual([]);
  });

  it('arms a timer that is further away than Node allows', async () => {
    const clock = new NodeClock();
    const warnings: Error[] = [];
    const listen = (warning: Error): void => void warnings.push(warning);
    process.on('warning', listen);
    let fired = 0;
    const timer = clock.schedule(2 ** 40, () => (fired += 1));
    await immediate();
    await immediate();
    timer.cancel();
    process.off('warning', listen);
    expect([fired, warnings]).toEqual([0, []]);
  });
});
