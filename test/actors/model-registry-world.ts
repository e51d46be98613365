/**
 * A model registry in a simulated world: a repository in memory, devices that only say what they were asked, and words for
 * what tests say about it.
 */
import { createHash } from 'node:crypto';
import { modelRegistryActor, type ModelRegistryInbox } from '#actors/model-registry/actor.js';
import type { ModelRegistryOptions } from '#actors/model-registry/options.js';
import type { LoadOverrides, RegistryOutcome } from '#actors/model-registry/protocol.js';
import type { DeviceMessage, DeviceStatus, LoadOutcome, Placement } from '#actors/device/protocol.js';
import { emptyCatalog, type Catalog } from '#core/catalog.js';
import type { DeviceDescriptor } from '#core/device.js';
import { asIntarsiaError, intarsiaError, type ErrorCode } from '#core/errors.js';
import { artifactDigest, deviceId, modelName, type ModelName, type ModelVersion } from '#core/ids.js';
import { readModelFacts } from '#core/onnx/model-facts.js';
import { firstFit } from '#policies/residency/residency-first-fit.js';
import type { ModelFiles, ModelFolder, ModelListing, RepositoryListing } from '#ports/model-files.js';
import type { ActorRef, ReplyTo } from '#runtime/actor.js';
import type { ActorSystem } from '#runtime/system.js';
import { Simulation } from '#sim/simulation.js';
import { identityModel, tensorType } from '../core/onnx-bytes.js';

/** An identity model over tensors of this width; another width is another artefact. */
export function identity(width: number): Uint8Array {
  return identityModel(tensorType(1, ['n', width]), tensorType(1, ['n', width]));
}

/** The ModelFiles port over a map: `model/1/model.onnx` → bytes. */
export class MemoryRepository implements ModelFiles {
  readonly files = new Map<string, Uint8Array>();
  /** Artefacts handed out and not released. */
  held = 0;
  lists = 0;
  listFailure: Error | undefined;
  #writes = 0;
  readonly #stamps = new Map<string, number>();

  write(path: string, content: string | Uint8Array): this {
    this.#writes += 1;
    this.files.set(path, typeof content === 'string' ? new TextEncoder().encode(content) : content);
    this.#stamps.set(path, this.#writes);
    return this;
  }

  remove(prefix: string): this {
    for (const path of [...this.files.keys()]) if (path.startsWith(prefix)) this.files.delete(path);
    return this;
  }

