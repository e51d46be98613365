/** A device in a simulated world, with words for what tests say about it. */
import { deviceActor } from '#actors/device/actor.js';
import type {
  DeviceMessage,
  DeviceStatus,
  LoadOutcome,
  Placement,
  VersionStatistics,
} from '#actors/device/protocol.js';
import type { DeviceActorOptions, DeviceLimits } from '#actors/device/options.js';
import type { DeviceDescriptor } from '#core/device.js';
import { anonymousTenant, artifactDigest, deviceId, modelName, modelVersion, type RequestId } from '#core/ids.js';
import type { InferenceOutcome, InferenceRequest } from '#core/inference.js';
import type { ModelConfig } from '#core/model-config.js';
import type { Tensor, TensorSpec } from '#core/tensor.js';
import type { ActorRef } from '#runtime/actor.js';
import { PretendExecutors, type PretendModel, type PretendOptions } from '#sim/pretend-executor.js';
import { Simulation } from '#sim/simulation.js';

export const cpu: DeviceDescriptor = {
  id: deviceId('cpu:0'),
  kind: 'cpu',
  name: 'pretend',
  vendor: 'none',
  provider: 'cpu',
  fallbackProviders: [],
  emulated: true,
  memoryBytes: 1_000_000,
  threads: 1,
  permits: 1,
  busyWatts: { watts: 50, source: 'profile' },
  price: { usdPerHour: 3.6, source: 'configured', origin: 'test' },
  facts: {},
};

const spec = (name: string): TensorSpec => ({ name, datatype: 'INT32', shape: [-1, 1] });

/** Doubles its input. 10 ms a run, 1,000 bytes. */
export function doubler(changes: Partial<PretendModel> = {}): PretendModel {
  return {
    inputs: [spec('X')],
    outputs: [spec('Y')],
    loadMs: 5,
    memoryBytes: 1000,
    runMs: () => 10,
    compute: ([x]) => [
      { name: 'Y', datatype: 'INT32', shape: x!.shape, data: int32(...numbers(x!).map((v) => 2 * v)) },
    ],
    ...changes,
  };
}

export function modelConfig(name: string, changes: Partial<ModelConfig> = {}): ModelConfig {
  return {
    name,
    platform: 'onnxruntime_onnx',
    backend: 'onnxruntime',
    maxBatchSize: 8,
    inputs: [{ name: 'X', datatype: 'INT32', dims: [1], format: 'NONE', optional: false }],
    outputs: [{ name: 'Y', datatype: 'INT32', dims: [1], labelFilename: '' }],
    versionPolicy: { kind: 'latest', count: 1 },
    instanceGroups: [],
    defaultModelFilename: 'model.onnx',
    warmups: [],
    parameters: new Map(),
    metricTags: new Map(),
    ...changes,
  };
}

export function int32(...values: number[]): Uint8Array {
  return new Uint8Array(Int32Array.from(values).buffer);
}

export function numbers(tensor: Tensor): number[] {
  const copy = tensor.data.slice();
  return [...new Int32Array(copy.buffer)];
}

/** A digest that begins with the letter codes of a name, so that different artefacts differ. */
export function digestOf(text: string): ReturnType<typeof artifactDigest> {
  const hex = Array.from(new TextEncoder().encode(text), (byte) => byte.toString(16).padStart(2, '0')).join('');
  return artifactDigest(hex.padEnd(64, '0').slice(0, 64));
}

export interface Answer {
  readonly id: RequestId;
  /** When it came (ms); undefined while it has not. */
  atMs: number | undefined;
  outcomes: InferenceOutcome[];
}

export type WorldOptions = Partial<Omit<DeviceActorOptions, 'limits'>> & {
  readonly limits?: Partial<DeviceLimits>;
  readonly models: Record<string, PretendModel>;
  readonly executor?: Partial<PretendOptions>;
  readonly seed?: number;
};

export class DeviceWorld {
  readonly simulation: Simulation;
  readonly executors: PretendExecutors;
  readonly fallbackExecutors: PretendExecutors;
  readonly health: string[] = [];
  readonly models: Map<string, PretendModel>;
  readonly device: ActorRef<DeviceMessage>;
  readonly system;
  #requests = 0;

  constructor({ models, executor, seed, ...options }: WorldOptions) {
    this.simulation = new Simulation({ seed: seed ?? 1 });
    this.models = new Map(Object.entries(models));
    const { clock } = this.simulation;
    this.executors = new PretendExecutors({ clock, models: this.models, ...executor });
    this.fallbackExecutors = new PretendExecutors({ clock, models: this.models, provider: 'wasm' });
    this.system = this.simulation.system();
    this.device = this.system.spawn(
      'device',
      deviceActor({
        descriptor: cpu,
        startExecutor: this.executors.start,
        metrics: this.simulation.metrics,
        canaryMs: 0,
        usageMs: 0,
        hooks: { onHealth: (health) => this.health.push(health) },
        ...options,
      }),
    );
  }

