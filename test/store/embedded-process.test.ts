import { execFile } from 'node:child_process';
import { appendFileSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { NodeClock } from '#adapters/node/clock.js';
import { EtcdStore } from '#adapters/etcd/etcd-store.js';
import { gridKeys } from '#core/grid/keys.js';
import { hostId } from '#core/ids.js';
import { etcdctlBinary, isWithoutEtcd, isWithoutEtcdctl, StoreProcess } from './real-stores.js';

const clock = new NodeClock();
const soon = (): { readonly deadlineMs: number } => ({ deadlineMs: clock.nowMs() + 10_000 });
let running: StoreProcess;
let clients: EtcdStore[];
const open = (password?: string): EtcdStore => {
  const auth = password === undefined ? {} : { auth: { username: 'grid', password } };
  const client = new EtcdStore({ endpoints: [running.endpoint], clock, ...auth });
  clients.push(client);
  return client;
};
const put = (store: EtcdStore, key: string, value: string): Promise<unknown> =>
  store.transact({ conditions: [], operations: [{ type: 'put', key, value }] }, soon());

beforeEach(() => {
  clients = [];
});
afterEach(async () => {
  for (const client of clients) await client.close();
  await running.end();
});

describe('embedded store as a process', () => {
  it('has lost nothing that it acknowledged when it is killed between writes', async () => {
    running = await StoreProcess.make('embedded');
    let next = 0;
    const acknowledged = new Set<string>();
    for (let round = 0; round < 4; round += 1) {
      const store = open();
      await store.get('any', soon());
      let alive = true;
      const writer = async (): Promise<void> => {
        while (alive) {
          const key = `k${next++}`;
          await put(store, key, 'x').then(
            () => acknowledged.add(key),
            () => {
              alive = false;
            },
          );
        }
      };
      const writers = Array.from({ length: 8 }, writer);
      const enough = acknowledged.size + 100;
      while (acknowledged.size < enough) await new Promise((resolve) => setImmediate(resolve));
      await running.stop('SIGKILL');
      await Promise.all(writers);
      await store.close();
      await running.start();
    }
    const snapshot = await open().range('k', soon());
    const present = new Set(snapshot.entries.map((entry) => entry.key));
    expect(acknowledged.size).toBeGreaterThanOrEqual(400);
    expect([...acknowledged].filter((key) => !present.has(key))).toEqual([]);
  });

  it('cuts off a torn end and keeps everything before it', async () => {
    running = await StoreProcess.make('embedded');
    const store = open();
    await put(store, 'a', '1');
    await running.stop('SIGKILL');
    const file = join(running.folder, 'store.log');
    const whole = statSync(file).size;
    appendFileSync(file, readFileSync(file).subarray(0, 5));
    await running.start();
    await expect.poll(() => statSync(file).size).toBe(whole);
    expect((await open().get('a', soon())).entry?.value).toBe('1');
  });

  it('refuses a file that is damaged before whole records', async () => {
    running = await StoreProcess.make('embedded');
    const store = open();
    await put(store, 'a', '1');
    await put(store, 'b', '2');
    await running.stop();
    const file = join(running.folder, 'store.log');
    const bytes = readFileSync(file);
    bytes[12] = (bytes[12] ?? 0) ^ 1;
    writeFileSync(file, bytes);
    await expect(running.start()).rejects.toThrow('is damaged at byte 0');
    truncateSync(file, 0);
  });

  it('lets no client in without its token', async () => {
    running = await StoreProcess.make('embedded', { INTARSIA_STORE_TOKEN: 'secret' });
    await put(open('secret'), 'a', '1');
    await expect(open('wrong').get('a', soon())).rejects.toThrow('refuses this client');
    await expect(open().get('a', soon())).rejects.toThrow('refuses this client');
  });

  it.skipIf(isWithoutEtcdctl)('does what etcdctl asks (skipped where Debian etcd-client is absent)', async () => {
    running = await StoreProcess.make('embedded');
    const control = async (...args: string[]): Promise<string[]> => {
      const result = promisify(execFile)(etcdctlBinary, ['--endpoints', running.endpoint, ...args], {
        env: { ...process.env, ETCDCTL_API: '3' },
      });
      return (await result).stdout.trim().split('\n');
    };
    expect(await control('put', 'p/a', '1')).toEqual(['OK']);
    expect(await control('put', 'p/b', '2')).toEqual(['OK']);
    expect(await control('get', '--prefix', 'p/')).toEqual(['p/a', '1', 'p/b', '2']);
    expect(
      await control('get', '--prefix', 'p/', '--keys-only', '--order=DESCEND', '--sort-by=KEY', '--limit=1'),
    ).toEqual(['p/b']);
    expect(await control('get', '--from-key', 'p/b', '--print-value-only')).toEqual(['2']);
    expect(await control('del', '--prev-kv', 'p/a')).toEqual(['1', 'p/a', '1']);
    const [granted] = await control('lease', 'grant', '60');
    const lease = /lease (\w+) granted with TTL\(60s\)/.exec(granted ?? '')?.[1] ?? '';
    expect(await control('put', '--lease', lease, 'mine', 'x')).toEqual(['OK']);
    expect((await control('lease', 'timetolive', lease, '--keys'))[0]).toContain('attached keys([mine])');
    expect(await control('lease', 'keep-alive', '--once', lease)).toEqual([`lease ${lease} keepalived with TTL(60)`]);
    expect(await control('lease', 'list')).toEqual(['found 1 leases', lease]);
    expect(await control('lease', 'revoke', lease)).toEqual([`lease ${lease} revoked`]);
    expect(await control('get', 'mine')).toEqual(['']);
    expect((await control('endpoint', 'status'))[0]).toContain(running.endpoint);
    expect((await control('member', 'list'))[0]).toContain('started, embedded');
    expect(await control('get', 'p/b', '-w', 'fields')).toContain('"Key" : "p/b"');
    const watching = promisify(execFile)(
      'timeout',
      ['5', etcdctlBinary, '--endpoints', running.endpoint, 'watch', '--prefix', '--rev=1', 'p/'],
      { env: { ...process.env, ETCDCTL_API: '3' } },
    ).catch((error: unknown) => error as { readonly stdout: string });
    expect((await watching).stdout.trim().split('\n')).toEqual(['PUT', 'p/a', '1', 'PUT', 'p/b', '2', 'DELETE', 'p/a']);
    const txn = promisify(execFile)(
      'sh',
      [
        '-c',
        `printf 'value("p/b") = "2"\\n\\nput p/c 3\\n\\nput p/d 4\\n\\n' | ${etcdctlBinary} --endpoints ${running.endpoint} txn`,
      ],
      { env: { ...process.env, ETCDCTL_API: '3' } },
    );
    expect((await txn).stdout).toContain('SUCCESS');
    expect(await control('get', '--prefix', 'p/', '--keys-only')).toEqual(['p/b', '', 'p/c']);
  });

  it.skipIf(isWithoutEtcdctl || isWithoutEtcd)(
    'is left for etcd by the commands of docs/store.md: all that operators wrote is there, byte by byte (skipped without etcd)',
    { timeout: 120_000 },
    async () => {
      const document = readFileSync(new URL('../../docs/store.md', import.meta.url), 'utf8');
      const moving = document.slice(document.indexOf('## Moving to etcd'));
      const script = /^ {7}for [^]+?^ {7}done$/m.exec(moving)?.[0] ?? '';
      const keys = gridKeys('default');
      const host = hostId('host-1');
      const kept = new Map([
        [keys.deployment('digits'), '{"name":"digits"}'],
        [keys.model('digits', '1'), '{"files":[]}'],
        [keys.verification('digits', '1', '0123456789'), '{"verdict":"equal"}'],
        [keys.order(host), '{"cordoned":true}'],
        [keys.policyPointer, '{"number":1}'],
        [keys.policyVersion('a'), '{"id":"a"}'],
        [keys.policyArtifact('a'), 'QUJD'.repeat(50_000)],
        [keys.policyBatching('a'), 'REVG'],
      ]);
      running = await StoreProcess.make('embedded');
      const store = open();
      for (const [key, value] of kept) await put(store, key, value);
      for (const key of [keys.host(host), keys.leader, keys.actual(host)]) await put(store, key, '{"of":"a process"}');
      const etcd = await StoreProcess.make('etcd');
      try {
        const words = { OLD: running.endpoint, NEW: etcd.endpoint, GRID: 'default', etcdctl: etcdctlBinary };
        const filled = script.replaceAll(/OLD|NEW|GRID|etcdctl/g, (word) => words[word as keyof typeof words]);
        await promisify(execFile)('sh', ['-c', filled], { env: { ...process.env, ETCDCTL_API: '3' } });
        const client = new EtcdStore({ endpoints: [etcd.endpoint], clock });
        clients.push(client);
        const { entries } = await client.range(keys.prefix, soon());
        expect(new Map(entries.map(({ key, value }) => [key, value]))).toEqual(kept);
      } finally {
        await etcd.end();
      }
    },
  );
});
