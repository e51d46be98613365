/** What operators order of a real grid under load: no order may cost a request, and what cannot be done is refused whole. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Cluster, placedOn, type HostPlan } from './cluster.js';
import { fullOnly, isFull, stores, storesNote } from './extent.js';
import { LiveLoad } from './live-load.js';

const testMs = 240_000;
const hosts: readonly HostPlan[] = [
  { name: 'host-1' },
  { name: 'host-2' },
  // It has to get the model from the others.
  { name: 'host-3', hasRepository: false },
];

describe.skipIf(!isFull).each(stores)(`orders to a grid of three on the store %s${storesNote}${fullOnly}`, (store) => {
  let cluster: Cluster;
  const loads: LiveLoad[] = [];
  beforeAll(async () => {
    cluster = await Cluster.start({ store, hosts });
    await cluster.deploy();
  }, testMs);
  afterEach(async () => {
    for (const load of loads.splice(0)) await load.stop();
    await cluster.heal();
    await cluster.deploy();
  }, testMs);
  afterAll(() => cluster.end(), testMs);

  async function startLoads(): Promise<() => Promise<readonly string[]>> {
    const endpoints = cluster.hosts.map(({ grpc }) => grpc);
    const started = [
      await LiveLoad.start({ kind: 'client', endpoints }),
      await LiveLoad.start({ kind: 'stock', endpoints }),
    ];
    loads.push(...started);
    return async () => {
      await Promise.all(started.map((load) => load.more(200)));
      await Promise.all(started.map((load) => load.stop()));
      return started.flatMap((load) => load.failures);
    };
  }

  it(
    'a deployment that can never fit is refused with what each host has against it, and nothing is placed',
    async () => {
      const wanted = { name: 'huge', model: 'affine', version: '1', replicas: 2, memory: '1000 GiB' };
      const { applied, refusals } = await cluster.client.grid.deploy(JSON.stringify(wanted));
      expect(applied).toBe(false);
      expect(refusals.join()).toMatch(/host-1.*GiB/);
      const { deployments, replicas } = await cluster.status();
      expect(deployments.map(({ name }) => name)).toEqual(['affine']);
      expect(replicas.filter(({ deployment }) => deployment === 'huge')).toEqual([]);
    },
    testMs,
  );

  it(
    'a drain under load costs no request, and moves every copy to other hosts',
    async () => {
      const failures = await startLoads();
      const [name = ''] = await cluster.placed();
      await cluster.client.grid.order(name, 'drain', { reason: 'a test' });
      await cluster.until('two copies elsewhere', (status) => {
        const placed = placedOn(status);
        return placed.length === 2 && !placed.includes(name);
      });
      await cluster.client.grid.order(name, 'uncordon');
      expect(await failures()).toEqual([]);
    },
    testMs,
  );

  it(
    'a rolling update under load costs no request',
    async () => {
      const failures = await startLoads();
      await cluster.deploy({ version: '2' });
      await cluster.until('the old version to go', (status) => placedOn(status, '1').length === 0);
      const answer = await cluster.client.infer('affine', { x: [[1, 0, 0, 0]] });
      expect(answer.output().toArray()).toEqual([4, 1, 1, 1]);
      expect(await failures()).toEqual([]);
    },
    testMs,
  );

  it(
    'an update to a broken version goes back by itself, says why, and costs no request',
    async () => {
      const failures = await startLoads();
      cluster.breakVersion3();
      const wanted = {
        name: 'affine',
        model: 'affine',
        version: '3',
        replicas: 2,
        rollout: { surge: 1, progressSeconds: 5 },
      };
      const { applied, refusals } = await cluster.client.grid.deploy(JSON.stringify(wanted));
      expect([applied, refusals]).toEqual([true, []]);
      const status = await cluster.until('a rollback', ({ deployments }) =>
        deployments.some(({ state }) => state === 'rolled-back'),
      );
      expect(status.deployments[0]?.reason).not.toBe('');
      await cluster.until('two copies of before', (now) => placedOn(now, '1').length === 2);
      expect(await failures()).toEqual([]);
    },
    testMs,
  );

  it(
    'a host without a repository serves a model that others have',
    async () => {
      await cluster.client.grid.undeploy('affine');
      await cluster.until('nothing placed', (status) => placedOn(status).length === 0);
      await cluster.deploy({ replicas: 1, constraints: { hosts: ['host-3'] } });
      expect(await cluster.placed()).toEqual(['host-3']);
      // The others served their own repository meanwhile, all versions of it, and give it up once there is a copy.
      await cluster.until('the copy alone', ({ replicas }) => replicas.every(({ deployment }) => deployment !== ''));
      const answer = await cluster.client.infer('affine', { x: [[1, 0, 0, 0]] });
      expect(answer.output().toArray()).toEqual([3, 1, 1, 1]);
    },
    testMs,
  );
});
