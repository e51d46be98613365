/** The store of a real grid goes away, dies or forgets everything while clients ask: the grid serves on. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cluster } from './cluster.js';
import { fullOnly, isFull, stores, storesNote } from './extent.js';
import { LiveLoad } from './live-load.js';

const awayMs = 120_000;
const testMs = 300_000;

describe.skipIf(!isFull).each(stores)(`the store of a grid of three: %s${storesNote}${fullOnly}`, (store) => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await Cluster.start({ store });
    await cluster.deploy();
  }, testMs);
  afterAll(() => cluster.end(), testMs);

  async function startLoad(): Promise<LiveLoad> {
    return LiveLoad.start({ kind: 'client', endpoints: cluster.hosts.map(({ grpc }) => grpc) });
  }
  /** Of the deployment nothing is known while the store is away; what hosts serve is. */
  const servedOn = async (): Promise<readonly string[]> =>
    (await cluster.status()).replicas
      .filter(({ model, state }) => model === 'affine' && state === 'ready')
      .map(({ host, version }) => `${host} ${version}`)
      .sort();
  const generations = async (): Promise<readonly number[]> =>
    (await cluster.status()).hosts.map(({ generation }) => generation);

  it(
    'is killed and started again: no request fails, and what it knew it knows again',
    async () => {
      const load = await startLoad();
      await cluster.stopStore('SIGKILL');
      await cluster.until('a grid that knows', ({ storeConnected }) => !storeConnected);
      await load.more(500);
      await cluster.startStore();
      await cluster.until('the store is back', ({ storeConnected }) => storeConnected);
      await cluster.untilUp();
      await cluster.untilDeployed();
      await load.stop();
      expect(load.failures).toEqual([]);
    },
    testMs,
  );

  it(
    'is away for two minutes: no request fails, nothing moves, and hosts are there again with the store',
    async () => {
      const load = await startLoad();
      const served = await servedOn();
      await cluster.stopStore();
      const endMs = performance.now() + awayMs;
      // All of the time, not only at its end.
      while (performance.now() < endMs) {
        await load.more(200);
        expect(load.failures).toEqual([]);
        expect(await servedOn()).toEqual(served);
      }
      await cluster.startStore();
      await cluster.until('the store is back', ({ storeConnected }) => storeConnected);
      await cluster.untilUp();
      await cluster.untilDeployed();
      await load.more(500);
      await load.stop();
      expect(load.failures).toEqual([]);
      expect(await servedOn()).toEqual(served);
    },
    testMs,
  );

  it(
    'is wiped: no request fails, hosts register as new generations, and a deployment is placed again when it is made again',
    async () => {
      const load = await startLoad();
      await cluster.stopStore('SIGKILL');
      cluster.store.wipe();
      await cluster.startStore();
      await cluster.until('the store is back', ({ storeConnected }) => storeConnected);
      await cluster.untilUp();
      expect((await generations()).every((generation) => generation > 0)).toBe(true);
      await load.more(500);
      await cluster.deploy();
      await load.more(500);
      await load.stop();
      expect(load.failures).toEqual([]);
    },
    testMs,
  );
});
