/** Processes that must not become part of a real grid: each is told why, and the grid does not suffer. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { initAuthority, issueFromFolder } from '#adapters/certificates/certificate-files.js';
import { connect, type InferenceClient } from '#client/index.js';
import { hostId } from '#core/ids.js';
import { affine, writeInto } from '../e2e/faulty-models.js';
import { runProgram, startHostProcess, type HostProcess, type ProgramResult } from '../e2e/host-process.js';
import { startRealHost, waitUntil } from '../links/real-host.js';
import { StoreProcess } from '../store/real-stores.js';
import type { StoreKind } from './cluster.js';
import { fullOnly, isFull, shortOnly, stores, storesNote } from './extent.js';

const testMs = 180_000;
const dayMs = 86_400_000;
const folder = mkdtempSync(join(tmpdir(), 'intarsia-joining-'));
const repository = join(folder, 'models');
writeInto(repository, { 'affine/1/model.onnx': affine() });
writeFileSync(join(folder, 'token'), 'a secret of the grid that is long enough\n');
writeFileSync(join(folder, 'wrong'), 'a secret of some other grid, as long as it\n');
afterAll(() => rm(folder, { recursive: true, force: true }));

const common = ['--repository', repository, '--device', 'cpu', '--cpu-threads', '1', '--lease-ms', '3000'];

/** A host that begins a grid, with an embedded store of its own or with etcd, and who else tries to get in. */
class FirstHost {
  readonly process: HostProcess;
  readonly client: InferenceClient;
  /** How others say where the store is. */
  readonly store: readonly string[];
  readonly link: string;
  readonly #etcd: StoreProcess | undefined;

  private constructor(parts: Pick<FirstHost, 'process' | 'client' | 'store' | 'link'>, etcd: StoreProcess | undefined) {
    this.process = parts.process;
    this.client = parts.client;
    this.store = parts.store;
    this.link = parts.link;
    this.#etcd = etcd;
  }

  static async start(kind: StoreKind, args: readonly string[]): Promise<FirstHost> {
    const etcd = kind === 'etcd' ? await StoreProcess.make('etcd') : undefined;
    const own = etcd === undefined ? ['--store-port', '0'] : ['--etcd', etcd.endpoint];
    const process = await startHostProcess([...common, '--name', 'first', '--link-port', '0', ...own, ...args]);
    const client = connect({ endpoints: process.grpc });
    const { store, hosts } = await client.grid.status();
    const embedded = /embedded at (?:https:\/\/)?(\S+)/.exec(store)?.[1] ?? '';
    const link = hosts[0]?.linkAddress ?? '';
    return new FirstHost({ process, client, link, store: etcd === undefined ? ['--join', embedded] : own }, etcd);
  }

  /** Another process that tries to join; it must end by itself. */
  join(name: string, args: readonly string[]): Promise<ProgramResult> {
    const ports = ['--http-port', '0', '--grpc-port', '0', '--metrics-port', '0', '--link-port', '0'];
    const wanted = ['serve', '--json', ...ports, ...common, '--name', name, ...this.store, ...args];
    return runProgram(wanted, { timeoutMs: testMs });
  }

  async expectUnharmed(): Promise<void> {
    const { hosts } = await this.client.grid.status();
    expect(hosts.map(({ host, state }) => [host, state])).toEqual([['first', 'up']]);
    const answer = await this.client.infer('affine', { x: [[1, 2, 3, 4]] });
    expect(answer.output().toArray()).toEqual([3, 5, 7, 9]);
  }

  async end(): Promise<void> {
    this.client.close();
    await this.process.stop('SIGTERM');
    await this.#etcd?.end();
  }
}

describe.each(stores)(`a grid with a token, store %s, lets no stranger in${storesNote}${shortOnly}`, (store) => {
  let first: FirstHost;
  beforeAll(async () => {
    first = await FirstHost.start(store, ['--join-token-file', join(folder, 'token')]);
  }, testMs);
  afterAll(() => first.end(), testMs);

  it(
    'a host with a wrong token ends with the reason, and one without any as well',
    async () => {
      for (const args of [['--join-token-file', join(folder, 'wrong')], []]) {
        const { code, stdout, stderr } = await first.join('stranger', args);
        expect(code).not.toBe(0);
        expect(`${stdout}${stderr}`).toMatch(/token|password|UNAUTHENTICATED|authent/i);
      }
      await first.expectUnharmed();
    },
    testMs,
  );

  it.skipIf(!isFull)(
    'a second host of a name that is in use ends with the reason, and the first one stays',
    async () => {
      const { code, stdout, stderr } = await first.join('first', ['--join-token-file', join(folder, 'token')]);
      expect(code).not.toBe(0);
      expect(`${stdout}${stderr}`).toContain('ALREADY_EXISTS');
      await first.expectUnharmed();
    },
    testMs,
  );
});

describe.skipIf(!isFull).each(stores)(
  `a grid whose links speak one version, store %s${storesNote}${fullOnly}`,
  (store) => {
    it(
      'refuses a host of an incompatible version and names both ranges',
      async () => {
        const first = await FirstHost.start(store, []);
        const stranger = await startRealHost({ name: 'stranger', grid: 'default', versions: [90, 99] });
        const refusals: string[] = [];
        stranger.links.subscribe(({ type, reason }) => type === 'refused' && refusals.push(reason));
        try {
          stranger.links.setPeer(hostId('first'), first.link);
          stranger.links.peer('first').connect();
          await waitUntil('a refusal', () => refusals.length > 0);
          expect(refusals[0]).toMatch(/link versions 1 to [0-9]+/);
          expect(refusals[0]).toContain('90 to 99');
          await first.expectUnharmed();
        } finally {
          await stranger.close();
          await first.end();
        }
      },
      testMs,
    );
  },
);

describe.skipIf(!isFull).each(stores)(`a grid with certificates, store %s${storesNote}${fullOnly}`, (store) => {
  it(
    'takes a host with one of its own, and refuses one whose certificate has expired',
    async () => {
      const certificates = join(folder, `certificates-${store}`);
      const nowMs = Date.now();
      await initAuthority({ folder: certificates, name: 'test', days: 100, wallMs: nowMs - 50 * dayMs });
      const issue = async (name: string, wallMs: number): Promise<readonly string[]> => {
        const request = {
          folder: certificates,
          name,
          addresses: ['127.0.0.1'],
          kind: 'host',
          days: 2,
          wallMs,
        } as const;
        const { certificatePath, keyPath, authorityPath } = await issueFromFolder(request);
        return ['--grid-certificate', certificatePath, '--grid-key', keyPath, '--grid-authority', authorityPath];
      };
      const first = await FirstHost.start(store, await issue('first', nowMs));
      try {
        const { code, stdout, stderr } = await first.join('late', await issue('late', nowMs - 10 * dayMs));
        expect(code).not.toBe(0);
        expect(`${stdout}${stderr}`).toMatch(/expired|validTo|valid until/i);
        await first.expectUnharmed();
        const good = await startHostProcess([
          ...common,
          ...['--name', 'good', '--link-port', '0', ...first.store],
          ...(await issue('good', nowMs)),
        ]);
        const { hosts } = await first.client.grid.status();
        expect(hosts.map(({ host }) => host).sort()).toEqual(['first', 'good']);
        await good.stop();
      } finally {
        await first.end();
      }
    },
    testMs,
  );
});
