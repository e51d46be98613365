import { describe, expect, it } from 'vitest';
import type { Catalog, ServedModel } from '#core/catalog.js';
import { deviceId, hostId, modelName, modelVersion } from '#core/ids.js';
import type { Picker } from '#core/picker.js';
import {
  ReplicaLoads,
  beginOnReplica,
  candidatesOf,
  deviceKey,
  emptyRoutingTable,
  finishOnReplica,
} from '#core/routing-table.js';

const host = hostId('h');
const m = modelName('m');
const v1 = modelVersion('1');
const picker = { policy: 'none', pick: () => -1 } satisfies Picker;

function catalog(...devices: string[]): Catalog {
  const served = { digest: 'd', devices: devices.map((id) => deviceId(id)) } as unknown as ServedModel;
  return {
    revision: 1,
    models: new Map([[m, { name: m, versions: [], served: new Map([[v1, served]]), reason: '' }]]),
  };
}

describe('the routing table', () => {
  it('holds a candidate for each device a version is loaded on, in order of preference', () => {
    const table = new ReplicaLoads().table({ catalog: catalog('cuda:0', 'cpu:0'), host, picker });
    expect(candidatesOf(table, m, v1).map(({ replica }) => [replica.id, replica.stages[0]?.device])).toEqual([
      ['m/1@h/cuda:0', 'cuda:0'],
      ['m/1@h/cpu:0', 'cpu:0'],
    ]);
    expect(candidatesOf(table, m, modelVersion('2'))).toEqual([]);
    expect(candidatesOf(emptyRoutingTable(picker), m, v1)).toEqual([]);
  });

  it('does not forget what is in flight when a new table is published', () => {
    const loads = new ReplicaLoads();
    const first = candidatesOf(loads.table({ catalog: catalog('cpu:0'), host, picker }), m, v1)[0]!;
    beginOnReplica(first.load, 3);
    loads.table({ catalog: catalog('cuda:0'), host, picker });
    const again = candidatesOf(loads.table({ catalog: catalog('cuda:0', 'cpu:0'), host, picker }), m, v1)[1]!;
    expect(again.load).toBe(first.load);
    finishOnReplica(again.load, 3, 2);
    finishOnReplica(again.load, 0, 4);
    expect(again.load).toEqual({ itemsInFlight: 0, msPerItem: 2.2, ready: true });
  });

  it('shows a device that takes no requests on every replica, those to come included', () => {
    const loads = new ReplicaLoads();
    const before = loads.table({ catalog: catalog('cpu:0'), host, picker });
    loads.setReady(deviceKey(host, deviceId('cpu:0')), false);
    const after = loads.table({ catalog: catalog('cpu:0', 'cuda:0'), host, picker });
    expect(candidatesOf(before, m, v1).map(({ load }) => load.ready)).toEqual([false]);
    expect(candidatesOf(after, m, v1).map(({ load }) => load.ready)).toEqual([false, true]);
    loads.setReady(deviceKey(host, deviceId('cpu:0')), true);
    expect(candidatesOf(after, m, v1).map(({ load }) => load.ready)).toEqual([true, true]);
  });
});
