import { expect, it } from 'vitest';
import { servedSweepActor } from '#actors/served-sweep/actor.js';
import { hostId } from '#core/ids.js';
import { GridWorld, keys } from './grid-world.js';

it('deletes facts that no host refers to in two looks of the leader, and no others', async () => {
  const world = new GridWorld({ elections: true });
  const hosts = await world.startMany(2);
  const operator = world.store.client('operator');
  const put = async (key: string, value: unknown): Promise<void> => {
    const operations = [{ type: 'put', key, value: JSON.stringify(value) } as const];
    void operator.transact({ conditions: [], operations }, { deadlineMs: Infinity });
    await world.pass(100);
  };
  const left = (): readonly string[] =>
    world.store
      .entries()
      .map(({ key }) => key)
      .filter((key) => key.startsWith(keys.served))
      .map((key) => key.slice(keys.served.length));
  const [model, version, device] = ['m', '1', 'cpu:0'];
  const replica = { model, version, device, state: 'ready', reason: '', digest: '', memoryBytes: 0, deployment: '' };
  const replicas = [{ ...replica, facts: 'used' }];
  await put(keys.actual(hostId('a')), { format: 1, host: 'a', assignmentRevision: 0, replicas, degraded: {} });
  for (const name of ['old', 'touched', 'used']) await put(`${keys.served}${name}`, { of: name });
  for (const { system, store, election } of hosts) {
    if (election === undefined) throw new Error('there is no election');
    system.spawn('served-sweep', servedSweepActor({ store, keys, election, everyMs: 60_000 }));
  }
  await world.pass(70_000);
  expect(left()).toEqual(['old', 'touched', 'used']);
  await put(`${keys.served}touched`, { of: 'touched' });
  await world.pass(60_000);
  expect(left()).toEqual(['touched', 'used']);
  await world.pass(60_000);
  expect(left()).toEqual(['used']);
});
