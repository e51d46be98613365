/** Real stores in processes of their own, for tests: the embedded store (built output) and etcd, with start, stop and kill. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { NodeClock } from '#adapters/node/clock.js';
import { EtcdStore } from '#adapters/etcd/etcd-store.js';
import type { StoreWorld } from '../contract/store.js';

export const etcdBinary = '/usr/bin/etcd';
export const etcdctlBinary = '/usr/bin/etcdctl';
export const isRequired = process.env['INTARSIA_REQUIRE'] === 'all';
/** Skipped where it is absent, unless everything is required. */
export const isWithoutEtcd = !existsSync(etcdBinary) && !isRequired;
export const isWithoutEtcdctl = !existsSync(etcdctlBinary) && !isRequired;

const storeMain = new URL('../../dist/src/store-main.js', import.meta.url).pathname;

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** A store's process and its folder. */
export class StoreProcess {
  readonly kind: 'embedded' | 'etcd';
  readonly port: number;
  readonly folder: string;
  private readonly peerPort: number;
  private readonly environment: Record<string, string>;
  private readonly address: string;
  private child: ChildProcess | undefined;

  private constructor(
    kind: 'embedded' | 'etcd',
    ports: readonly [number, number],
    environment: Record<string, string>,
    address: string,
  ) {
    this.address = address;
    this.kind = kind;
    this.environment = environment;
    [this.port, this.peerPort] = ports;
    this.folder = mkdtempSync(join(tmpdir(), `intarsia-store-${kind}-`));
  }

  static async make(
    kind: 'embedded' | 'etcd',
    environment: Record<string, string> = {},
    address = '127.0.0.1',
  ): Promise<StoreProcess> {
    const made = new StoreProcess(kind, [await freePort(), await freePort()], environment, address);
    await made.start();
    return made;
  }

  get endpoint(): string {
    return `${this.address}:${this.port}`;
  }

  async start(): Promise<void> {
    const [command, args] =
      this.kind === 'embedded'
        ? [process.execPath, [storeMain, this.folder, this.address, String(this.port)]]
        : [etcdBinary, this.etcdArguments()];
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...this.environment },
    });
    this.child = child;
    let said = '';
    await new Promise<void>((resolve, reject) => {
      const ready = /listening |serving insecure client requests|serving client/;
      const hear = (chunk: Buffer): void => {
        said = (said + chunk.toString()).slice(-4000);
        if (ready.test(said)) resolve();
      };
      child.stdout.on('data', hear);
      child.stderr.on('data', hear);
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`the store ended with ${code} before it listened:\n${said}`)));
    });
  }

  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    const { child } = this;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    await exited;
  }

  wipe(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  async end(): Promise<void> {
    await this.stop('SIGKILL');
    this.wipe();
  }

  private etcdArguments(): string[] {
    const client = `http://${this.endpoint}`;
    const peer = `http://127.0.0.1:${this.peerPort}`;
    return [
      ['--data-dir', this.folder],
      ['--listen-client-urls', client],
      ['--advertise-client-urls', client],
      ['--listen-peer-urls', peer],
      ['--initial-advertise-peer-urls', peer],
      ['--initial-cluster', `default=${peer}`],
    ].flat();
  }
}

/** Real time whose wall clock can be moved, for everything that reads Date.now. */
export class SteppedWall {
  private readonly original = Date.now;

  step(durationMs: number): void {
    const now = Date.now;
    Date.now = () => now() + durationMs;
  }

  restore(): void {
    Date.now = this.original;
  }
}

/** The contract's world over a store's process. */
export async function realWorld(kind: 'embedded' | 'etcd'): Promise<StoreWorld> {
  const process = await StoreProcess.make(kind);
  const clock = new NodeClock();
  const wall = new SteppedWall();
  const clients: EtcdStore[] = [];
  const open = (): EtcdStore => {
    const client = new EtcdStore({ endpoints: [process.endpoint], clock });
    clients.push(client);
    return client;
  };
  return {
    clock,
    open,
    settle: (promise) => promise,
    until: (what, condition) =>
      new Promise((resolve, reject) => {
        const startMs = clock.nowMs();
        const look = (): void => {
          if (condition()) resolve();
          else if (clock.nowMs() > startMs + 60_000) reject(new Error(`${what}: did not come within 60 s`));
          else clock.schedule(10, look);
        };
        look();
      }),
    stop: () => process.stop(),
    start: () => process.start(),
    wipe: () => {
      process.wipe();
      return Promise.resolve();
    },
    compact: async () => {
      const client = open();
      const { revision } = await client.get('any', { deadlineMs: clock.nowMs() + 10_000 });
      await client.etcd.kv.compact({ revision: String(revision), physical: false });
    },
    stepWall: (durationMs) => wall.step(durationMs),
    end: async () => {
      wall.restore();
      for (const client of clients) await client.close();
      await process.end();
    },
  };
}
