/**
 * A grid of real processes for fault tests: a store (the embedded one or etcd) and hosts as `intarsia serve` starts them,
 * each with ports of its own that it keeps when it is started again. Everything is waited for by what the grid itself
 * says, and everything is bounded in time.
 */
import { mkdirSync, mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { connect, type GridStatus, type InferenceClient } from '#client/index.js';
import { MiB } from '#core/units.js';
import { affine, unknownOperator, writeInto } from '../e2e/faulty-models.js';
import { startHostProcess, type HostProcess, type ProgramResult } from '../e2e/host-process.js';
import { freePort, StoreProcess } from '../store/real-stores.js';

export type StoreKind = 'embedded' | 'etcd';

export interface HostPlan {
  readonly name: string;
  /** Whether it has the model repository; default true. */
  readonly hasRepository?: boolean;
  /** Address it listens on; default 127.0.0.1. */
  readonly address?: string;
  /** Address that others are told; default `address`. */
  readonly advertised?: string;
  readonly args?: readonly string[];
  /** See `ProgramOptions.within`. */
  readonly within?: readonly string[];
}

export interface ClusterPlan {
  readonly store: StoreKind;
  readonly hosts?: readonly HostPlan[];
  /** Address that the store listens on; default 127.0.0.1. */
  readonly storeListens?: string;
  /** Called when ports are chosen, before any host starts. */
  readonly before?: (hosts: readonly ClusterHost[]) => Promise<void>;
  /** Arguments of every host. */
  readonly args?: readonly string[];
  /** Further files of the model repository. */
  readonly files?: Readonly<Record<string, Uint8Array>>;
}

/** Short: the tests wait for leases to end. */
const leaseMs = 5_000;
export const threeHosts: readonly HostPlan[] = ['host-1', 'host-2', 'host-3'].map((name) => ({ name }));

/** One host, through its lives. */
export class ClusterHost {
  readonly plan: HostPlan;
  readonly ports: { readonly http: number; readonly grpc: number; readonly link: number };
  readonly #args: readonly string[];
  #process: HostProcess | undefined;

  private constructor(plan: HostPlan, ports: ClusterHost['ports'], args: readonly string[]) {
    this.plan = plan;
    this.ports = ports;
    this.#args = args;
  }

  static async plan(plan: HostPlan, args: readonly string[]): Promise<ClusterHost> {
    const ports = { http: await freePort(), grpc: await freePort(), link: await freePort() };
    return new ClusterHost(plan, ports, args);
  }

  get name(): string {
    return this.plan.name;
  }

  /** `host:port` of its gRPC endpoint, as others are told. */
  get grpc(): string {
    return `${this.plan.advertised ?? this.plan.address ?? '127.0.0.1'}:${this.ports.grpc}`;
  }

  get process(): HostProcess {
    if (this.#process === undefined) throw new Error(`${this.name} does not run`);
    return this.#process;
  }

  get isRunning(): boolean {
    return this.#process !== undefined;
  }

  async start(): Promise<void> {
    const { name, address, advertised, args = [], within = [] } = this.plan;
    const { http, grpc, link } = this.ports;
    this.#process = await startHostProcess(
      [
        ['--name', name, '--http-port', String(http), '--grpc-port', String(grpc), '--link-port', String(link)],
        ['--device', 'cpu', '--cpu-threads', '1', '--lease-ms', String(leaseMs), '--log-level', 'info'],
        address === undefined ? [] : ['--bind', address],
        advertised === undefined ? [] : ['--advertise', advertised],
        this.#args,
        args,
      ].flat(),
      { within },
    );
  }

  signal(signal: NodeJS.Signals): void {
    process.kill(this.process.pid, signal);
  }

  /** Ends it, and resolves when it is gone. */
  async end(signal: NodeJS.Signals): Promise<ProgramResult> {
    const host = this.process;
    this.#process = undefined;
    return host.stop(signal);
  }
}

export class Cluster {
  readonly store: StoreProcess;
  readonly hosts: readonly ClusterHost[];
  readonly client: InferenceClient;
  readonly repository: string;
  readonly folder: string;
  #isStoreUp = true;

  private constructor(parts: Pick<Cluster, 'store' | 'hosts' | 'client' | 'repository' | 'folder'>) {
    this.store = parts.store;
    this.hosts = parts.hosts;
    this.client = parts.client;
    this.repository = parts.repository;
    this.folder = parts.folder;
  }

  /** Resolves when every host is up in the view of every host. */
  static async start(plan: ClusterPlan): Promise<Cluster> {
    const folder = mkdtempSync(join(tmpdir(), 'intarsia-cluster-'));
    const repository = join(folder, 'models');
    mkdirSync(repository);
    writeInto(repository, {
      'affine/config.pbtxt': affineConfig,
      'affine/1/model.onnx': affine(2),
      // Large enough for its rollout to be looked at.
      'affine/2/model.onnx': affine(3, 32 * MiB),
      'affine/3/model.onnx': affine(4),
      ...plan.files,
    });
    const store = await StoreProcess.make(plan.store, {}, plan.storeListens);
    const hosts: ClusterHost[] = [];
    for (const host of plan.hosts ?? threeHosts) {
      const args = [
        [plan.store === 'etcd' ? '--etcd' : '--join', store.endpoint],
        ['--data-dir', join(folder, host.name)],
        host.hasRepository === false ? [] : ['--repository', repository],
        plan.args ?? [],
      ].flat();
      hosts.push(await ClusterHost.plan(host, args));
    }
    const client = connect({ endpoints: hosts.map(({ grpc }) => grpc), timeoutMs: 10_000 });
    const cluster = new Cluster({ store, hosts, client, repository, folder });
    try {
      await plan.before?.(hosts);
      await Promise.all(hosts.map((host) => host.start()));
      await cluster.untilUp();
    } catch (error) {
      await cluster.end();
      throw error;
    }
    return cluster;
  }

  /** Ends the store's process, without a word when it is killed. */
  async stopStore(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    this.#isStoreUp = false;
    await this.store.stop(signal);
  }

  async startStore(): Promise<void> {
    if (this.#isStoreUp) return;
    this.#isStoreUp = true;
    await this.store.start();
  }

  host(name: string): ClusterHost {
    const found = this.hosts.find((host) => host.name === name);
    if (found === undefined) throw new Error(`there is no ${name}`);
    return found;
  }

  /** From now on nobody can load version 3 of the model. */
  breakVersion3(): void {
    writeInto(this.repository, { 'affine/3/model.onnx': unknownOperator() });
  }

  /** The name of the host that leads. */
  async leader(): Promise<string> {
    return (await this.until('a leader', ({ leader }) => leader !== '')).leader;
  }

  /** What one host says; of any of them without a name. */
  async status(host?: string): Promise<GridStatus> {
    if (host === undefined) return this.client.grid.status({ timeoutMs: 3_000 });
    const own = connect({ endpoints: this.host(host).grpc, discovery: false });
    try {
      return await own.grid.status({ timeoutMs: 3_000 });
    } finally {
      own.close();
    }
  }

  /** Asks again until the condition holds. Fails with what it last saw. */
  async until(
    what: string,
    holds: (status: GridStatus) => boolean,
    { host, withinMs = 60_000 }: { readonly host?: string; readonly withinMs?: number } = {},
  ): Promise<GridStatus> {
    const endMs = performance.now() + withinMs;
    for (;;) {
      let seen: string;
      try {
        const status = await this.status(host);
        if (holds(status)) return status;
        seen = summaryOf(status);
      } catch (error) {
        seen = String(error);
      }
      if (performance.now() > endMs) throw new Error(`${what}: not within ${withinMs} ms; last seen: ${seen}`);
      await delay(10);
    }
  }

  /** Every host that runs sees every host that runs as up, and nobody else. */
  async untilUp(withinMs = 60_000): Promise<void> {
    const running = this.hosts.filter(({ isRunning }) => isRunning).map(({ name }) => name);
    for (const name of running) {
      await this.until(
        `${name} sees ${running.join(', ')} up`,
        (status) => namesOf(status, 'up').join() === [...running].sort().join() && status.leader !== '',
        { host: name, withinMs },
      );
    }
  }

  /** Makes copies of the model `affine` desired and waits until they serve. */
  async deploy(more: object = {}): Promise<void> {
    const deployment = { name: 'affine', model: 'affine', version: '1', replicas: 2, ...more };
    const { applied, refusals } = await this.client.grid.deploy(JSON.stringify(deployment));
    if (!applied) throw new Error(`not applied: ${refusals.join('; ')}`);
    await this.untilDeployed(deployment.version, deployment.replicas);
  }

  async untilDeployed(version = '1', replicas = 2, withinMs = 90_000): Promise<GridStatus> {
    return this.until(
      `${replicas} ready copies of version ${version}`,
      (status) =>
        status.deployments.some((one) => one.version === version && one.ready === replicas && one.state === 'complete'),
      { withinMs },
    );
  }

  /** Names of the hosts that have a ready copy of the deployment. */
  async placed(): Promise<readonly string[]> {
    return placedOn(await this.status());
  }

  /** Starts what does not run, and waits until the grid is calm: what one test broke is no other's trouble. */
  async heal(): Promise<void> {
    await this.startStore();
    await Promise.all(this.hosts.filter(({ isRunning }) => !isRunning).map((host) => host.start()));
    await this.untilUp();
  }

  async end(): Promise<void> {
    this.client.close();
    await Promise.all(this.hosts.filter(({ isRunning }) => isRunning).map((host) => host.end('SIGKILL')));
    await this.store.end();
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** All versions that can be loaded are served before the first deployment. */
const affineConfig = 'name: "affine"\nplatform: "onnxruntime_onnx"\nmax_batch_size: 8\nversion_policy: { all { } }\n';

export function namesOf(status: GridStatus, state: string): string[] {
  return status.hosts
    .filter((host) => host.state === state)
    .map(({ host }) => host)
    .sort();
}

export function placedOn({ replicas }: GridStatus, version?: string): readonly string[] {
  return replicas
    .filter((copy) => copy.deployment !== '' && copy.state === 'ready')
    .filter((copy) => version === undefined || copy.version === version)
    .map(({ host }) => host)
    .sort();
}

function summaryOf({ hosts, leader, deployments, replicas, storeConnected }: GridStatus): string {
  return JSON.stringify({
    leader,
    storeConnected,
    hosts: hosts.map(({ host, state, generation, degraded }) => `${host} ${state} ${generation} ${degraded}`),
    deployments: deployments.map(({ name, version, ready, wanted, state, reason }) =>
      [name, version, `${ready}/${wanted}`, state, reason].join(' '),
    ),
    replicas: replicas.map(({ host, model, version, state, reason }) =>
      [host, model, version, state, reason].join(' '),
    ),
  });
}
