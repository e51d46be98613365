/**
 * Whole hosts on virtual time and a pretend store: membership, election, controller, host agent and model registry are the
 * production ones; devices only say what they were asked, and files go from host to host by a map.
 */
import { createHash } from 'node:crypto';
import { controllerActor } from '#actors/controller/actor.js';
import type { ControllerMessage, ControllerStatus } from '#actors/controller/protocol.js';
import { electionActor } from '#actors/election/actor.js';
import { hostAgentActor } from '#actors/host-agent/actor.js';
import type { HostAgentMessage } from '#actors/host-agent/protocol.js';
import type { ElectionMessage } from '#actors/election/protocol.js';
import { membershipActor } from '#actors/membership/actor.js';
import type { MembershipMessage } from '#actors/membership/protocol.js';
import { modelRegistryActor } from '#actors/model-registry/actor.js';
import type { RegistryOutcome } from '#actors/model-registry/protocol.js';
import { emptyCatalog, type Catalog } from '#core/catalog.js';
import { intarsiaError } from '#core/errors.js';
import { deploymentsOfFile } from '#core/grid/deployment-file.js';
import { gridKeys } from '#core/grid/keys.js';
import type { ReconcileOptions } from '#core/grid/reconcile-memory.js';
import type { GridEvent, HostAssignment, HostRecord, ModelManifest, RolloutRecord } from '#core/grid/records.js';
import { artifactDigest, hostId, type ModelName, type ModelVersion } from '#core/ids.js';
import { firstFit } from '#policies/residency/residency-first-fit.js';
import type { ArtifactSource, HeldModel } from '#ports/artifact-source.js';
import type { Store } from '#ports/store.js';
import type { ActorRef } from '#runtime/actor.js';
import type { ActorSystem } from '#runtime/system.js';
import { PretendStore } from '#sim/pretend-store.js';
import { Simulation } from '#sim/simulation.js';
import { identity, MemoryRepository, PretendDevice } from '../actors/model-registry-world.js';

export const keys = gridKeys('test');

export interface HostOptions extends Partial<Omit<HostRecord, 'host' | 'devices'>> {
  readonly deviceIds?: readonly string[];
  readonly memoryBytes?: number;
  /** Own models: `model/version` and its width. */
  readonly models?: Readonly<Record<string, number>>;
}

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

export class WorldHost {
  readonly name: string;
  readonly system: ActorSystem;
  readonly repository = new MemoryRepository();
  readonly devices: PretendDevice[] = [];
  readonly log: string[] = [];
  readonly controller: ActorRef<ControllerMessage>;
  readonly membership: ActorRef<MembershipMessage>;
  readonly election: ActorRef<ElectionMessage>;
  readonly store: Store;
  readonly agent: ActorRef<HostAgentMessage>;
  catalog: Catalog = emptyCatalog;
  readonly scanned: Promise<RegistryOutcome>;
  readonly #world: GridWorld;
  readonly #own: ReadonlySet<string>;

