import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import { InFlight } from '#core/in-flight.js';
import { Loss } from '#core/loss.js';
import { SessionLanes } from '#core/session-lanes.js';

describe('requests in flight', () => {
  it('settles each request once and refuses more than the bound', async () => {
    const flights = new InFlight<string>(2);
    const numbers: number[] = [];
    const first = flights.add(10, (number) => numbers.push(number));
    const second = flights.add(10, (number) => numbers.push(number));
    await expect(flights.add(10, () => {})).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    expect(flights.resolve(numbers[1] as number, 'b')).toBe(true);
    expect(flights.resolve(numbers[1] as number, 'again')).toBe(false);
    const idle = flights.idle();
    flights.rejectAll(intarsiaError('EXECUTOR_LOST', 'gone'));
    await expect(first).rejects.toMatchObject({ code: 'EXECUTOR_LOST' });
    await expect(second).resolves.toBe('b');
    await idle;
    expect(flights.size).toBe(0);
  });

  it('passes on what a start throws', async () => {
    const flights = new InFlight<string>(2);
    const failed = flights.add(1, () => {
      throw new Error('cannot send');
    });
    await expect(failed).rejects.toThrow('cannot send');
    expect(flights.size).toBe(0);
  });

  it('blames only the oldest request, for the beats it has been the oldest', () => {
    const flights = new InFlight<string>(10);
    let slow = 0;
    void flights.add(3, (number) => (slow = number));
    for (let beat = 0; beat < 3; beat += 1) flights.beat();
    void flights.add(1, () => {});
    expect(flights.beat()).toBe(false);
    flights.resolve(slow, 'at last');
    // The second one waited all the time, but only now is it its turn.
    expect(flights.beat()).toBe(false);
    expect(flights.beat()).toBe(false);
    expect(flights.beat()).toBe(true);
  });
});

describe('loss', () => {
  it('tells every listener once, late ones soon', async () => {
    const loss = new Loss();
    const told: IntarsiaError[] = [];
    loss.listen((reason) => told.push(reason));
    const reason = intarsiaError('EXECUTOR_LOST', 'gone');
    loss.happen(reason);
    loss.happen(intarsiaError('EXECUTOR_LOST', 'again'));
    await new Promise<void>((resolve) =>
      loss.listen((late) => {
        told.push(late);
        resolve();
      }),
    );
    expect(told).toEqual([reason, reason]);
  });
});

describe('session lanes', () => {
  it('opens a lane only when every open one has a session, and spreads evenly after that', () => {
    const lanes = new SessionLanes<string>(2);
    expect(lanes.place('a')).toBe(0);
    expect(lanes.place('a')).toBe(0);
    lanes.remove('a');
    expect(lanes.place('b')).toBe(0);
    expect(lanes.place('c')).toBe(1);
    expect(lanes.place('d')).toBe(0);
    expect(lanes.place('e')).toBe(1);
    expect(lanes.laneOf('c')).toBe(1);
    lanes.remove('unknown');
    expect(lanes.laneOf('unknown')).toBeUndefined();
  });

  it('keeps lanes within one session of each other while sessions only come', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 60 }), (lanesMax, sessions) => {
        const lanes = new SessionLanes<number>(lanesMax);
        const counts = new Map<number, number>();
        for (let session = 0; session < sessions; session += 1) {
          const lane = lanes.place(session);
          expect(lane).toBeLessThan(lanesMax);
          counts.set(lane, (counts.get(lane) ?? 0) + 1);
        }
        expect(counts.size).toBe(Math.min(lanesMax, sessions));
        expect(Math.max(...counts.values()) - Math.min(...counts.values())).toBeLessThanOrEqual(1);
      }),
    );
  });
});
