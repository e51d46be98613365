/**
 * The grid of the failover benchmark: three hosts and a store, each a process as users start it, nothing restarted by
 * itself. The store is etcd where it is installed, else the embedded one.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { appendFile, cp, mkdtemp, rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { NodeClock } from '#adapters/node/clock.js';
import { SupervisedProcess } from '#adapters/process/supervised-process.js';
import { connect, type GridStatus, type InferenceClient } from '#client/index.js';
import { packageRoot } from '#compose/package-root.js';

const etcdProgram = '/usr/bin/etcd';
const main = join(packageRoot, 'bin/intarsia.mjs');
const untilMsMax = 120_000;
const lookMs = 20;
const stopMs = 30_000;

export class FailoverGrid {
  readonly client: InferenceClient;
  readonly endpoints: readonly string[];
  readonly storeKind: 'etcd' | 'embedded';
  readonly #copies: number;
  readonly #folder: string;
  readonly #hosts: ReadonlyMap<string, SupervisedProcess>;
  readonly #store: Store;

  private constructor(
    folder: string,
    store: Store,
    hosts: ReadonlyMap<string, SupervisedProcess>,
    endpoints: readonly string[],
    copies: number,
  ) {
    this.#copies = copies;
    this.#folder = folder;
    this.#store = store;
    this.#hosts = hosts;
    this.endpoints = endpoints;
    this.storeKind = store.kind;
    this.client = connect({ endpoints });
  }

  /** Three hosts that serve two versions of the digit model, of which one is deployed on so many of them. */
  static async start(copies = 2): Promise<FailoverGrid> {
    const folder = await mkdtemp(join(tmpdir(), 'intarsia-failover-'));
    const repository = join(folder, 'models');
    const digits = join(packageRoot, 'examples/models/digits');
    await cp(digits, join(repository, 'digits'), { recursive: true });
    await cp(join(digits, '1'), join(repository, 'digits/2'), { recursive: true });
    // Without it only the newest is served, and known to the grid.
    await appendFile(join(repository, 'digits/config.pbtxt'), '\nversion_policy: { all { } }\n');
    const store = await Store.start(join(folder, 'store'));
    const hosts = new Map<string, SupervisedProcess>();
    const endpoints: string[] = [];
    for (const name of ['host-1', 'host-2', 'host-3']) {
      const [http, grpc, metrics, link] = await freePorts(4);
      endpoints.push(`127.0.0.1:${grpc}`);
      const args = [
        ['serve', '--json', '--name', name, '--repository', repository, '--device', 'cpu', '--cpu-threads', '1'],
        ['--http-port', http, '--grpc-port', grpc, '--metrics-port', metrics, '--link-port', link],
        [store.kind === 'etcd' ? '--etcd' : '--join', store.address, '--data-dir', join(folder, name)],
        ['--log-level', 'error'],
      ].flat();
      const host = new SupervisedProcess({
        name,
        args: () => [main, ...args.map(String)],
        env: process.env,
        clock: new NodeClock(),
        restarts: false,
        onLine: () => undefined,
        onReady: () => undefined,
        onEnd: () => undefined,
      });
      hosts.set(name, host);
      await host.start();
    }
    const grid = new FailoverGrid(folder, store, hosts, endpoints, copies);
    await grid.untilUp();
    await grid.deploy('1');
    return grid;
  }

  /** `host:port` of a host's gRPC port. */
  endpointOf(name: string): string {
    return this.endpoints[this.names.indexOf(name)] ?? '';
  }

  get names(): readonly string[] {
    return [...this.#hosts.keys()];
  }

  signal(name: string, signal: NodeJS.Signals): void {
    const pid = this.#hosts.get(name)?.pid;
    if (pid === undefined) throw new Error(`${name} does not run`);
    process.kill(pid, signal);
  }

  async stopStore(): Promise<void> {
    await this.#store.stop();
  }

  async startStore(): Promise<void> {
    await this.#store.run();
  }

  async deploy(version: string): Promise<void> {
    await this.order(version);
    await this.untilDeployed(version);
  }

  /** Asks for copies of a version, and does not wait for them. */
  async order(version: string): Promise<void> {
    const deployment = { name: 'digits', model: 'digits', version, replicas: this.#copies };
    const { applied, refusals } = await this.client.grid.deploy(JSON.stringify(deployment));
    if (!applied) throw new Error(`the deployment was refused: ${refusals.join('; ')}`);
  }

  async untilDeployed(version: string): Promise<void> {
    await this.until(`${this.#copies} copies of version ${version}`, ({ deployments, replicas }) => {
      const placed = replicas.filter((copy) => copy.deployment !== '' && copy.state === 'ready');
      return (
        deployments.some((one) => one.version === version && one.ready === this.#copies && one.state === 'complete') &&
        placed.length === this.#copies &&
        placed.every((copy) => copy.version === version)
      );
    });
  }

  /** Starts what does not run, and waits until the grid is calm and serves version 1. */
  async heal(): Promise<void> {
    for (const host of this.#hosts.values()) if (host.pid === undefined) await host.start();
    await this.untilUp();
    await this.deploy('1');
  }

  async untilUp(): Promise<void> {
    await this.until('all hosts up', ({ hosts, leader }) => {
      return hosts.filter(({ state }) => state === 'up').length === this.#hosts.size && leader !== '';
    });
  }

  /** Hosts with a copy of the deployment, and the leader. */
  async facts(): Promise<{ readonly placed: readonly string[]; readonly leader: string }> {
    const { replicas, leader } = await this.client.grid.status();
    const placed = replicas.filter(({ deployment, state }) => deployment !== '' && state === 'ready');
    return { placed: placed.map(({ host }) => host), leader };
  }

  async until(what: string, holds: (status: GridStatus) => boolean): Promise<void> {
    const endMs = performance.now() + untilMsMax;
    for (;;) {
      // A host that was just killed may be the one that is asked.
      const status = await this.client.grid.status({ timeoutMs: 5_000 }).catch(() => undefined);
      if (status !== undefined && holds(status)) return;
      if (performance.now() > endMs) throw new Error(`${what}: not within ${untilMsMax} ms`);
      await delay(lookMs);
    }
  }

  async end(): Promise<void> {
    this.client.close();
    await Promise.all([...this.#hosts.values()].map((host) => host.stop(stopMs)));
    await this.#store.stop();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

export class Store {
  readonly kind = existsSync(etcdProgram) ? 'etcd' : 'embedded';
  readonly #folder: string;
  readonly #ports: readonly number[];
  #child: ChildProcess | undefined;

  private constructor(folder: string, ports: readonly number[]) {
    this.#folder = folder;
    this.#ports = ports;
  }

  static async start(folder: string): Promise<Store> {
    const store = new Store(folder, await freePorts(2));
    await store.run();
    return store;
  }

  get address(): string {
    return `127.0.0.1:${this.#ports[0] ?? 0}`;
  }

  async run(): Promise<void> {
    const [command, args] = this.kind === 'etcd' ? this.#etcd() : this.#embedded();
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    let said = '';
    await new Promise<void>((resolve, reject) => {
      for (const stream of [child.stdout, child.stderr]) {
        stream.on('data', (chunk: Buffer) => {
          said = (said + chunk.toString()).slice(-4000);
          if (/"address"|serving insecure client requests|serving client/.test(said)) resolve();
        });
      }
      child.once('exit', (code) => reject(new Error(`the store ended with ${String(code)}: ${said}`)));
    });
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  }

  #embedded(): [string, string[]] {
    return [process.execPath, [main, 'store', '--json', '--listen', this.address, '--data-dir', this.#folder]];
  }

  #etcd(): [string, string[]] {
    const [clients, peers] = [`http://${this.address}`, `http://127.0.0.1:${this.#ports[1] ?? 0}`];
    const args = {
      '--data-dir': this.#folder,
      '--listen-client-urls': clients,
      '--advertise-client-urls': clients,
      '--listen-peer-urls': peers,
      '--initial-advertise-peer-urls': peers,
      '--initial-cluster': `default=${peers}`,
    };
    return [etcdProgram, Object.entries(args).flat()];
  }
}

/** Ports that nobody has, each chosen once. */
export async function freePorts(count: number): Promise<readonly number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
  return ports;
}