  constructor(world: GridWorld, name: string, options: HostOptions) {
    const { deviceIds = ['cpu:0'], memoryBytes = 1_000_000, models = {}, ...record } = options;
    this.#world = world;
    this.name = name;
    this.#own = new Set(Object.keys(models));
    this.system = world.simulation.system({ host: `${name}.${world.incarnations}` });
    world.incarnations += 1;
    const store = world.store.client(name);
    for (const [edition, width] of Object.entries(models)) {
      this.repository.write(`${edition}/model.onnx`, identity(width));
    }
    for (const id of deviceIds) this.devices.push(new PretendDevice(this.system, id, this.log));
    const { system } = this;
    this.store = store;
    const membership = system.spawn(
      'membership',
      membershipActor({
        store,
        keys,
        record: {
          format: 1,
          host: hostId(name),
          process: `${name}-${world.incarnations}`,
          linkAddress: `${name}:1`,
          grpcEndpoint: `${name}:2`,
          httpEndpoint: '',
          role: 'host',
          softwareVersion: '0',
          linkVersions: [1, 1],
          tier: 'core',
          zone: 'z',
          labels: {},
          spot: false,
          devices: this.devices.map(({ descriptor }) => ({
            id: descriptor.id,
            provider: 'cpu',
            profile: '',
            emulated: true,
            memoryBytes,
            speed: 1,
            pricePerHour: 0,
          })),
          ...record,
        },
      }),
    );
    const election = system.spawn(
      'election',
      electionActor({
        host: hostId(name),
        process: `${name}-${world.incarnations}`,
        store,
        keys,
        membership,
        isCandidate: true,
      }),
    );
    this.membership = membership;
    this.election = election;
    const registry = system.spawn(
      'model-registry',
      modelRegistryActor({
        files: this.repository,
        mode: 'none',
        pollMs: 15_000,
        startupModels: [],
        devices: this.devices.map(({ descriptor, ref }) => ({ descriptor, ref })),
        residency: firstFit,
        publish: (catalog) => {
          this.catalog = catalog;
          this.agent.tell({ type: 'catalog', catalog });
        },
      }),
    );
    this.controller = system.spawn(
      'controller',
      controllerActor({ host: hostId(name), store, keys, membership, election, reconcile: world.options }),
    );
    this.agent = system.spawn(
      'host-agent',
      hostAgentActor({
        host: hostId(name),
        store,
        keys,
        membership,
        registry,
        artifacts: this.#artifacts(),
        devices: this.devices.map(({ descriptor, ref }) => ({ id: descriptor.id, ref })),
        catalog: emptyCatalog,
      }),
    );
    this.scanned = registry.ask<RegistryOutcome>((replyTo) => ({ type: 'scan', replyTo }), { deadlineMs: Infinity });
  }

  /** Without a word, as by kill -9. */
  crash(): void {
    this.#world.store.crash(this.name);
    this.system.terminate();
    this.#world.hosts.delete(this.name);
  }

  serving(): readonly string[] {
    return [...this.catalog.models.values()].flatMap(({ served }) =>
      [...served.values()].flatMap(({ name, version, devices }) =>
        devices.map((device) => `${name}/${version} on ${this.name} ${device}`),
      ),
    );
  }

  /** Files come from a map, 50 ms a model. */
  #artifacts(): Pick<ArtifactSource, 'ensure' | 'describe' | 'variants'> {
    const { repository } = this;
    return {
      describe: (model, version) => Promise.resolve(this.#manifest(model, version)),
      variants: () => Promise.resolve([]),
      ensure: (manifest) => ({
        cancel: () => {},
        held: new Promise<HeldModel>((resolve, reject) => {
          this.#world.simulation.clock.schedule(50, () => {
            for (const { path, sha256 } of manifest.files) {
              const bytes = this.#world.contents.get(sha256);
              if (bytes === undefined) {
                reject(intarsiaError('UNAVAILABLE', `nobody has ${sha256}`));
                return;
              }
              if (!repository.files.has(`${manifest.model}/${path}`)) {
                repository.write(`${manifest.model}/${path}`, bytes);
              }
            }
            const text = `${manifest.model}/${manifest.version}`;
            resolve({
              manifest,
              release: () => {
                if (!this.#own.has(text)) repository.remove(`${text}/`);
                return Promise.resolve();
              },
            });
          });
        }),
      }),
    };
  }

  #manifest(model: ModelName, version: ModelVersion): ModelManifest | undefined {
    const path = `${version}/model.onnx`;
    const bytes = this.repository.files.get(`${model}/${path}`);
    if (bytes === undefined) return undefined;
    const sha256 = sha(bytes);
    this.#world.contents.set(sha256, bytes);
    return {
      format: 1,
      model,
      version,
      digest: artifactDigest(sha256),
      memoryBytes: this.#world.copyBytes,
      files: [{ path, bytes: bytes.byteLength, sha256 }],
    };
  }
}