  list(): Promise<RepositoryListing> {
    this.lists += 1;
    if (this.listFailure !== undefined) return Promise.reject(this.listFailure);
    const names = new Set([...this.files.keys()].map((path) => modelName(path.split('/')[0] ?? '')));
    return Promise.resolve({ models: [...names].sort().map((name) => this.#listing(name)), notes: [] });
  }

  open(name: ModelName, brought?: ReadonlyMap<string, Uint8Array>): Promise<ModelFolder> {
    const files = new Map<string, Uint8Array>(brought);
    if (brought === undefined) {
      for (const [path, bytes] of this.files) {
        if (path.startsWith(`${name}/`)) files.set(path.slice(name.length + 1), bytes);
      }
    }
    if (files.size === 0) return Promise.reject(intarsiaError('MODEL_NOT_FOUND', `no model "${name}"`));
    const read = (path: string): Promise<Uint8Array> => {
      const bytes = files.get(path);
      if (bytes === undefined) return Promise.reject(intarsiaError('NOT_FOUND', `${name}/${path} does not exist`));
      return Promise.resolve(bytes);
    };
    const config = files.get('config.pbtxt');
    return Promise.resolve({
      versions: versionsOf(files.keys()),
      configText: config === undefined ? undefined : new TextDecoder().decode(config),
      bytes: read,
      variants: (version) => {
        const records = [...files.keys()].filter((path) => path.startsWith(`${version}/variants/`));
        return Promise.resolve([...new Set(records.map((path) => path.split('/')[2] ?? ''))]);
      },
      artifact: async (version, fileName) => {
        const bytes = await read(`${version}/${fileName}`);
        const facts = readModelFacts(bytes);
        const sha256 = createHash('sha256').update(bytes).digest('hex');
        this.held += 1;
        let isHeld = true;
        return {
          digest: artifactDigest(sha256),
          path: `/held/${sha256}/${fileName}`,
          facts,
          files: [{ name: fileName, bytes: bytes.byteLength, sha256 }],
          release: () => {
            if (isHeld) this.held -= 1;
            isHeld = false;
            return Promise.resolve();
          },
        };
      },
      close: () => Promise.resolve(),
    });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #listing(name: ModelName): ModelListing {
    const paths = [...this.files.keys()].filter((path) => path.startsWith(`${name}/`)).sort();
    const versions = versionsOf(paths.map((path) => path.slice(name.length + 1)));
    return {
      name,
      versions,
      fingerprint: paths.map((path) => `${path}@${this.#stamps.get(path) ?? 0}`).join(' '),
      problem: versions.length === 0 ? `model "${name}" has no version folder` : '',
    };
  }
}

function versionsOf(paths: Iterable<string>): readonly ModelVersion[] {
  const versions = new Set<ModelVersion>();
  for (const path of paths) if (/^[1-9][0-9]*\//.test(path)) versions.add(path.split('/')[0] as ModelVersion);
  return [...versions].sort((a, b) => Number(a) - Number(b));
}

export function descriptor(id: string, memoryBytes = 1_000_000_000): DeviceDescriptor {
  return {
    id: deviceId(id),
    kind: 'cpu',
    name: id,
    vendor: 'none',
    provider: 'cpu',
    fallbackProviders: [],
    emulated: true,
    memoryBytes,
    threads: 1,
    permits: 1,
    facts: {},
  };
}

/** A device that takes 10 ms for everything, or as long as a test holds it. */
export class PretendDevice {
  readonly descriptor: DeviceDescriptor;
  readonly ref: ActorRef<DeviceMessage>;
  /** Widths of the first input by `model/version`: what is loaded now. */
  readonly loaded = new Map<string, Placement>();
  /** Failures of loads, by model and width, such as `m:4`. */
  readonly failures = new Map<string, ErrorCode>();
  readonly placements: Placement[] = [];

  constructor(system: ActorSystem, id: string, log: string[]) {
    this.descriptor = descriptor(id);
    this.ref = system.spawn<DeviceMessage>(id.replaceAll(':', '-'), (context) => ({
      receive: (message) => {
        switch (message.type) {
          case 'status':
            message.replyTo.tell(this.#status());
            return;
          case 'load': {
            const { placement, replyTo } = message;
            const { model, version } = placement;
            const width = placement.inputs[0]?.shape[1] ?? 0;
            log.push(`${id}: load ${model}/${version} of width ${width}`);
            context.clock.schedule(10, () => {
              const code = this.failures.get(`${model}:${placement.variant ?? width}`);
              let outcome: LoadOutcome = { ok: true, loadMs: 10, memoryBytes: 1000, notes: [] };
              if (code !== undefined)
                outcome = { ok: false, error: intarsiaError(code, `width ${width} fails on ${id}`) };
              else {
                this.loaded.set(`${model}/${version}`, placement);
                this.placements.push(placement);
              }
              replyTo.tell(outcome);
            });
            return;
          }
          case 'unload': {
            const { model, version, replyTo } = message;
            log.push(`${id}: unload ${model}/${version}`);
            context.clock.schedule(10, () => {
              this.loaded.delete(`${model}/${version}`);
              replyTo.tell({ ok: true });
            });
            return;
          }
          default:
            throw new Error(`unexpected ${message.type}`);
        }
      },
    }));
  }

  #status(): DeviceStatus {
    return {
      device: this.descriptor,
      health: 'ready',
      reason: '',
      memoryUsedBytes: 0,
      permitsFree: 1,
      sessions: [],
      queues: [],
      executorRestarts: 0,
      utilization: 0,
    };
  }
}

export class RegistryWorld {
  readonly simulation = new Simulation();
  readonly system = this.simulation.system();
  readonly repository = new MemoryRepository();
  /** What devices were asked and what was published, in order. */
  readonly log: string[] = [];
  readonly devices: PretendDevice[] = [];
  catalog: Catalog = emptyCatalog;
  #registry: ActorRef<ModelRegistryInbox> | undefined;
  #shown = 'serving nothing';

  constructor(devices: readonly string[] = ['cpu:0']) {
    for (const id of devices) this.devices.push(new PretendDevice(this.system, id, this.log));
  }

  get device(): PretendDevice {
    const [device] = this.devices;
    if (device === undefined) throw new Error('this world has no device');
    return device;
  }

  get registry(): ActorRef<ModelRegistryInbox> {
    if (this.#registry === undefined) throw new Error('the registry is not started');
    return this.#registry;
  }

  start(options: Partial<ModelRegistryOptions> = {}): ActorRef<ModelRegistryInbox> {
    this.#registry = this.system.spawn(
      'models',
      modelRegistryActor({
        files: this.repository,
        mode: 'explicit',
        pollMs: 15_000,
        startupModels: [],
        devices: this.devices.map(({ descriptor: device, ref }) => ({ descriptor: device, ref })),
        residency: firstFit,
        publish: (catalog) => {
          this.catalog = catalog;
          const shown = this.served();
          if (shown !== this.#shown) this.log.push(shown);
          this.#shown = shown;
        },
        ...options,
      }),
    );
    return this.#registry;
  }

  /** Asks and runs the world until there is an answer: `ok`, or the error's code and message. */
  async ask(build: (replyTo: ReplyTo<RegistryOutcome>) => ModelRegistryInbox): Promise<string> {
    const answer = this.begin(build);
    await this.simulation.clock.settleUntil(this.simulation.clock.nowMs() + 1000);
    return await answer;
  }

  /** Asks and does not run the world. */
  begin(build: (replyTo: ReplyTo<RegistryOutcome>) => ModelRegistryInbox): Promise<string> {
    return this.registry
      .ask(build, { deadlineMs: Infinity })
      .catch((thrown: unknown): RegistryOutcome => ({ ok: false, error: asIntarsiaError(thrown) }))
      .then((outcome) => (outcome.ok ? 'ok' : `${outcome.error.code}: ${outcome.error.message}`));
  }

  scan(): Promise<string> {
    return this.ask((replyTo) => ({ type: 'scan', replyTo }));
  }

  load(model: string, overrides: Partial<LoadOverrides> = {}): Promise<string> {
    return this.ask((replyTo) => ({ type: 'load', model, overrides: { files: new Map(), ...overrides }, replyTo }));
  }

  unload(model: string): Promise<string> {
    return this.ask((replyTo) => ({ type: 'unload', model, replyTo }));
  }

  /** The repository index, a line a version: `m/1 READY`, `m/2 UNAVAILABLE why`. */
  index(): readonly string[] {
    return [...this.catalog.models.values()].flatMap(({ name, versions, reason }) =>
      versions.length === 0
        ? [`${name} ${reason}`]
        : versions.map(({ version, state, reason: why }) => `${name}/${version} ${state} ${why}`.trim()),
    );
  }

  /** What answers requests, such as `serving m/1 of width 4 on cpu:0`. */
  served(): string {
    const shown = [...this.catalog.models.values()].flatMap(({ served }) =>
      [...served.values()].map(
        ({ name, version, inputs, devices }) =>
          `${name}/${version} of width ${inputs[0]?.shape[1] ?? 0} on ${devices.join(' and ')}`,
      ),
    );
    return `serving ${shown.join(', ') || 'nothing'}`;
  }

  /** Lets time pass. */
  async pass(milliseconds: number): Promise<void> {
    await this.simulation.clock.settleUntil(this.simulation.clock.nowMs() + milliseconds);
  }
}
