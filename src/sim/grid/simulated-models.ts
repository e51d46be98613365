/**
 * The models of a simulated grid: what they compute is simple enough to be checked by whoever asked, and they are different
 * artefacts by version. `SimulatedDisk` holds their files on one host, as a cache that outlives the process would.
 */
import { intarsiaError } from '#core/errors.js';
import type { ModelManifest } from '#core/grid/records.js';
import { artifactDigest, modelName, modelVersion, type ModelName, type ModelVersion } from '#core/ids.js';
import type { ModelFacts } from '#core/onnx/model-facts.js';
import type { Tensor, TensorSpec } from '#core/tensor.js';
import { KiB } from '#core/units.js';
import type { ArtifactSource, HeldModel } from '#ports/artifact-source.js';
import type { Clock } from '#ports/clock.js';
import type { ModelFiles, ModelFolder } from '#ports/model-files.js';
import type { PretendModel } from '../pretend-executor.js';
import type { PlantedBug } from './planted-bugs.js';

export const width = 4;
export const versionsPerModel = 3;
export const copyBytes = 1024 * KiB;
const fileName = 'model.onnx';
const loadMs = 150;
const fetchMs = 120;

/** What a version makes of a value. Exact for whole numbers up to 2^20. */
export function expected(value: number, version: number): number {
  return value * 2 + version;
}

export function floatsOf(data: Uint8Array): Float32Array {
  return new Float32Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength));
}

export function manifestOf(model: string, version: number): ModelManifest {
  const sha256 = digestText(model, version);
  return {
    format: 1,
    model: modelName(model),
    version: modelVersion(String(version)),
    digest: artifactDigest(sha256),
    memoryBytes: copyBytes,
    files: [{ path: `${version}/${fileName}`, bytes: copyBytes, sha256 }],
  };
}

/** Behaviour of every artefact of the models, on a host that is so many times slower than usual, and may be wrong. */
export function pretendModels(
  models: readonly string[],
  slowness: () => number,
  bug?: PlantedBug,
): ReadonlyMap<string, PretendModel> {
  const behaviour = new Map<string, PretendModel>();
  const spec = (name: string): TensorSpec => ({ name, datatype: 'FP32', shape: [-1, width] });
  for (const model of models) {
    const isStateful = isStatefulModel(model);
    for (let version = 1; version <= versionsPerModel; version += 1) {
      behaviour.set(pathOf(digestText(model, version)), {
        inputs: ['x', ...(isStateful ? ['before'] : [])].map(spec),
        outputs: ['y', ...(isStateful ? ['after'] : [])].map(spec),
        loadMs,
        memoryBytes: copyBytes,
        runMs: (items) => (2 + items * 0.5) * slowness(),
        compute: (inputs) => {
          const [x, before] = ['x', 'before'].map((name) => inputs.find((input) => input.name === name));
          if (x === undefined) return [];
          if (!isStateful) return [computed(x, bug === 'wrong-answer' ? version + 1 : version)];
          return before === undefined ? [] : summed(x, before, bug === 'forgotten-state');
        },
      });
    }
  }
  return behaviour;
}

/** Name of the model of a deployment; that of a stateful one says so. */
export function modelOf({ name, stateful = false }: { readonly name: string; readonly stateful?: boolean }): string {
  return stateful ? `${statefulPrefix}${name}` : `model-of-${name}`;
}

const statefulPrefix = 'sums-of-';

export function isStatefulModel(model: string): boolean {
  return model.startsWith(statefulPrefix);
}

/** The sum of all of a sequence so far, and the same as its state. */
function summed(x: Tensor, before: Tensor, isForgotten: boolean): readonly Tensor[] {
  const sums = floatsOf(before.data);
  const values = floatsOf(x.data).map((value, index) => value + (isForgotten ? 0 : (sums[index] ?? 0)));
  const data = new Uint8Array(values.buffer);
  return ['y', 'after'].map((name) => ({ name, datatype: 'FP32', shape: x.shape, data }));
}

function computed(x: Tensor, version: number): Tensor {
  const values = floatsOf(x.data).map((value) => expected(value, version));
  return { name: 'y', datatype: 'FP32', shape: x.shape, data: new Uint8Array(values.buffer) };
}

/** Files that hosts give each other, by SHA-256: who has them now and can be asked. */
export interface FileExchange {
  /** Whether somebody who lives has it. */
  isHeldBy(sha256: string): boolean;
}

/** What one host holds on its disk. */
export class SimulatedDisk implements ModelFiles, Pick<ArtifactSource, 'ensure' | 'describe' | 'variants'> {
  readonly #held = new Map<string, ModelManifest>();
  readonly #exchange: FileExchange;
  /** Nothing can be written. */
  isFull = false;
  /** Fetches that failed for want of room. */
  refusals = 0;
  fetches = 0;
  /** Of the process that runs now. */
  clock: Clock;