export class GridWorld {
  readonly simulation: Simulation;
  readonly store: PretendStore;
  readonly operator: Store;
  readonly hosts = new Map<string, WorldHost>();
  readonly contents = new Map<string, Uint8Array>();
  readonly options: Partial<ReconcileOptions>;
  incarnations = 0;
  copyBytes = 1000;

  constructor(options: Partial<ReconcileOptions> & { readonly seed?: number } = {}) {
    const { seed = 1, ...rest } = options;
    this.options = rest;
    this.simulation = new Simulation({ seed, stepsMax: 5_000_000 });
    this.store = new PretendStore({ clock: this.simulation.clock });
    this.operator = this.store.client('operator');
  }

  host(name: string, options: HostOptions = {}): WorldHost {
    const host = new WorldHost(this, name, options);
    this.hosts.set(name, host);
    return host;
  }

  /** Publishes a version's files, as a host that has them would. */
  async publish(edition: string, width: number): Promise<void> {
    const [model = '', version = ''] = edition.split('/');
    const bytes = identity(width);
    const sha256 = sha(bytes);
    this.contents.set(sha256, bytes);
    await this.put(keys.model(model, version), {
      format: 1,
      model,
      version,
      digest: sha256,
      memoryBytes: this.copyBytes,
      files: [{ path: `${version}/model.onnx`, bytes: bytes.byteLength, sha256 }],
    });
  }

  async deploy(data: Readonly<Record<string, unknown>>): Promise<void> {
    for (const deployment of deploymentsOfFile(data, 'test'))
      await this.put(keys.deployment(deployment.name), deployment);
  }

  async undeploy(name: string): Promise<void> {
    await this.now(
      this.operator.transact({ conditions: [], operations: [{ type: 'delete', key: keys.deployment(name) }] }, forEver),
    );
  }

  async order(host: string, order: 'cordon' | 'drain' | 'none'): Promise<void> {
    const record = {
      format: 1,
      cordoned: order !== 'none',
      draining: order === 'drain',
      deadlineWallMs: 0,
      reason: 'test',
    };
    await this.put(keys.order(hostId(host)), record);
  }

  async put(key: string, value: unknown): Promise<void> {
    const operations = [{ type: 'put' as const, key, value: JSON.stringify(value) }];
    await this.now(this.operator.transact({ conditions: [], operations }, forEver));
  }

  async pass(seconds: number): Promise<void> {
    await this.simulation.clock.settleUntil(this.simulation.clock.nowMs() + seconds * 1000);
  }

  /** What answers requests for a model, host by host. */
  serving(model: string): readonly string[] {
    return [...this.hosts.values()]
      .flatMap((host) => host.serving())
      .filter((line) => line.startsWith(`${model}/`))
      .sort();
  }

  async rollout(name: string): Promise<RolloutRecord | undefined> {
    const { entry } = await this.now(this.operator.get(keys.rollout(name), forEver));
    return entry === undefined ? undefined : (JSON.parse(entry.value) as RolloutRecord);
  }

  async assignments(): Promise<readonly HostAssignment[]> {
    const { entries } = await this.now(this.operator.range(keys.assignments, forEver));
    return entries.map(({ value }) => JSON.parse(value) as HostAssignment);
  }

  async events(): Promise<readonly string[]> {
    const { entries } = await this.now(this.operator.range(keys.events, forEver));
    return entries
      .map(({ value }) => JSON.parse(value) as GridEvent)
      .sort((a, b) => a.sequence - b.sequence)
      .map(({ subject, text }) => `${subject}: ${text}`);
  }

  /** The host whose controller leads. */
  async leader(): Promise<WorldHost> {
    for (const host of this.hosts.values()) {
      const status = await this.now(
        host.controller.ask<ControllerStatus>((replyTo) => ({ type: 'status', replyTo }), { deadlineMs: Infinity }),
      );
      if (status.epoch !== undefined) return host;
    }
    throw new Error('nobody leads');
  }

  async now<Value>(promise: Promise<Value>): Promise<Value> {
    await this.pass(0.01);
    return await promise;
  }
}

const forEver = { deadlineMs: Infinity };