  get nowMs(): number {
    return this.simulation.clock.nowMs();
  }

  /** Lets time pass up to that moment, promises included. */
  async until(ms: number): Promise<void> {
    await this.simulation.clock.settleUntil(ms);
  }

  async pass(ms: number): Promise<void> {
    await this.until(this.nowMs + ms);
  }

  placement(path: string, config: ModelConfig, changes: Partial<Placement> = {}): Placement {
    const model = this.models.get(path);
    return {
      model: modelName(config.name),
      version: modelVersion('1'),
      config,
      artifact: { digest: digestOf(path), path },
      weightBytes: 100,
      inputs: model?.inputs ?? [],
      outputs: model?.outputs ?? [],
      optimization: 'all',
      warmups: [],
      ...changes,
    };
  }

  /** Asks for a load; the outcome is in the list once it is there. */
  requestLoad(placement: Placement): LoadOutcome[] {
    const outcomes: LoadOutcome[] = [];
    this.device.tell({ type: 'load', placement, replyTo: { tell: (outcome) => (outcomes.push(outcome), 'accepted') } });
    return outcomes;
  }

  /** Loads and lets the time pass that this takes, at most `ms`. */
  async load(path: string, config: ModelConfig, changes: Partial<Placement> = {}, ms = 1000): Promise<LoadOutcome> {
    const outcomes = this.requestLoad(this.placement(path, config, changes));
    await this.pass(ms);
    if (outcomes.length !== 1)
      throw new Error(`the load of ${path} was answered ${outcomes.length} times within ${ms} ms`);
    return outcomes[0]!;
  }

  request(model: string, values: number[], changes: Partial<InferenceRequest> = {}): InferenceRequest {
    this.#requests += 1;
    const data = int32(...values);
    return {
      id: this.#requests as RequestId,
      model: modelName(model),
      version: modelVersion('1'),
      inputs: [{ name: 'X', datatype: 'INT32', shape: [values.length, 1], data }],
      outputs: [],
      items: values.length,
      batchKey: 'X[1]',
      bytes: data.byteLength,
      priority: 0,
      queueTimeoutUs: 0,
      deadlineMs: Infinity,
      billing: { tenant: anonymousTenant, project: '', user: '' },
      arrivedMs: this.nowMs,
      ...changes,
    };
  }

  send(request: InferenceRequest): Answer {
    const answer: Answer = { id: request.id, atMs: undefined, outcomes: [] };
    this.device.tell({
      type: 'infer',
      request,
      replyTo: {
        tell: (outcome) => {
          answer.outcomes.push(outcome);
          answer.atMs = this.nowMs;
          return 'accepted';
        },
      },
    });
    return answer;
  }

  infer(model: string, values: number[], changes: Partial<InferenceRequest> = {}): Answer {
    return this.send(this.request(model, values, changes));
  }

  cancel(answer: Answer, model: string): void {
    this.device.tell({ type: 'cancel', request: answer.id, model: modelName(model), version: modelVersion('1') });
  }

  /** Moment and items of each run of an artefact, without the warm-up after each load. */
  runsOf(path: string, from = 1): [ms: number, items: number][] {
    return this.executors.runs
      .filter((run) => run.artifact === path)
      .slice(from)
      .map((run) => [run.startedMs, run.items]);
  }

  async status(): Promise<DeviceStatus> {
    const found: DeviceStatus[] = [];
    this.device.tell({ type: 'status', replyTo: { tell: (status) => (found.push(status), 'accepted') } });
    await this.until(this.nowMs);
    return found[0]!;
  }

  async statistics(): Promise<readonly VersionStatistics[]> {
    const found: (readonly VersionStatistics[])[] = [];
    this.device.tell({ type: 'statistics', replyTo: { tell: (all) => (found.push(all), 'accepted') } });
    await this.until(this.nowMs);
    return found[0]!;
  }
}

/** The values of output Y, or the code of the error; throws unless there is exactly one outcome. */
export function valueOf(answer: Answer): number[] | string {
  if (answer.outcomes.length !== 1) throw new Error(`request ${answer.id} has ${answer.outcomes.length} outcomes`);
  const outcome = answer.outcomes[0]!;
  return outcome.ok ? numbers(outcome.outputs[0]!) : outcome.error.code;
}