  constructor(clock: Clock, exchange: FileExchange) {
    this.clock = clock;
    this.#exchange = exchange;
  }

  put(manifest: ModelManifest): void {
    this.#held.set(`${manifest.model}/${manifest.version}`, manifest);
  }

  holds(sha256: string): boolean {
    for (const { files } of this.#held.values()) if (files.some((file) => file.sha256 === sha256)) return true;
    return false;
  }

  // What the host agent asks for.

  variants(): Promise<readonly []> {
    return Promise.resolve([]);
  }

  describe(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  ensure(manifest: ModelManifest): ReturnType<ArtifactSource['ensure']> {
    const held = new Promise<HeldModel>((resolve, reject) => {
      this.clock.schedule(fetchMs, () => {
        try {
          this.#fetch(manifest);
          resolve({ manifest, release: () => Promise.resolve() });
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      });
    });
    return { held, cancel: () => {} };
  }

  #fetch(manifest: ModelManifest): void {
    if (this.#held.has(`${manifest.model}/${manifest.version}`)) return;
    if (this.isFull) {
      this.refusals += 1;
      throw intarsiaError('STORAGE_FULL', 'the disk of this host is full');
    }
    for (const { sha256 } of manifest.files) {
      if (this.#exchange.isHeldBy(sha256)) continue;
      throw intarsiaError('UNAVAILABLE', `nobody who can be reached holds ${sha256.slice(0, 12)}`);
    }
    this.fetches += 1;
    this.put(manifest);
  }

  // What the model registry reads.

  list(): ReturnType<ModelFiles['list']> {
    return Promise.resolve({ models: [], notes: [] });
  }

  open(name: ModelName): Promise<ModelFolder> {
    const manifests = [...this.#held.values()].filter(({ model }) => model === name);
    if (manifests.length === 0) return Promise.reject(intarsiaError('MODEL_NOT_FOUND', `no model "${name}" here`));
    return Promise.resolve({
      versions: manifests.map(({ version }) => version).sort((left, right) => Number(left) - Number(right)),
      configText: isStatefulModel(name) ? statefulConfigText : configText,
      bytes: (path) => Promise.reject(intarsiaError('NOT_FOUND', `${name}/${path} does not exist`)),
      artifact: (version: ModelVersion) => {
        const manifest = manifests.find((each) => each.version === version);
        const sha256 = manifest?.files[0]?.sha256;
        if (manifest === undefined || sha256 === undefined) {
          return Promise.reject(intarsiaError('NOT_FOUND', `${name}/${version} does not exist`));
        }
        return Promise.resolve({
          digest: manifest.digest,
          path: pathOf(sha256),
          facts: isStatefulModel(name) ? statefulFacts : facts,
          files: [{ name: fileName, bytes: copyBytes, sha256 }],
          release: () => Promise.resolve(),
        });
      },
      close: () => Promise.resolve(),
    });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

const configText = `max_batch_size: 8
dynamic_batching { max_queue_delay_microseconds: 500 }`;

/** Longer than any client is silent between two requests of a sequence. */
const statefulConfigText = `max_batch_size: 8
sequence_batching {
  max_sequence_idle_microseconds: 20000000
  oldest { max_candidate_sequences: 64 }
  state [ { input_name: "before" output_name: "after" data_type: TYPE_FP32 dims: [ ${width} ] } ]
}`;

const batched = [
  { size: -1, symbol: 'n' },
  { size: width, symbol: '' },
];

const facts: ModelFacts = {
  irVersion: 9,
  producer: 'simulation',
  opsets: new Map([['', 18]]),
  inputs: [{ name: 'x', datatype: 'FP32', shape: batched }],
  outputs: [{ name: 'y', datatype: 'FP32', shape: batched }],
  defaultedInputs: [],
  weightBytes: copyBytes / 2,
  externalTensors: [],
  operators: new Map([['Mul', 1]]),
};

const statefulFacts: ModelFacts = {
  ...facts,
  inputs: [...facts.inputs, { name: 'before', datatype: 'FP32', shape: batched }],
  outputs: [...facts.outputs, { name: 'after', datatype: 'FP32', shape: batched }],
};

function pathOf(sha256: string): string {
  return `/held/${sha256}/${fileName}`;
}

/** Not a digest of anything: another text for every version, in a digest's shape. */
function digestText(model: string, version: number): string {
  const codes = Array.from(`${model}/${version}`, (sign) => sign.charCodeAt(0).toString(16).padStart(2, '0'));
  return codes.join('').padEnd(64, '0').slice(0, 64);
}
