import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readProfileRecord, readProfileSnapshot } from '#core/profile/profile-check.js';
import { isExpired, mergeRecords, withSnapshots } from '#core/profile/profile-merge.js';
import { LinkTable, ServiceTable } from '#core/profile/service-table.js';
import { linkRecord, modelDigest, newYearMs, nodesRecord, shardRecord } from './records.js';

const dayMs = 86_400_000;
const host = { host: 'alpha', device: '' };
const cpu = { host: 'alpha', device: 'cpu:0' };

describe('merging records', () => {
  it('adds up times of the same key and keeps every other key apart', () => {
    const batches = fc.array(fc.record({ batch: fc.integer({ min: 1, max: 3 }), ms: fc.integer({ min: 1, max: 50 }) }));
    fc.assert(
      fc.property(batches, (runs) => {
        const merged = mergeRecords(runs.map(({ batch, ms }) => shardRecord([ms], { batch })));
        for (const batch of [1, 2, 3]) {
          const times = runs.filter((run) => run.batch === batch).map(({ ms }) => ms);
          const found = merged.filter((record) => record.type === 'shard' && record.batch === batch);
          expect(found.length).toBe(times.length === 0 ? 0 : 1);
          const [record] = found;
          if (record?.type !== 'shard') continue;
          expect(record.times.count).toBe(times.length);
          expect(record.times.sumMs).toBeCloseTo(
            times.reduce((sum, ms) => sum + ms, 0),
            6,
          );
        }
      }),
    );
  });

  it('never mixes engines, precisions, threads, devices, or what was profiled with what was served', () => {
    const kinds = [
      shardRecord([1]),
      shardRecord([1], { engine: 'onnxruntime-node 1.31.0' }),
      shardRecord([1], { precision: 'fp16' }),
      shardRecord([1], { threads: 2 }),
      shardRecord([1], { device: 'cpu:1' }),
      shardRecord([1], { source: 'served' }),
      shardRecord([1], { from: 1 }),
    ];
    expect(mergeRecords([...kinds, ...kinds])).toHaveLength(kinds.length);
  });

  it('takes the newest profile of nodes and the newest sizes', () => {
    const older = nodesRecord([1, 2]);
    const newer = nodesRecord([3, 4], { atMs: newYearMs + 1 });
    expect(mergeRecords([newer, older])).toEqual([newer]);
    const [shard] = mergeRecords([shardRecord([1], { weightBytes: 7, atMs: newYearMs + 1 }), shardRecord([3])]);
    expect(shard).toMatchObject({ weightBytes: 7, times: { count: 2, sumMs: 4 } });
  });

  it('lets measurements expire: links after 7 days, served after 14, profiled after 90', () => {
    const after = (days: number): number => newYearMs + days * dayMs + 1;
    expect([isExpired(linkRecord(1, [1]), after(6)), isExpired(linkRecord(1, [1]), after(7))]).toEqual([false, true]);
    const served = shardRecord([1], { source: 'served' });
    expect([isExpired(served, after(13)), isExpired(served, after(14))]).toEqual([false, true]);
    expect([isExpired(shardRecord([1]), after(89)), isExpired(shardRecord([1]), after(90))]).toEqual([false, true]);
  });

  it('counts a snapshot only of a host that has no records of its own here', () => {
    const own = [shardRecord([1])];
    const foreign = shardRecord([2], { host: 'beta' });
    const copy = { host: 'alpha', records: [shardRecord([1])] };
    expect(withSnapshots(own, [copy, { host: 'beta', records: [foreign] }])).toEqual([...own, foreign]);
  });
});

