import { describe, expect, it } from 'vitest';
import { LiveBook } from '#compose/live-book.js';
import type { Placement } from '#actors/device/protocol.js';
import type { DeviceDescriptor } from '#core/device.js';
import type { HostRecord, View, ViewHost } from '#core/grid/records.js';
import { spotHazardPrior } from '#core/hardware-profile-spot.js';
import { deviceId, hostId, modelName, modelVersion, replicaId, type ArtifactDigest } from '#core/ids.js';
import { ServiceTable } from '#core/profile/service-table.js';
import type { Replica } from '#core/replica.js';
import { deviceState, thermalHeadroom } from '#core/scheduling/device-news.js';
import { DispatchLedger } from '#core/scheduling/dispatch-ledger.js';
import { newDispatchCandidate, type DispatchCandidate } from '#core/scheduling/dispatch-view.js';
import { liveProfile } from '#core/scheduling/live-profile.js';
import { SpotWatch } from '#core/scheduling/spot-watch.js';
import { modelDigest, shardRecord } from '../profile/records.js';

const alpha = hostId('alpha');
const beta = hostId('beta');
const hourMs = 3_600_000;

function viewOf(...hosts: readonly Partial<Omit<ViewHost, 'record'> & HostRecord>[]): View {
  return {
    revision: 1,
    hosts: new Map(
      hosts.map(({ generation = 1, state = 'up', ...record }) => [
        record.host ?? beta,
        {
          record: { host: beta, zone: 'z', spot: true, devices: [], ...record } as HostRecord,
          generation,
          state,
          cordoned: false,
        },
      ]),
    ),
  };
}

function replicaOn(host: string, device = 'cpu:0'): Replica {
  const stages = [{ digest: modelDigest as ArtifactDigest, host: hostId(host), device: deviceId(device) }];
  return { id: replicaId(`m/1@${host}/${device}`), model: modelName('m'), version: modelVersion('1'), stages };
}

const own = {
  ...{ id: deviceId('cpu:0'), name: 'test-cpu', provider: 'cpu', threads: 1, memoryBytes: 1000 },
  price: { usdPerHour: 0.5, source: 'configured', origin: '' },
} as unknown as DeviceDescriptor;

const table = (...records: ReturnType<typeof shardRecord>[]) => new ServiceTable(records, { model: modelDigest });

