import { expect, it } from 'vitest';
import { gridKeys } from '#core/grid/keys.js';
import { deviceId, hostId, modelName, modelVersion } from '#core/ids.js';
import type { Candidate, Picker } from '#core/picker.js';
import type { Replica } from '#core/replica.js';
import { emptyRoutingTable } from '#core/routing-table.js';
import { GridDesk } from '#server/grid-desk.js';
import { servedReplicas } from '#server/served-replicas.js';
import { PretendStore } from '#sim/pretend-store.js';
import { VirtualClock } from '#sim/virtual-clock.js';

const [model, version] = [modelName('m'), modelVersion('1')];
const candidate = (host: string, ready = true): Candidate => ({
  replica: {
    id: `${host}/cpu:0` as Replica['id'],
    model,
    version,
    stages: [{ host: hostId(host), device: deviceId('cpu:0') }] as unknown as Replica['stages'],
  },
  load: { itemsInFlight: 0, msPerItem: 0, ready },
});
const byVersion = (...candidates: readonly Candidate[]) => new Map([[model, new Map([[version, candidates]])]]);

it('tells what hosts serve while the store is away, from where requests go', async () => {
  const clock = new VirtualClock();
  const store = new PretendStore({ clock, latencyMs: [0, 0] });
  const table = {
    ...emptyRoutingTable({} as Picker),
    candidates: byVersion(candidate('b'), candidate('a')),
    reserve: byVersion(candidate('c', false)),
  };
  const desk = new GridDesk({
    grid: 'test',
    host: hostId('a'),
    store: store.client('a'),
    storeKind: 'pretended',
    keys: gridKeys('test'),
    clock,
    served: () => servedReplicas(table),
  });
  store.away();
  const asked = desk.status({ deadlineMs: 100 } as Parameters<GridDesk['status']>[0]);
  clock.runUntil(1_000);
  const { storeConnected, replicas } = await asked;
  expect(storeConnected).toBe(false);
  expect(replicas.map(({ host, device, state }) => [host, device, state])).toEqual([
    ['a', 'cpu:0', 'ready'],
    ['b', 'cpu:0', 'ready'],
    ['c', 'cpu:0', 'failed'],
  ]);
});
