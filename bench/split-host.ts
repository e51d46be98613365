/**
 * A host for the splitting benchmark, in this process: the product's gateway, stage desk, device actors and executor
 * processes, without the transports for clients, whose price `bench -- serve` tells. Models and shards are prepared as
 * hosts prepare them.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { openRepository } from '#adapters/files/repository.js';
import { shardModelFiles } from '#adapters/files/shard-model-files.js';
import { NodeClock } from '#adapters/node/clock.js';
import { nodeDiagnostics } from '#adapters/node/diagnostics.js';
import { SeededRandom } from '#adapters/node/random.js';
import { openPinoLog } from '#adapters/pino/pino-log.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { PrometheusMetrics } from '#adapters/prometheus/prometheus-metrics.js';
import { deviceActor } from '#actors/device/actor.js';
import type { DeviceMessage, LoadOutcome } from '#actors/device/protocol.js';
import { prepareModel } from '#actors/model-registry/prepare-model.js';
import { makeShard } from '#compose/split/make-shard.js';
import { engineTypes } from '#compose/split/reference.js';
import { bringSideFiles } from '#compose/split/shard-files.js';
import { readCutter } from '#compose/split/verify-split.js';
import type { CatalogEntry, ServedModel } from '#core/catalog.js';
import { intarsiaError } from '#core/errors.js';
import {
  anonymousTenant,
  deviceId,
  hostId,
  modelName,
  modelVersion,
  type ModelName,
  type ModelVersion,
  type ReplicaId,
} from '#core/ids.js';
import { noParameters, type InferResponseMessage } from '#core/inference-message.js';
import { modelFacts } from '#core/onnx/model-facts.js';
import type { ExecutionProvider } from '#core/provider.js';
import type { Candidate } from '#core/picker.js';
import type { ReplicaLoad } from '#core/replica.js';
import { balancedCut } from '#core/split/balanced-cut.js';
import { splitIdOf, shardModelName, type SplitSpec, type SplitValue } from '#core/split/split-spec.js';
import type { Tensor } from '#core/tensor.js';
import { GiB } from '#core/units.js';
import { leastWorkPicker } from '#policies/placement/placement-least-work.js';
import type { Executor } from '#ports/executor.js';
import type { ModelFiles } from '#ports/model-files.js';
import type { ActorRef } from '#runtime/actor.js';
import { ActorSystem } from '#runtime/system.js';
import { createGateway, type Gateway } from '#server/gateway.js';
import { PublishedRouter } from '#server/router.js';
import { StageCounts } from '#server/stage-counts.js';
import { StageDesk } from '#server/stage-desk.js';

export interface BenchDevice {
  readonly id: string;
  readonly provider: ExecutionProvider;
  readonly threads: number;
  /** Bytes that models may take; default 16 GiB. */
  readonly memoryBytes?: number;
}

interface Started extends BenchDevice {
  readonly ref: ActorRef<DeviceMessage>;
  executor: Executor | undefined;
}

const version = modelVersion('1');
const loadMsMax = 120_000;
const inferMsMax = 60_000;
const host = hostId('bench');

export class SplitHost {
  readonly folder: string;
  readonly #files: ModelFiles;
  readonly #splits: Map<string, SplitSpec>;
  readonly #system: ActorSystem;
  readonly #devices: ReadonlyMap<string, Started>;
  readonly #router = new PublishedRouter();
  readonly #gateway: Gateway;
  readonly #loads = new Map<ReplicaId, ReplicaLoad>();
  readonly #clock = new NodeClock();
  readonly #picker = leastWorkPicker();
  readonly #served = new Map<ModelName, ServedModel>();
  #revision = 0;
  #closed: Promise<void> | undefined;

  static async start(repository: string, devices: readonly BenchDevice[]): Promise<SplitHost> {
    const folder = await mkdtemp(join(tmpdir(), 'intarsia-split-bench-'));
    const splits = new Map<string, SplitSpec>();
    const files = shardModelFiles({
      whole: await openRepository({ roots: [repository], copyArtifacts: false, allowHardLinks: true }),
      splitOf: (id) => splits.get(id),
      makeShard,
      folder: join(folder, 'shards'),
      bytesMax: 8 * GiB,
    });
    return new SplitHost(folder, files, splits, devices);
  }

