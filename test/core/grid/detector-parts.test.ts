/** The parts that a failure detector decides with: ring, waits, doubt, damping, gossip, votes to be written. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FlapDamping } from '#core/grid/flap-damping.js';
import type { HostNews } from '#core/grid/host-load.js';
import { LocalHealth } from '#core/grid/local-health.js';
import { PeerTable } from '#core/grid/peer-table.js';
import type { ViewHost } from '#core/grid/records.js';
import { ringPlace, successorsOf } from '#core/grid/ring.js';
import { RoundTrip } from '#core/grid/round-trip.js';
import { SelfCheck } from '#core/grid/self-check.js';
import { VoteDesk } from '#core/grid/vote-desk.js';
import { hostId, type HostId } from '#core/ids.js';

const manyHosts = (count: number): readonly HostId[] =>
  Array.from({ length: count }, (_, index) => hostId(`h${index}`));

describe('the ring', () => {
  it('gives the hosts that follow, as sorting all of them does', () => {
    const property = fc.property(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 1, max: 8 }), (size, count) => {
      const hosts = manyHosts(size + 1);
      const self = hosts[0]!;
      const distance = (host: HostId): number => (ringPlace(host) - ringPlace(self) + 2 ** 32) % 2 ** 32;
      const sorted = hosts.slice(1).sort((left, right) => distance(left) - distance(right));
      expect(successorsOf(self, hosts, count)).toEqual(sorted.slice(0, count));
    });
    fc.assert(property);
  });

  it('has each host observed by as many as it observes, and a new host changes few neighbours', () => {
    const hosts = manyHosts(200);
    const watched = (among: readonly HostId[]): Map<HostId, readonly HostId[]> =>
      new Map(among.map((host) => [host, successorsOf(host, among, 3)]));
    const before = watched(hosts);
    const counts = new Map<HostId, number>();
    for (const targets of before.values()) for (const host of targets) counts.set(host, (counts.get(host) ?? 0) + 1);
    expect(new Set(counts.values())).toEqual(new Set([3]));
    const after = watched([...hosts, hostId('new')]);
    const changed = hosts.filter((host) => after.get(host)!.join() !== before.get(host)!.join());
    expect(changed).toHaveLength(3);
  });
});

describe('a round trip', () => {
  const limits = { timeoutMsMin: 100, timeoutMsMax: 2_000, timeoutMsInitial: 500 };

  it('is waited for as long as its mean and deviation ask, within the limits', () => {
    const trip = new RoundTrip(limits);
    expect(trip.timeoutMs()).toBe(500);
    for (let sample = 0; sample < 50; sample += 1) trip.add(1);
    expect(trip.timeoutMs()).toBe(100);
    for (let sample = 0; sample < 50; sample += 1) trip.add(sample % 2 === 0 ? 200 : 300);
    expect(trip.timeoutMs()).toBeGreaterThan(350);
    expect(trip.timeoutMs()).toBeLessThan(700);
    for (let sample = 0; sample < 50; sample += 1) trip.add(60_000);
    expect(trip.timeoutMs()).toBe(2_000);
  });

  it('tells a host that became slow from one that always was', () => {
    const far = new RoundTrip(limits);
    for (let sample = 0; sample < 200; sample += 1) far.add(150);
    expect(far.slowness).toBeCloseTo(1);
    for (let sample = 0; sample < 60; sample += 1) far.add(1_500);
    expect(far.slowness).toBeGreaterThan(5);
    const near = new RoundTrip(limits);
    for (let sample = 0; sample < 200; sample += 1) near.add(sample < 100 ? 0.3 : 3);
    expect(near.slowness).toBeLessThan(1);
  });
});

describe('local health', () => {
  it('widens waits with lag and lonely failures, narrows them with answers, and accuses nobody after a pause', () => {
    const health = new LocalHealth({ pauseMs: 1_000, lagMs: 100, graceMs: 3_000 });
    expect(health.onLag(10, 0)).toBe('ok');
    expect(health.multiplier).toBe(1);
    expect(health.onLag(200, 0)).toBe('late');
    health.onLonelyFailure();
    expect(health.multiplier).toBe(3);
    health.onAnswer();
    expect(health.multiplier).toBe(2);
    expect(health.mayAccuse(0)).toBe(true);
    expect(health.onLag(30_000, 5_000)).toBe('paused');
    expect(health.multiplier).toBe(9);
    expect(health.mayAccuse(7_999)).toBe(false);
    expect(health.mayAccuse(8_000)).toBe(true);
  });

  it('is degraded by lag or by the word of most peers, and not by that of one', () => {
    const check = new SelfCheck({ lagMs: 500, slowness: 5 });
    check.onReport(hostId('a'), 50, 0);
    check.onReport(hostId('b'), 1, 0);
    expect(check.degraded(0, 0)).toBe('');
    check.onReport(hostId('b'), 6, 0);
    expect(check.degraded(0, 0)).toContain('6.0 times slower');
    check.onReport(hostId('b'), 3, 0);
    expect(check.degraded(0, 0)).not.toBe('');
    check.onReport(hostId('b'), 2, 0);
    expect(check.degraded(0, 0)).toBe('');
    expect(check.degraded(600, 0)).toBe('its event loop lags by 600 ms');
    expect(check.degraded(300, 0)).not.toBe('');
    expect(check.degraded(200, 20_000)).toBe('');
  });
});

describe('flap damping', () => {
  it('asks for twice the quiet time with each relapse up to the maximum, and forgets with time', () => {
    const flaps = new FlapDamping({ quietMsMin: 1_000, quietMsMax: 10_000, forgetMs: 60_000 });
    expect(flaps.quietMs(0)).toBe(0);
    const quiet: number[] = [];
    for (let relapse = 0; relapse < 6; relapse += 1) {
      flaps.onSuspected(relapse);
      quiet.push(flaps.quietMs(relapse));
    }
    expect(quiet).toEqual([1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    expect(flaps.quietMs(5 + 3 * 60_000)).toBe(4_000);
    expect(flaps.quietMs(5 + 6 * 60_000)).toBe(0);
  });
});

describe('news', () => {
  const viewOf = (hosts: readonly HostId[]): ReadonlyMap<HostId, ViewHost> =>
    new Map(hosts.map((host) => [host, { record: { process: 'p' } } as ViewHost]));
  const said = (host: HostId, sequence: number): HostNews => ({
    host,
    process: 'p',
    sequence,
    viewRevision: sequence,
    ageMs: 5,
    load: { devices: [], eventLoopLagMs: 0, degraded: '' },
  });

  it('of every host reach every host in a number of rounds that grows with the logarithm of hosts', () => {
    const hosts = manyHosts(256);
    const view = viewOf(hosts);
    const tables = new Map(hosts.map((host) => [host, new PeerTable(host)]));
    for (const table of tables.values()) table.onHosts(view);
    const origin = hosts[0]!;
    let rounds = 0;
    const knowing = (): number =>
      hosts.filter((host) => host !== origin && tables.get(host)!.get(origin) !== undefined).length;
    while (knowing() < hosts.length - 1 && rounds < 200) {
      rounds += 1;
      for (const host of hosts) {
        for (const to of successorsOf(host, hosts, 3)) {
          const own = host === origin && rounds === 1 ? [said(origin, 1)] : [];
          tables.get(to)!.learn([...own, ...tables.get(host)!.take(6, to, rounds)], view, rounds);
          tables.get(host)!.learn(tables.get(to)!.take(6, host, rounds), view, rounds);
        }
      }
    }
    expect(knowing()).toBe(hosts.length - 1);
    expect(rounds).toBeLessThan(200);
  });

  it('that are older, of strangers, of earlier processes or of oneself are passed over', () => {
    const [self, other, stranger] = manyHosts(3) as [HostId, HostId, HostId];
    const table = new PeerTable(self);
    const view = viewOf([self, other]);
    table.onHosts(view);
    table.learn([said(other, 5)], view, 100);
    expect(table.get(other)).toMatchObject({ sequence: 5, saidMs: 95 });
    table.learn([said(other, 4), said(stranger, 9), said(self, 9), { ...said(other, 9), process: 'old' }], view, 100);
    expect(table.get(other)?.sequence).toBe(5);
    expect(table.get(stranger)).toBeUndefined();
    expect(table.get(self)).toBeUndefined();
    table.onHosts(viewOf([self]));
    expect(table.get(other)).toBeUndefined();
  });

  it('are passed on a bounded number of times', () => {
    const [self, other, third] = manyHosts(3) as [HostId, HostId, HostId];
    const table = new PeerTable(self);
    const view = viewOf([self, other, third]);
    table.onHosts(view);
    table.learn([said(other, 1)], view, 0);
    expect(table.take(6, other, 0)).toEqual([]);
    let passed = 0;
    for (let turn = 0; turn < 50; turn += 1) passed += table.take(6, third, 0).length;
    expect(passed).toBe(4);
  });
});

describe('the desk of votes', () => {
  it('ends with what is wanted in the store, whatever writes do, and writes nothing more then', () => {
    const outcome = fc.constantFrom('done' as const, 'unknown-done' as const, 'unknown' as const);
    const wish = fc.array(fc.tuple(fc.constantFrom(...manyHosts(3)), fc.integer({ min: 1, max: 2 })), { maxLength: 3 });
    const property = fc.property(fc.array(fc.tuple(wish, outcome), { maxLength: 30 }), (script) => {
      const desk = new VoteDesk();
      const store = new Map<HostId, number>();
      desk.onLease('1');
      let wanted = new Map<HostId, { readonly generation: number; readonly reason: string }>();
      const step = (how: 'done' | 'unknown-done' | 'unknown'): boolean => {
        const write = desk.next(wanted);
        if (write === undefined) return false;
        if (how !== 'unknown') {
          if (write.type === 'cast') store.set(write.host, write.generation);
          else if (store.get(write.host) === write.generation) store.delete(write.host);
        }
        desk.onOutcome(how === 'done' ? 'done' : 'unknown', '1');
        return true;
      };
      for (const [wishes, how] of script) {
        wanted = new Map(wishes.map(([host, generation]) => [host, { generation, reason: '' }]));
        step(how);
      }
      let writes = 0;
      while (step('done')) writes += 1;
      expect(writes).toBeLessThan(20);
      expect(store).toEqual(new Map([...wanted].map(([host, { generation }]) => [host, generation])));
    });
    fc.assert(property, { numRuns: 1_000 });
  });

  it('begins anew with a new lease, and does not insist on a host of a generation that is gone', () => {
    const desk = new VoteDesk();
    const host = hostId('a');
    const wanted = new Map([[host, { generation: 3, reason: 'silent' }]]);
    expect(desk.next(wanted)).toBeUndefined();
    desk.onLease('1');
    expect(desk.next(wanted)).toMatchObject({ type: 'cast', host, generation: 3 });
    expect(desk.next(wanted)).toBeUndefined();
    desk.onOutcome('refused', '1');
    expect(desk.next(wanted)).toBeUndefined();
    desk.onLease('2');
    expect(desk.next(wanted)).toMatchObject({ type: 'cast' });
    desk.onOutcome('done', '2');
    expect(desk.next(new Map())).toMatchObject({ type: 'withdraw', generation: 3 });
  });
});
