/**
 * A host whose devices pretend: the real gateway, services, access and servers, and in place of a device actor an object
 * that answers `infer` messages as a test wants. Models are described, not loaded.
 */
import { createHash } from 'node:crypto';
import type { Catalog, CatalogEntry, ServedModel } from '#core/catalog.js';
import type { Datatype } from '#core/datatype.js';
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import { artifactDigest, deviceId, hostId, modelName, modelVersion, type DeviceId } from '#core/ids.js';
import type { InferenceOutcome, InferenceRequest } from '#core/inference.js';
import type { ModelConfig } from '#core/model-config.js';
import { ModelStatisticsRecorder } from '#core/model-statistics.js';
import type { Picker } from '#core/picker.js';
import { makeReceipt } from '#core/receipt.js';
import { ReplicaLoads } from '#core/routing-table.js';
import type { Tensor, TensorSpec } from '#core/tensor.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import type { ModelRegistryMessage, RegistryOutcome } from '#actors/model-registry/protocol.js';
import { NodeClock } from '#adapters/node/clock.js';
import type { Delivery, ReplyTo } from '#runtime/actor.js';
import { createAccess, type AccessOptions } from '#server/access.js';
import { createGateway, type Finished, type Gateway } from '#server/gateway.js';
import { createHealth } from '#server/health.js';
import type { LogLevel } from '#server/log-settings.js';
import { PublishedRouter } from '#server/router.js';
import { createServices } from '#server/services.js';

const host = hostId('here');

export interface PretendModel {
  readonly name: string;
  readonly version?: string;
  readonly maxBatchSize?: number;
  /** With -1 in front when the model batches. */
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
  readonly optionalInputs?: readonly string[];
  readonly labels?: readonly string[];
  readonly sequence?: boolean;
  readonly devices?: readonly string[];
}

const spec = (name: string, datatype: Datatype, shape: readonly number[]): TensorSpec => ({ name, datatype, shape });

/** Takes and gives 4 numbers an item. */
export const identity: PretendModel = {
  name: 'identity',
  maxBatchSize: 8,
  inputs: [spec('x', 'FP32', [-1, 4])],
  outputs: [spec('x', 'FP32', [-1, 4])],
  labels: ['cat', 'dog', '', 'fish'],
};
/** No batch dimension, texts in any number. */
export const texts: PretendModel = {
  name: 'texts',
  inputs: [spec('t', 'BYTES', [-1])],
  outputs: [spec('t', 'BYTES', [-1])],
};
/** Two inputs, one optional, sizes that vary. */
export const pair: PretendModel = {
  name: 'pair',
  maxBatchSize: 4,
  inputs: [spec('a', 'INT32', [-1, -1]), spec('b', 'INT32', [-1, 2])],
  outputs: [spec('a', 'INT32', [-1, -1]), spec('b', 'INT32', [-1, 2])],
  optionalInputs: ['b'],
};
export const stateful: PretendModel = {
  name: 'stateful',
  inputs: [spec('x', 'FP32', [1])],
  outputs: [spec('x', 'FP32', [1])],
  sequence: true,
  devices: ['cpu:0', 'wasm:0'],
};
/** On two devices. */
export const replicated: PretendModel = { ...identity, name: 'replicated', devices: ['cpu:0', 'wasm:0'] };
/** Bytes of any size. */
export const blob: PretendModel = {
  name: 'blob',
  inputs: [spec('x', 'UINT8', [-1])],
  outputs: [spec('x', 'UINT8', [-1])],
};

/** A device that gives back what it got, at once or when told to. */
export class PretendDevice {
  readonly id: DeviceId;
  readonly seen: InferenceRequest[] = [];
  readonly cancelled: number[] = [];
  /** What becomes of the next requests: answered soon, kept until `release`, or a failure. */
  behaviour: 'echo' | 'hold' | 'full' | 'stopped' | IntarsiaError = 'echo';
  readonly #held = new Map<
    number,
    { readonly request: InferenceRequest; readonly replyTo: ReplyTo<InferenceOutcome> }
  >();
  #arrivals: (() => void)[] = [];

  constructor(id: string) {
    this.id = deviceId(id);
  }