describe('the service table', () => {
  it('answers with what was measured, and with nothing where nothing was', () => {
    const table = new ServiceTable(
      [
        shardRecord([2, 4]),
        shardRecord([10, 10], { batch: 8 }),
        shardRecord([1], { to: 5 }),
        shardRecord([9], { model: 'cd'.repeat(32) }),
        shardRecord([7], { device: 'wasm:0', provider: 'wasm' }),
      ],
      { model: modelDigest },
    );
    const whole = { from: 0, to: 10 };
    expect(table.nodes).toBe(10);
    expect(table.batches({ provider: 'cpu' }, whole)).toEqual([1, 8]);
    expect(table.ms({ device: 'cpu:0' }, whole, 1)).toBe(3);
    expect(table.ms({ device: 'cpu:0' }, whole, 4)).toBeUndefined();
    expect(table.ms({ device: 'wasm:0' }, whole, 1)).toBe(7);
    expect([...table.wholeMs({ provider: 'cpu' })]).toEqual([
      [1, 3],
      [8, 10],
    ]);
    expect(table.devices().map(({ device }) => device)).toEqual(['cpu:0', 'wasm:0']);
    expect(table.measured({ provider: 'cpu' })).toMatchObject([
      { from: 0, to: 5, batch: 1, ms: 1, relativeError: 1 },
      { from: 0, to: 10, batch: 1 },
      { from: 0, to: 10, batch: 8, ms: 10, relativeError: 0 },
    ]);
  });

  it('prefers what was asked for, and production only once it has 50 runs', () => {
    const profiled = shardRecord([4]);
    const served = (runs: number): ReturnType<typeof shardRecord> =>
      shardRecord(new Array<number>(runs).fill(8), { source: 'served' });
    const ask = (runs: number, prefer: 'profiled' | 'served'): number | undefined =>
      new ServiceTable([profiled, served(runs)], { model: modelDigest, prefer }).ms({}, { from: 0, to: 10 }, 1);
    expect([ask(49, 'served'), ask(50, 'served'), ask(50, 'profiled')]).toEqual([4, 8, 4]);
    const only = new ServiceTable([served(1)], { model: modelDigest });
    expect(only.cell({}, { from: 0, to: 10 }, 1)).toMatchObject({ source: 'served', meanMs: 8 });
  });

  it('adds up equal silicon of several hosts unless one is asked for', () => {
    const table = new ServiceTable([shardRecord([2]), shardRecord([4], { host: 'beta' })], { model: modelDigest });
    const whole = { from: 0, to: 10 };
    expect(table.ms({ silicon: 'test-cpu' }, whole, 1)).toBe(3);
    expect(table.ms({ silicon: 'test-cpu', host: 'beta' }, whole, 1)).toBe(4);
  });

  it('gives the newest times of nodes', () => {
    const newer = nodesRecord([3, 4], { atMs: newYearMs + 1, device: 'cpu:1' });
    const table = new ServiceTable([newer, nodesRecord([1, 2])], { model: modelDigest });
    expect(table.nodeMs({}, 1)?.nodeMs).toEqual([3, 4]);
    expect(table.nodeMs({ device: 'cpu:0' }, 1)?.nodeMs).toEqual([1, 2]);
    expect(table.nodeMs({}, 2)).toBeUndefined();
  });
});

describe('the link table', () => {
  it('gives measured sizes as they are, lines between them, and the slope beyond', () => {
    const table = new LinkTable([
      linkRecord(0, [1, 1]),
      linkRecord(1000, [2, 2]),
      linkRecord(3000, [8, 8]),
      linkRecord(3000, [8]),
    ]);
    expect(table.rows(host, cpu).map(({ bytes, count }) => [bytes, count])).toEqual([
      [0, 2],
      [1000, 2],
      [3000, 3],
    ]);
    expect([0, 500, 1000, 2000, 3000].map((bytes) => table.ms(host, cpu, bytes))).toEqual([1, 1.5, 2, 5, 8]);
    expect(table.ms(host, cpu, 6000)).toBeCloseTo(15, 9);
    expect(table.figures(host, cpu)).toMatchObject({ fixedMs: 1, roundTripMs: 2, count: 7 });
    expect(table.figures(host, cpu)?.msPerByte).toBeCloseTo(7 / 3000, 12);
    expect(table.figures(cpu, host)).toBeUndefined();
    expect(table.ms(cpu, host, 1)).toBeUndefined();
    expect(table.links()).toEqual([{ from: host, to: cpu }]);
  });
});

describe('records from outside', () => {
  it('are taken as they were written and in no other way', () => {
    const good = [shardRecord([1, 2]), nodesRecord([1, 0]), linkRecord(8, [1])];
    for (const record of good) expect(readProfileRecord(JSON.parse(JSON.stringify(record)))).toEqual(record);
    const bad: readonly unknown[] = [
      null,
      [],
      'shard',
      { ...shardRecord([1]), schema: 2 },
      { ...shardRecord([1]), model: 'short' },
      { ...shardRecord([1]), from: 10 },
      { ...shardRecord([1]), to: 11 },
      { ...shardRecord([1]), batch: 0 },
      { ...shardRecord([1]), atMs: Number.NaN },
      { ...shardRecord([1]), weightBytes: -1 },
      { ...shardRecord([1]), host: 'x'.repeat(1000) },
      { ...shardRecord([1]), times: { ...shardRecord([1]).times, count: 2 } },
      { ...shardRecord([1]), times: { ...shardRecord([1]).times, classes: [[0, 1, 2]] } },
      { ...nodesRecord([1]), nodeMs: [1, 2] },
      { ...nodesRecord([1]), nodeMs: ['1'] },
      { ...linkRecord(1, [1]), from: { host: 'a' } },
      { ...linkRecord(1, [1]), type: 'rumour' },
    ];
    for (const value of bad) expect(readProfileRecord(value)).toBeUndefined();
  });

  it('of a snapshot are all of its host and its model, or none counts', () => {
    const snapshot = { host: 'alpha', model: modelDigest, atMs: 1, records: [shardRecord([1]), linkRecord(1, [1])] };
    expect(readProfileSnapshot(snapshot)).toEqual(snapshot);
    expect(readProfileSnapshot({ ...snapshot, host: 'beta' })).toBeUndefined();
    expect(readProfileSnapshot({ ...snapshot, model: 'cd'.repeat(32) })).toBeUndefined();
    expect(readProfileSnapshot({ ...snapshot, records: [{}] })).toBeUndefined();
  });
});