  private constructor(
    folder: string,
    files: ModelFiles,
    splits: Map<string, SplitSpec>,
    devices: readonly BenchDevice[],
  ) {
    this.folder = folder;
    this.#files = files;
    this.#splits = splits;
    const { log } = openPinoLog({ level: 'error', format: 'json', fields: {} });
    const metrics = new PrometheusMetrics({ processMetrics: false });
    const clock = this.#clock;
    const random = new SeededRandom('split bench');
    this.#system = new ActorSystem({ host, clock, random, log, metrics, diagnostics: nodeDiagnostics });
    const desk = new StageDesk({ host, process: 'bench', router: this.#router, clock, counts: new StageCounts() });
    const started = new Map<string, Started>();
    for (const device of devices) {
      const { id, provider, threads, memoryBytes = 16 * GiB } = device;
      const ref = this.#system.spawn<DeviceMessage>(
        `device-${id}`,
        deviceActor({
          descriptor: {
            ...{ id: deviceId(id), kind: provider === 'wasm' ? 'wasm' : 'cpu', name: id, vendor: '', provider },
            ...{ fallbackProviders: [], emulated: false, memoryBytes, threads, permits: 2, facts: {} },
          },
          startExecutor: async () => {
            const executor = await startProcessExecutor({ provider });
            const kept = started.get(id);
            if (kept !== undefined) kept.executor = executor;
            return executor;
          },
          metrics,
          canaryMs: 0,
          usageMs: 0,
        }),
      );
      started.set(id, { ...device, ref, executor: undefined });
      this.#router.setDevice(host, deviceId(id), desk.device(ref));
    }
    this.#devices = started;
    this.#gateway = createGateway({ router: this.#router, clock, bytesInFlightMax: 4 * GiB, receipts: true });
  }

  /** Process of the device's executor. */
  pid(device: string): number {
    const pid = this.#devices.get(device)?.executor?.description.pid;
    if (pid === undefined) throw new Error(`the executor of ${device} does not run`);
    return pid;
  }

  /** The whole model, on each of the devices. @param parameters Instead of those of its configuration. */
  async place(
    name: string,
    devices: readonly string[],
    parameters: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const served = await this.#load(modelName(name), devices);
    const config = { ...served.config, parameters: new Map(Object.entries(parameters)) };
    this.#served.set(served.name, { ...served, config });
    this.#publish();
  }

  /** The model in pieces, each on its device; answers the name under which it is asked. */
  async split(name: string, split: SplitSpec, devices: readonly string[]): Promise<string> {
    this.#splits.set(split.id, split);
    let whole: ServedModel | undefined;
    for (const [shard, device] of devices.entries()) {
      const served = await this.#load(shardModelName(modelName(name), split.id, shard), [device]);
      this.#served.set(served.name, served);
      if (served.part !== undefined) whole = { ...served.part.whole, devices: [], split: served.part.route };
    }
    if (whole === undefined) throw new Error(`${name} has no shards`);
    const as = modelName(`${name}-split-${split.id}`);
    this.#served.set(as, { ...whole, name: as });
    this.#publish();
    return as;
  }

  /** As the gate makes it. @param places Positions, or how many stages. */
  async splitOf(name: string, places: number | readonly number[], batches = true): Promise<SplitSpec> {
    const folder = await this.#files.open(modelName(name));
    const artifact = await folder.artifact(version, 'model.onnx');
    const types = await mkdtemp(join(this.folder, 'types-'));
    const cpu = await startProcessExecutor({ provider: 'cpu', lanes: 1 });
    try {
      const cutter = await readCutter(artifact.path);
      const sideFiles = modelFacts(cutter.graph.model).externalTensors.map(({ location }) => location);
      await bringSideFiles(sideFiles, { from: dirname(artifact.path), to: types });
      const known = await engineTypes(cutter.graph, { cpu, folder: types, optimization: 'disabled' });
      const cuts = typeof places === 'number' ? balancedCut(cutter, known, places) : places;
      const values: [string, SplitValue][] = [];
      for (const crossing of cutter.cut(cuts).crossings) {
        const type = known.get(crossing.name);
        if (type?.kind !== 'tensor') throw new Error(`${crossing.name} has no type`);
        const shape = type.shape?.map(({ size }) => size);
        values.push([crossing.name, { dataType: type.dataType, ...(shape === undefined ? {} : { shape }) }]);
      }
      const { digest } = artifact;
      return {
        format: 1,
        id: splitIdOf({ digest, cuts, compression: 'none' }),
        digest,
        cuts,
        shards: [...cuts, 0].map(() => ({ memoryBytes: 0 })),
        compression: 'none',
        splitBatches: batches,
        values: Object.fromEntries(values),
      };
    } finally {
      await cpu.close({ graceMs: 5_000 });
      await artifact.release();
      await folder.close();
      await rm(types, { recursive: true, force: true });
    }
  }

  /** Files of the shards, in order: what raw loops run. */
  async shardPaths(name: string, split: SplitSpec): Promise<readonly string[]> {
    this.#splits.set(split.id, split);
    const paths: string[] = [];
    for (const shard of split.shards.keys()) {
      const folder = await this.#files.open(shardModelName(modelName(name), split.id, shard));
      const artifact = await folder.artifact(version, 'model.onnx');
      paths.push(artifact.path);
      await artifact.release();
      await folder.close();
    }
    return paths;
  }

  infer(model: string, inputs: readonly Tensor[]): Promise<InferResponseMessage> {
    return new Promise((resolve, reject) => {
      this.#gateway.infer(
        {
          ...{ modelName: model, modelVersion: '', id: '', parameters: noParameters, outputs: [], rawContents: true },
          inputs: inputs.map((tensor) => ({ ...tensor, parameters: noParameters })),
        },
        {
          caller: { tenant: anonymousTenant, namesTenant: true, mayUse: () => true },
          deadlineMs: this.#clock.nowMs() + inferMsMax,
          messageBytes: 0,
          sloMs: 0,
          traceparent: undefined,
          reservedParameters: new Set(),
        },
        {
          succeed: (answer) => {
            resolve(answer);
            answer.release?.();
          },
          fail: reject,
        },
      );
    });
  }

