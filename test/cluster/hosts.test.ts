/** Hosts of a real grid that die, stand still, stop or get slow while clients ask. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Cluster, namesOf, placedOn } from './cluster.js';
import { isFull, shortOnly, stores, storesNote } from './extent.js';
import { LiveLoad } from './live-load.js';
import { executorPids, metric, procThere } from '../e2e/running-host.js';

const standStillMs = isFull ? 30_000 : 3_000;
const testMs = 240_000;

describe.skipIf(!procThere).each(stores)(`of a grid of three on the store %s${storesNote}${shortOnly}`, (store) => {
  let cluster: Cluster;
  const loads: LiveLoad[] = [];
  beforeAll(async () => {
    cluster = await Cluster.start({ store });
    await cluster.deploy();
  }, testMs);
  afterEach(async () => {
    for (const load of loads.splice(0)) await load.stop();
    await cluster.heal();
    await cluster.untilDeployed();
  }, testMs);
  afterAll(() => cluster.end(), testMs);

  /** A client of all hosts, and a stock client of one. */
  async function startLoads(stockOf: string): Promise<() => Promise<readonly string[]>> {
    const endpoints = cluster.hosts.map(({ grpc }) => grpc);
    const started = [
      await LiveLoad.start({ kind: 'client', endpoints }),
      await LiveLoad.start({ kind: 'stock', endpoints: [cluster.host(stockOf).grpc] }),
    ];
    loads.push(...started);
    return async () => {
      // The load goes on for a while after the last thing that happened.
      await Promise.all(started.map((load) => load.more(200)));
      await Promise.all(started.map((load) => load.stop()));
      return started.flatMap((load) => load.failures);
    };
  }

  /** A host with a copy, and another host that will survive. */
  async function victim(): Promise<readonly [victim: string, survivor: string]> {
    const [name = ''] = await cluster.placed();
    return [name, cluster.hosts.find((host) => host.name !== name)?.name ?? ''];
  }

  it(
    'one that is killed under load costs no request, is gone from every view, and comes back',
    async () => {
      const [name, survivor] = await victim();
      const failures = await startLoads(survivor);
      await cluster.host(name).end('SIGKILL');
      await cluster.untilUp();
      // Its copy is made up for elsewhere.
      await cluster.until('two copies elsewhere', (status) => {
        const placed = placedOn(status);
        return placed.length === 2 && !placed.includes(name);
      });
      await cluster.host(name).start();
      await cluster.untilUp();
      expect(await failures()).toEqual([]);
    },
    testMs,
  );

  it(
    'one that stands still costs no request, is left out meanwhile, and serves again when it goes on',
    async () => {
      const [name, survivor] = await victim();
      const failures = await startLoads(survivor);
      const before = (await cluster.status(survivor)).hosts.find(({ host }) => host === name)?.generation ?? 0;
      cluster.host(name).signal('SIGSTOP');
      const stoppedMs = performance.now();
      await cluster.until('a view without it', (status) => !namesOf(status, 'up').includes(name), { host: survivor });
      const leftMs = standStillMs - (performance.now() - stoppedMs);
      if (leftMs > 0) await new Promise((resolve) => setTimeout(resolve, leftMs));
      cluster.host(name).signal('SIGCONT');
      await cluster.untilUp();
      if (isFull) {
        // Its lease has ended meanwhile.
        const after = (await cluster.status(survivor)).hosts.find(({ host }) => host === name)?.generation ?? 0;
        expect(after).toBeGreaterThan(before);
      }
      expect(await failures()).toEqual([]);
    },
    testMs,
  );

  it.skipIf(!isFull)(
    'one that is told to stop under load costs no request',
    async () => {
      const [name, survivor] = await victim();
      const failures = await startLoads(survivor);
      const { code } = await cluster.host(name).end('SIGTERM');
      expect(code).toBe(0);
      await cluster.untilUp();
      await cluster.untilDeployed();
      await cluster.host(name).start();
      await cluster.untilUp();
      expect(await failures()).toEqual([]);
    },
    testMs,
  );

  it.skipIf(!isFull)(
    'one whose executor is killed costs no request',
    async () => {
      const [name, survivor] = await victim();
      const failures = await startLoads(survivor);
      const { pid } = cluster.host(name).process;
      const [executor = 0] = executorPids(pid);
      process.kill(executor, 'SIGKILL');
      await cluster.until('another executor', () => {
        const [next = 0] = executorPids(pid);
        return next !== 0 && next !== executor;
      });
      await cluster.untilDeployed();
      expect(await failures()).toEqual([]);
    },
    testMs,
  );

  it.skipIf(!isFull)(
    'one whose device is ten times slower gets less to do, and no request fails',
    async () => {
      const [name, survivor] = await victim();
      const other = (await cluster.placed()).find((one) => one !== name) ?? '';
      const [executor = 0] = executorPids(cluster.host(name).process.pid);
      const slowed = slowDown(executor, 10);
      try {
        const failures = await startLoads(survivor);
        const served = (host: string): Promise<number> =>
          metric(cluster.host(host).process.metrics, 'nv_inference_request_success', 'model="affine"');
        // Until it shows: how soon depends on what else the machine does, since the copies compute next to nothing.
        for (let isLess = false; !isLess;) {
          const [slowBefore, fastBefore] = [await served(name), await served(other)];
          await Promise.all(loads.map((load) => load.more(500)));
          isLess = (await served(name)) - slowBefore < 0.8 * ((await served(other)) - fastBefore);
        }
        expect(await failures()).toEqual([]);
      } finally {
        slowed();
      }
    },
    testMs,
  );

  it.skipIf(!isFull)(
    'the controller that is killed during a rollout costs no request, and another one finishes the rollout',
    async () => {
      const leader = await cluster.leader();
      const survivor = cluster.hosts.find(({ name }) => name !== leader)?.name ?? '';
      const failures = await startLoads(survivor);
      const rollout = { name: 'affine', model: 'affine', version: '2', replicas: 2 };
      await cluster.client.grid.deploy(JSON.stringify(rollout));
      const begun = await cluster.until('the rollout', (status) =>
        status.replicas.some(({ version, deployment }) => version === '2' && deployment !== ''),
      );
      expect(begun.deployments[0]?.state).not.toBe('complete');
      await cluster.host(leader).end('SIGKILL');
      await cluster.until('another leader', (status) => status.leader !== leader && status.leader !== '');
      await cluster.untilDeployed('2');
      await cluster.host(leader).start();
      await cluster.untilUp();
      await cluster.deploy();
      expect(await failures()).toEqual([]);
    },
    testMs,
  );
});

/** Lets a process run one part in `times` of the time; what is given back ends that. */
function slowDown(pid: number, times: number): () => void {
  const turnMs = 20;
  let isOver = false;
  const turn = (): void => {
    if (isOver) return;
    process.kill(pid, 'SIGSTOP');
    setTimeout(
      () => {
        process.kill(pid, 'SIGCONT');
        if (!isOver) setTimeout(turn, turnMs / times);
      },
      turnMs * (1 - 1 / times),
    );
  };
  turn();
  return () => {
    isOver = true;
    process.kill(pid, 'SIGCONT');
  };
}