describe('what is known of devices live', () => {
  it('is the hazard of a spot host: the prior at first, then what its zone has shown, and none of a host that stays', () => {
    const watch = new SpotWatch();
    expect(watch.hazardPerHour('z')).toBeCloseTo(spotHazardPrior.meanPerHour);
    watch.learn(viewOf({ host: beta }), 0);
    watch.learn(viewOf({ host: beta }), 1000 * hourMs);
    expect(watch.hazardPerHour('z')).toBeLessThan(0.003);
    expect(watch.hazardPerHour('elsewhere')).toBeCloseTo(spotHazardPrior.meanPerHour);

    const book = new LiveBook({ host: alpha, descriptors: [own], spotZone: undefined });
    const device = { id: deviceId('cpu:0'), provider: 'cpu', profile: '', pricePerHour: 0.1, memoryBytes: 5 } as never;
    book.learnView(
      viewOf({ host: beta, devices: [device] }, { host: hostId('gamma'), spot: false, devices: [device] }),
      0,
    );
    expect(book.device('beta/cpu:0').spotHazardPerHour).toBeCloseTo(0.3);
    expect(book.device('gamma/cpu:0').spotHazardPerHour).toBe(0);
    expect(book.device('alpha/cpu:0').spotHazardPerHour).toBe(0);
    const spotOwn = new LiveBook({ host: alpha, descriptors: [own], spotZone: 'z' });
    expect(spotOwn.device('alpha/cpu:0').spotHazardPerHour).toBeCloseTo(0.3);
  });

  it('counts a spot host that vanishes or comes back as another incarnation as lost, and one that drained first as none', () => {
    const hazardAfter = (...views: readonly View[]): number => {
      const watch = new SpotWatch();
      for (const [hour, view] of views.entries()) watch.learn(view, hour * hourMs);
      return watch.hazardPerHour('z');
    };
    const present = viewOf({ host: beta });
    const drained = hazardAfter(present, viewOf({ host: beta, state: 'draining' }), viewOf());
    const gone = hazardAfter(present, present, viewOf());
    const replaced = hazardAfter(present, present, viewOf({ host: beta, generation: 2 }));
    // Prior: 2 losses in 2 / 0.3 hours; then two hours, with one loss or none.
    expect(drained).toBeCloseTo(2 / (2 / 0.3 + 2));
    expect(gone).toBeCloseTo(3 / (2 / 0.3 + 2));
    expect(replaced).toBe(gone);
  });

  it('is how warm a device is and what memory it has left, by its last word', () => {
    expect([20, 50, 70, 90, 105].map(thermalHeadroom)).toEqual([1, 1, 0.5, 0, 0]);
    const load = { device: deviceId('cpu:0'), queued: 0, inFlight: 0, backlogMs: 0, degraded: '' };
    expect(deviceState({ ...load, temperatureC: 0 }, 7)).toEqual({ atMs: 7 });

    const book = new LiveBook({ host: alpha, descriptors: [own] });
    const ledger = new DispatchLedger({ book });
    const lane = ledger.laneOf(replicaOn('alpha'));
    const seen = (nowMs: number): DispatchCandidate => {
      const candidate = newDispatchCandidate();
      ledger.fill(lane, candidate, 1, 1, nowMs);
      return candidate;
    };
    expect(seen(0)).toMatchObject({ thermalHeadroom: 1, freeMemoryBytes: 1000, telemetryAgeMs: 0 });
    ledger.learn('alpha/cpu:0', deviceState({ ...load, temperatureC: 80, freeMemoryBytes: 400 }, 100), 100);
    ledger.learn('alpha/other', deviceState({ ...load, temperatureC: 1 }, 100), 100);
    expect(seen(150)).toMatchObject({ thermalHeadroom: 0.25, freeMemoryBytes: 400, telemetryAgeMs: 50 });
    // Work that answers have told of is not touched.
    expect(seen(150).workMs).toBe(0);
  });

  it('is the run time of the profile database: of this device, else of its silicon; not from small batches alone', () => {
    const here = [shardRecord([4]), shardRecord([10], { batch: 8 })];
    const sibling = shardRecord([6], { host: 'other', batch: 8 });
    const near = [
      { host: 'alpha', device: 'cpu:0' },
      { silicon: 'test-cpu', provider: 'cpu', threads: 1 },
    ];
    expect(liveProfile(table(...here, sibling), near, 8)?.profile).toEqual({ batches: [1, 8], ms: [4, 10], spread: 0 });
    expect(liveProfile(table(shardRecord([4]), sibling), near, 8)?.profile).toMatchObject({
      batches: [1, 8],
      ms: [4, 6],
    });
    expect(liveProfile(table(...here), near, 16)?.profile.batches).toEqual([1, 8]);
    expect(liveProfile(table(...here), near, 17)).toBeUndefined();
    expect(liveProfile(table(...here), [{ host: 'alpha', device: 'cpu:1' }], 8)).toBeUndefined();

    const book = new LiveBook({ host: alpha, descriptors: [own] });
    const { revision } = book;
    expect(book.replica(replicaOn('alpha')).profile).toBeUndefined();
    book.learnProfiles(new Map([[modelDigest, table(...here)]]));
    expect(book.revision).toBeGreaterThan(revision);
    expect(book.replica(replicaOn('alpha')).profile?.ms).toEqual([4, 10]);
    expect(
      book.replica({ ...replicaOn('alpha'), stages: [...replicaOn('alpha').stages, ...replicaOn('beta').stages] })
        .profile,
    ).toBeUndefined();
  });

  it('is asked by devices of this host for what they load: the exact model, and by its very bytes', () => {
    const book = new LiveBook({ host: alpha, descriptors: [own] });
    const placement = (change: object = {}): Placement =>
      ({
        ...{ config: { maxBatchSize: 8 }, artifact: { digest: modelDigest, path: '' } },
        ...change,
      }) as unknown as Placement;
    expect(book.ownProfile(own.id, placement())).toBeUndefined();
    book.learnProfiles(new Map([[modelDigest, table(shardRecord([4]), shardRecord([10], { batch: 8 }))]]));
    expect(book.ownProfile(own.id, placement())).toMatchObject({ batches: [1, 8], ms: [4, 10] });
    // What is taken in later is of other models.
    book.learnProfiles(new Map());
    expect(book.ownProfile(own.id, placement())).toBeDefined();
    expect(book.ownProfile(deviceId('wasm:0'), placement())).toBeUndefined();
    expect(book.ownProfile(own.id, placement({ variant: 'fp16' }))).toBeUndefined();
    expect(book.ownProfile(own.id, placement({ artifact: { digest: 'f'.repeat(64), path: '' } }))).toBeUndefined();
    expect(book.ownProfile(own.id, placement({ config: { maxBatchSize: 64 } }))).toBeUndefined();
  });

  it('counts as needed memory only what a run takes beyond the loaded model', () => {
    const near = [{ host: 'alpha', device: 'cpu:0' }];
    const need = (change: object) => liveProfile(table(shardRecord([4], change)), near, 1)?.needBytes;
    expect(need({ weightBytes: 100, peakActivationBytes: 90, loadedBytes: 150 })).toBe(40);
    expect(need({ weightBytes: 100, peakActivationBytes: 20, loadedBytes: 150 })).toBe(0);
    expect(need({ weightBytes: 100, peakActivationBytes: 20, loadedBytes: 0 })).toBe(0);
  });

  it('reaches a ledger that has the replica already when the profile comes', () => {
    const book = new LiveBook({ host: alpha, descriptors: [own] });
    const ledger = new DispatchLedger({ book });
    const replica = replicaOn('alpha');
    const lane = ledger.laneOf(replica);
    expect(lane.runs.known).toBe(false);
    book.learnProfiles(new Map([[modelDigest, table(shardRecord([4]))]]));
    ledger.keepOnly([replica]);
    expect(lane.runs.at(1)).toBe(4);
  });
});