  /** Ends everything; whoever waits for an answer is told. Once, however often it is asked for. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#system.terminate();
    for (const { executor } of this.#devices.values()) await executor?.close({ graceMs: 5_000 });
    await this.#files.close();
    await rm(this.folder, { recursive: true, force: true });
  }

  /** @throws what the device refuses it with, such as RESOURCE_EXHAUSTED beyond its memory. */
  async #load(name: ModelName, devices: readonly string[]): Promise<ServedModel> {
    const options = { files: this.#files, random: new SeededRandom('warm-up') };
    const { versions } = await prepareModel(name, { files: new Map() }, options, [version]);
    const [outcome] = versions;
    if (outcome?.ok !== true) throw outcome?.error ?? intarsiaError('NOT_FOUND', `${name} has no version ${version}`);
    const { placement, served } = outcome.prepared;
    for (const id of devices) {
      const device = this.#devices.get(id);
      if (device === undefined) throw new Error(`no device ${id}`);
      const loaded = await device.ref.ask<LoadOutcome>((replyTo) => ({ type: 'load', placement, replyTo }), {
        deadlineMs: this.#clock.nowMs() + loadMsMax,
      });
      if (!loaded.ok) throw loaded.error;
    }
    return { ...served, devices: devices.map(deviceId) };
  }

  #publish(): void {
    this.#revision += 1;
    const models = new Map<ModelName, CatalogEntry>();
    for (const [name, served] of this.#served) {
      const versions = [{ version, state: 'READY', reason: '', isQuarantined: false } as const];
      models.set(name, { name, versions, served: new Map([[version, served]]), defaultVersion: version, reason: '' });
    }
    const catalog = { revision: this.#revision, models };
    const candidates = new Map([...this.#served].map(([name, served]) => [name, this.#candidates(served)]));
    this.#router.publish({ catalog, candidates, picker: this.#picker });
  }

  #candidates({ name, digest, devices }: ServedModel): ReadonlyMap<ModelVersion, readonly Candidate[]> {
    const list = devices.map((device): Candidate => {
      // As in a grid: names of shards are no identifiers.
      const id = `${name}@${device}` as ReplicaId;
      let load = this.#loads.get(id);
      if (load === undefined) this.#loads.set(id, (load = { itemsInFlight: 0, msPerItem: 0, ready: true }));
      return { replica: { id, model: name, version, stages: [{ digest, host, device }] }, load };
    });
    return new Map([[version, list]]);
  }
}
