import { describe, expect, it } from 'vitest';
import { Contention } from '#sim/fleet/contention.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { readFleet } from '#sim/fleet/read-fleet.js';
import { VirtualClock } from '#sim/virtual-clock.js';
import { arrivalsAt, run as runRequests } from './fleets.js';

function world(slowedBy: Readonly<Record<string, Readonly<Record<string, number>>>>) {
  const clock = new VirtualClock();
  const devices = Object.entries(slowedBy).map(([id, factors]) => ({ id, slowedBy: new Map(Object.entries(factors)) }));
  const contention = new Contention(clock, devices);
  const ended: string[] = [];
  const startMs = clock.nowMs();
  const run = (device: string, name: string, ms: number): (() => void) =>
    contention.run(
      device,
      () => ms,
      (tookMs) => ended.push(`${name} took ${tookMs.toFixed(1)} until ${(clock.nowMs() - startMs).toFixed(1)}`),
    );
  const finish = (): readonly string[] => {
    while (clock.step());
    return ended;
  };
  return { clock, contention, run, finish };
}

describe('devices that slow each other', () => {
  it('a run goes slower for as long as the other device computes, and at its own pace again afterwards', () => {
    const { run, finish } = world({ a: { b: 2 }, b: {} });
    run('a', 'long', 30);
    run('b', 'short', 10);
    // 10 ms beside b do 5 ms of work; 25 are left.
    expect(finish()).toEqual(['short took 10.0 until 10.0', 'long took 35.0 until 35.0']);
  });

  it('both are slowed where both say so, and one that waits begins when its device is free', () => {
    const { run, finish } = world({ a: { b: 2 }, b: { a: 2 } });
    run('a', 'first', 10);
    run('b', 'beside', 10);
    run('a', 'second', 10);
    expect([...finish()].sort()).toEqual([
      'beside took 20.0 until 20.0',
      'first took 20.0 until 20.0',
      'second took 10.0 until 30.0',
    ]);
  });

  it('a run that is given up slows nobody any more, and the next one takes its place', () => {
    const { clock, run, finish } = world({ a: { b: 3 }, b: {} });
    run('a', 'kept', 10);
    const giveUp = run('b', 'given up', 100);
    run('b', 'next', 5);
    clock.schedule(6, giveUp);
    // 6 ms at a third of the pace, 5 more beside the next one, the rest alone.
    expect(finish()).toEqual(['next took 5.0 until 11.0', 'kept took 17.3 until 17.3']);
  });

  it('concerns only devices that are slowed or slow others', () => {
    const { contention } = world({ a: { b: 2 }, b: {}, c: {} });
    expect(['a', 'b', 'c'].map((id) => contention.concerns(id))).toEqual([true, true, false]);
  });
});

describe('a fleet file with devices of one host', () => {
  const device = { tier: 'edge', usdPerHour: 3.6, watts: 100, netMs: 0, linkMBs: 1e9 };
  const fleetOf = (changes: object): Parameters<typeof runRequests>[0] => {
    const slos = { interactive: 1e6, standard: 1e6, batch: 1e6 };
    const model = {
      name: 'm',
      itemsMax: 1,
      memoryMiB: 1,
      loadMs: 1,
      sloMs: slos,
      tables: { a: { 1: 20 }, b: { 1: 50 } },
    };
    const devices = [
      { name: 'a', ...device, ...changes },
      { name: 'b', ...device },
    ];
    return readFleet({ name: 'one host', noise: 0, models: [model], devices }, 'one-host.yaml', builtInProfiles);
  };

  it('slows what computes beside another device and holds a device until its answer is back, paying for computing alone', async () => {
    const fleet = fleetOf({ slowedBy: { b: 1.5 }, handOverMs: 2 });
    const {
      doneMs,
      device: servedBy,
      costUsd,
      devices,
    } = await runRequests(fleet, arrivalsAt(0, 0), { dispatch: 'jsq' });
    const [onA, onB] = [servedBy.indexOf(0), servedBy.indexOf(1)];
    expect(doneMs[onB]).toBeCloseTo(50, 6);
    expect(doneMs[onA]).toBeCloseTo(33, 6);
    expect(devices[0]?.busyMs).toBeCloseTo(30, 6);
    expect(costUsd[onA]).toBeCloseTo((30 * 3.6) / 3.6e6, 12);
  });

  it('refuses a device that is slowed by one that is not there, or by itself', () => {
    expect(() => fleetOf({ slowedBy: { c: 2 } })).toThrow('ids of other devices of this file; found "c"');
    expect(() => fleetOf({ slowedBy: { a: 2 } })).toThrow('ids of other devices of this file; found "a"');
    expect(() => fleetOf({ slowedBy: { b: 0.5 } })).toThrow('a number from 1 to 100; found 0.5');
  });
});