  tell(message: DeviceMessage): Delivery {
    if (message.type === 'cancel') {
      this.cancelled.push(message.request);
      const held = this.#held.get(message.request);
      this.#held.delete(message.request);
      held?.replyTo.tell({ ok: false, error: intarsiaError('CANCELLED', 'cancelled on the device') });
      return 'accepted';
    }
    if (message.type !== 'infer') return 'accepted';
    if (this.behaviour === 'full' || this.behaviour === 'stopped') return this.behaviour;
    const { request, replyTo } = message;
    this.seen.push(request);
    if (this.behaviour === 'hold') this.#held.set(request.id, { request, replyTo });
    else if (this.behaviour === 'echo') setImmediate(() => replyTo.tell(this.#outcome(request)));
    else {
      const error = this.behaviour;
      setImmediate(() => replyTo.tell({ ok: false, error }));
    }
    const arrivals = this.#arrivals;
    this.#arrivals = [];
    for (const arrived of arrivals) arrived();
    return 'accepted';
  }

  get held(): number {
    return this.#held.size;
  }

  /** Answers everything it holds. */
  release(): void {
    for (const [id, { request, replyTo }] of [...this.#held]) {
      this.#held.delete(id);
      replyTo.tell(this.#outcome(request));
    }
  }

  /** Waits until it has seen so many requests. */
  async arrived(count: number): Promise<void> {
    while (this.seen.length < count) await new Promise<void>((resolve) => this.#arrivals.push(resolve));
  }

  #outcome(request: InferenceRequest): InferenceOutcome {
    const outputs: Tensor[] = request.inputs.filter(
      ({ name }) => request.outputs.length === 0 || request.outputs.includes(name),
    );
    return {
      ok: true,
      outputs,
      receipt: makeReceipt({
        device: {
          id: this.id,
          emulated: this.id === 'wasm:0',
          price: { usdPerHour: 3.6, source: 'configured', origin: 'test' },
          busyWatts: { watts: 100, source: 'profile' },
        },
        billing: request.billing,
        items: request.items,
        batchItems: request.items * 2,
        queueUs: 120,
        roundTripUs: 1100,
        computeInputUs: 10,
        computeInferUs: 980,
        computeOutputUs: 10,
      }),
    };
  }
}

/** Takes the first candidate that is ready and has not failed. */
export const firstPicker: Picker = {
  policy: 'first',
  pick: (_request, candidates, _nowMs, exclude) =>
    candidates.findIndex(({ replica, load }) => load.ready && !exclude.has(replica.id)),
};

export interface PretendHostOptions {
  readonly models?: readonly PretendModel[];
  /** Models that are known and not served: reason by name. */
  readonly broken?: Readonly<Record<string, string>>;
  readonly access?: Partial<AccessOptions>;
  readonly bytesInFlightMax?: number;
  readonly receipts?: boolean;
}

/** SHA-256 of a text in hexadecimal. */
export function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

export class PretendHost {
  readonly clock = new NodeClock();
  readonly router = new PublishedRouter();
  readonly loads = new ReplicaLoads();
  readonly devices = { cpu: new PretendDevice('cpu:0'), wasm: new PretendDevice('wasm:0') };
  readonly finished: Finished[] = [];
  readonly controlled: ModelRegistryMessage[] = [];
  readonly gateway: Gateway;
  readonly services: ReturnType<typeof createServices>;
  readonly health: ReturnType<typeof createHealth>;
  readonly access: ReturnType<typeof createAccess>;
  /** What the model registry answers to `load` and `unload`. */
  registryOutcome: RegistryOutcome = { ok: true };
  isReady = true;
  isLive = true;
  logLevel: LogLevel = 'info';
  #revision = 0;

  /** False: it does not know its models yet. */
  isOpen = true;

  constructor(options: PretendHostOptions = {}) {
    for (const device of Object.values(this.devices)) this.router.setDevice(host, device.id, device);
    this.publish(options.models ?? [identity, texts, pair, stateful, replicated, blob], options.broken ?? {});
    this.gateway = createGateway({
      router: this.router,
      clock: this.clock,
      bytesInFlightMax: options.bytesInFlightMax ?? 2 ** 32,
      receipts: options.receipts ?? true,
      isOpen: () => this.isOpen,
      onFinished: (finished) => this.finished.push(finished),
    });
    this.access = createAccess({ tokens: [], restricted: [], sha256, ...options.access });
    this.services = createServices({
      name: 'intarsia',
      version: '9.9.9',
      router: this.router,
      registry: { ask: (build) => this.#ask(build) },
      clock: this.clock,
      live: () => this.isLive,
      ready: () => this.isReady,
      statistics: () => Promise.resolve(this.#statistics()),
      log: { level: () => this.logLevel, setLevel: (level) => (this.logLevel = level) },
    });
    this.health = createHealth({
      clock: this.clock,
      live: () => this.isLive,
      ready: () => this.isReady,
      model: (name) => ({
        known: this.router.current.catalog.models.has(modelName(name)),
        ready: this.services.isModelReady(name, ''),
      }),
    });
  }

  publish(models: readonly PretendModel[], broken: Readonly<Record<string, string>> = {}): void {
    this.#revision += 1;
    const entries = models.map((model): [ReturnType<typeof modelName>, CatalogEntry] => {
      const served = servedModel(model);
      return [
        served.name,
        {
          name: served.name,
          versions: [{ version: served.version, state: 'READY', reason: '', isQuarantined: false }],
          served: new Map([[served.version, served]]),
          defaultVersion: served.version,
          reason: '',
        },
      ];
    });
    for (const [name, reason] of Object.entries(broken)) {
      entries.push([
        modelName(name),
        {
          name: modelName(name),
          versions: [{ version: modelVersion('1'), state: 'UNAVAILABLE', reason, isQuarantined: false }],
          served: new Map(),
          reason,
        },
      ]);
    }
    const catalog: Catalog = { revision: this.#revision, models: new Map(entries) };
    this.router.publish(this.loads.table({ catalog, host, picker: firstPicker }));
  }

  /** What a gRPC or HTTP server needs of a host, on a free port. */
  serverOptions() {
    return {
      gateway: this.gateway,
      access: this.access,
      services: this.services,
      health: this.health,
      wallMs: () => this.clock.wallMs(),
      bindAddress: '127.0.0.1',
      port: 0,
      messageBytesMax: 64 * 1024 * 1024,
      connectionsMax: 100,
      headerBytesMax: 16 * 1024,
    };
  }

  #ask<Reply>(build: (replyTo: ReplyTo<Reply>) => ModelRegistryMessage): Promise<Reply> {
    return new Promise((resolve) => {
      const message = build({
        tell(reply) {
          resolve(reply);
          return 'accepted';
        },
      });
      this.controlled.push(message);
      if (message.type === 'load' || message.type === 'unload') message.replyTo.tell(this.registryOutcome);
    });
  }

  #statistics() {
    const recorder = new ModelStatisticsRecorder();
    recorder.recordRun({
      requests: 2,
      items: 3,
      requestUs: 40,
      queueUs: 10,
      computeInputUs: 1,
      computeInferUs: 20,
      computeOutputUs: 2,
      finishedWallMs: 1_700_000_000_000,
    });
    return [...this.router.current.catalog.models.values()].flatMap((entry) =>
      [...entry.served.values()].map((served) => ({
        model: served.name,
        version: served.version,
        statistics: recorder.snapshot(),
        memory: [{ type: 'CPU' as const, index: 0, bytes: 1234 }],
      })),
    );
  }
}

function servedModel(model: PretendModel): ServedModel {
  const maxBatchSize = model.maxBatchSize ?? 0;
  const dims = (shape: readonly number[]): readonly number[] => (maxBatchSize > 0 ? shape.slice(1) : shape);
  const config: ModelConfig = {
    name: model.name,
    platform: 'onnxruntime_onnx',
    backend: 'onnxruntime',
    maxBatchSize,
    inputs: model.inputs.map(({ name, datatype, shape }) => ({
      name,
      datatype,
      dims: dims(shape),
      format: 'NONE',
      optional: model.optionalInputs?.includes(name) ?? false,
    })),
    outputs: model.outputs.map(({ name, datatype, shape }) => ({
      name,
      datatype,
      dims: dims(shape),
      labelFilename: '',
    })),
    versionPolicy: { kind: 'latest', count: 1 },
    instanceGroups: [{ name: 'all', kind: 'CPU', count: 1, gpus: [] }],
    defaultModelFilename: 'model.onnx',
    ...(model.sequence === true
      ? {
          sequenceBatching: {
            idleUsMax: 1_000_000,
            controls: [
              { name: 'START', kind: 'START' as const, datatype: 'INT32' as const, falseTrue: [0, 1] as const },
            ],
            states: [],
            strategy: { kind: 'direct' as const, queueDelayUsMax: 0, minimumSlotUtilization: 0 },
          },
        }
      : {}),
    warmups: [],
    parameters: new Map(),
    metricTags: new Map(),
  };
  return {
    name: modelName(model.name),
    version: modelVersion(model.version ?? '1'),
    config,
    inputs: model.inputs,
    outputs: model.outputs,
    optionalInputs: new Set(model.optionalInputs),
    digest: artifactDigest('0'.repeat(64)),
    labels: new Map(model.labels === undefined ? [] : model.outputs.map(({ name }) => [name, model.labels ?? []])),
    devices: (model.devices ?? ['cpu:0']).map(deviceId),
  };
}
