/** Bad networks between hosts of a real grid: cut, slow, lossy. */
import { afterAll, describe, expect, it } from 'vitest';
import { BadPath } from './bad-path.js';
import { Cluster, namesOf, threeHosts, type HostPlan } from './cluster.js';
import { fullOnly, isFull, stores, storesNote } from './extent.js';
import { LiveLoad } from './live-load.js';
import { makeNamespace } from './namespace.js';

const testMs = 240_000;
const namespace = isFull ? makeNamespace() : undefined;
const why = namespace === undefined && isFull ? ' (skipped: network namespaces need root on Linux)' : fullOnly;
afterAll(() => namespace?.remove());

describe.skipIf(namespace === undefined).each(stores)(`a cable between hosts, store %s${storesNote}${why}`, (store) => {
  it(
    'that is pulled cuts a host off: no client of the others fails, and the host is back when it is plugged',
    async () => {
      if (namespace === undefined) throw new Error('there is no namespace');
      const { outside, inside, within, pull, plug } = namespace;
      const hosts: readonly HostPlan[] = [
        { name: 'host-1', address: outside },
        { name: 'host-2', address: outside },
        { name: 'host-3', address: inside, within },
      ];
      const args = ['--allow-plaintext'];
      const cluster = await Cluster.start({ store, hosts, args, storeListens: outside });
      try {
        await cluster.deploy({ constraints: { hosts: ['host-2', 'host-3'] } });
        const load = await LiveLoad.start({ kind: 'client', endpoints: cluster.hosts.map(({ grpc }) => grpc) });
        const stock = await LiveLoad.start({ kind: 'stock', endpoints: [cluster.host('host-1').grpc] });
        pull();
        await cluster.until('a view without it', (status) => namesOf(status, 'up').join() === 'host-1,host-2', {
          host: 'host-1',
        });
        await Promise.all([load.more(500), stock.more(500)]);
        plug();
        await cluster.untilUp();
        await cluster.untilDeployed();
        await Promise.all([load.more(500), stock.more(500)]);
        await Promise.all([load.stop(), stock.stop()]);
        expect([...load.failures, ...stock.failures]).toEqual([]);
      } finally {
        plug();
        await cluster.end();
      }
    },
    testMs,
  );
});

describe.skipIf(!isFull).each(stores)(`paths between hosts that are bad, store %s${storesNote}${fullOnly}`, (store) => {
  it(
    'of 200 ms and with losses cost no request, and accuse no host for good',
    async () => {
      const hosts = threeHosts.map(({ name }, index): HostPlan => ({
        name,
        address: `127.0.1.${index + 1}`,
        advertised: `127.0.2.${index + 1}`,
      }));
      const paths: BadPath[] = [];
      const badness = { delayMs: 0, lossPercent: 0, stallMs: 200 };
      const cluster = await Cluster.start({
        store,
        hosts,
        args: ['--allow-plaintext'],
        before: async (planned) => {
          for (const { plan, ports } of planned) {
            for (const port of [ports.link, ports.grpc]) {
              const target = { address: plan.address ?? '', port };
              const listen = { address: plan.advertised ?? '', port };
              // Clients come in over a good path: it is the links that are bad.
              const own = port === ports.link ? badness : { delayMs: 0, lossPercent: 0, stallMs: 0 };
              paths.push(await BadPath.start({ listen, target }, own));
            }
          }
        },
      });
      try {
        await cluster.deploy({ constraints: { hosts: ['host-2', 'host-3'] } });
        // The stock client's host has no copy: each of its requests crosses a bad path.
        const stock = await LiveLoad.start({ kind: 'stock', endpoints: [cluster.host('host-1').grpc] });
        const load = await LiveLoad.start({ kind: 'client', endpoints: cluster.hosts.map(({ grpc }) => grpc) });
        badness.delayMs = 200;
        await Promise.all([load.more(1_000), stock.more(1_000)]);
        badness.delayMs = 20;
        badness.lossPercent = 5;
        await Promise.all([load.more(1_000), stock.more(1_000)]);
        badness.delayMs = 0;
        badness.lossPercent = 0;
        await cluster.untilUp();
        await Promise.all([load.more(200), stock.more(200)]);
        await Promise.all([load.stop(), stock.stop()]);
        expect([...load.failures, ...stock.failures]).toEqual([]);
        expect(paths.reduce((sum, { stalled }) => sum + stalled, 0)).toBeGreaterThan(10);
      } finally {
        await cluster.end();
        for (const path of paths) await path.close();
      }
    },
    testMs,
  );
});
