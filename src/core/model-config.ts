/**
 * A model's configuration, complete: every default filled in, Triton's meaning of every field.
 *
 * It is made from `config.pbtxt` (pbtxt.ts), from JSON given with a load request, or inferred from the model itself.
 * Sizes in `dims` leave out the batch dimension when `maxBatchSize` is above 0; -1 may vary.
 */
import type { Datatype } from './datatype.js';
import type { OptimizationLevel } from './provider.js';
import type { Shape } from './tensor.js';

export interface ModelInputConfig {
  readonly name: string;
  readonly datatype: Datatype;
  readonly dims: Shape;
  /** Shape the model itself takes, when it differs from what clients send. */
  readonly reshape?: Shape;
  readonly format: 'NONE' | 'NHWC' | 'NCHW';
  readonly optional: boolean;
}

export interface ModelOutputConfig {
  readonly name: string;
  readonly datatype: Datatype;
  readonly dims: Shape;
  readonly reshape?: Shape;
  /** File of the model's folder with one class label a line; empty for none. */
  readonly labelFilename: string;
}

export type VersionPolicy =
  | { readonly kind: 'latest'; readonly count: number }
  | { readonly kind: 'all' }
  | { readonly kind: 'specific'; readonly versions: readonly string[] };

export type InstanceKind = 'AUTO' | 'GPU' | 'CPU' | 'MODEL';

export interface InstanceGroup {
  readonly name: string;
  readonly kind: InstanceKind;
  /** Sessions of the model on each device of the group. */
  readonly count: number;
  /** Indices of GPUs; empty for every GPU. */
  readonly gpus: readonly number[];
}

/** What happens to requests that wait too long, per priority level. */
export interface QueuePolicy {
  /** REJECT fails a request that waited too long; DELAY lets it wait behind all others. */
  readonly timeoutAction: 'REJECT' | 'DELAY';
  /** Microseconds; 0 waits for ever. */
  readonly defaultTimeoutUs: number;
  /** Whether a request may shorten its own timeout. */
  readonly allowTimeoutOverride: boolean;
  /** Requests that may wait at this level; 0 for the host's own bound. At the bound new ones are refused. */
  readonly sizeMax: number;
}

export interface DynamicBatching {
  /** Sizes in items at which a batch leaves at once, ascending. Empty: as large as `maxBatchSize`. */
  readonly preferredBatchSizes: readonly number[];
  /** Microseconds a batch may wait for companions once the device is free. 0 takes what is there. */
  readonly queueDelayUsMax: number;
  /** Answers leave in the order their requests came. */
  readonly preserveOrdering: boolean;
  /** 0: no priorities. Otherwise levels 1 (highest) to this. */
  readonly priorityLevels: number;
  readonly defaultPriorityLevel: number;
  readonly defaultQueuePolicy: QueuePolicy;
  readonly priorityQueuePolicies: ReadonlyMap<number, QueuePolicy>;
}

export type SequenceControlKind = 'START' | 'END' | 'READY' | 'CORRID';

/** A tensor the server adds to each request of a sequence. */
export interface SequenceControl {
  readonly name: string;
  readonly kind: SequenceControlKind;
  readonly datatype: Datatype;
  /** Values for false and true; unused for CORRID. */
  readonly falseTrue: readonly [number, number];
}

/** A tensor the server keeps between the requests of a sequence: `outputName` of one run is `inputName` of the next. */
export interface SequenceState {
  readonly inputName: string;
  readonly outputName: string;
  readonly datatype: Datatype;
  readonly dims: Shape;
  /** Bytes of the state before the first request; undefined for zeros. */
  readonly initial?: Uint8Array;
  /** File of the model's folder `initial_state` that `initial` is read from; undefined for zeros. */
  readonly initialFile?: string;
}

export interface SequenceBatching {
  /** Microseconds after which a silent sequence is forgotten. Triton's default: 1,000,000. */
  readonly idleUsMax: number;
  readonly controls: readonly SequenceControl[];
  readonly states: readonly SequenceState[];
  readonly strategy:
    | { readonly kind: 'direct'; readonly queueDelayUsMax: number; readonly minimumSlotUtilization: number }
    | {
        readonly kind: 'oldest';
        readonly candidateSequencesMax: number;
        readonly preferredBatchSizes: readonly number[];
        readonly queueDelayUsMax: number;
        readonly preserveOrdering: boolean;
      };
}

export interface WarmupInput {
  readonly name: string;
  readonly datatype: Datatype;
  readonly dims: Shape;
  readonly source: { readonly kind: 'zero' | 'random' } | { readonly kind: 'file'; readonly file: string };
}
export interface Warmup {
  readonly name: string;
  /** Items; 0 and 1 both mean one. */
  readonly batchSize: number;
  readonly count: number;
  readonly inputs: readonly WarmupInput[];
}

export interface ModelConfig {
  readonly name: string;
  /** `onnxruntime_onnx` for every model here. */
  readonly platform: string;
  readonly backend: string;
  /** Items a batch may hold; 0: the model has no batch dimension and every request runs alone. */
  readonly maxBatchSize: number;
  readonly inputs: readonly ModelInputConfig[];
  readonly outputs: readonly ModelOutputConfig[];
  readonly versionPolicy: VersionPolicy;
  readonly instanceGroups: readonly InstanceGroup[];
  readonly defaultModelFilename: string;
  /** At most one of the two is set; neither: requests run one at a time in order of arrival. */
  readonly dynamicBatching?: DynamicBatching;
  readonly sequenceBatching?: SequenceBatching;
  readonly warmups: readonly Warmup[];
  /** `parameters { key value { string_value } }`. Ours begin with `intarsia_`, such as `intarsia_devices`. */
  readonly parameters: ReadonlyMap<string, string>;
  readonly metricTags: ReadonlyMap<string, string>;
  /** From `optimization { graph { level } }`; absent: everything the engine can. */
  readonly optimization?: OptimizationLevel;
}

/** What Triton does when a queue policy is not written. */
export const defaultQueuePolicy: QueuePolicy = {
  timeoutAction: 'REJECT',
  defaultTimeoutUs: 0,
  allowTimeoutOverride: false,
  sizeMax: 0,
};

/** `dynamic_batching { }`: take what waits, up to the largest batch, without delay. */
export const defaultDynamicBatching: DynamicBatching = {
  preferredBatchSizes: [],
  queueDelayUsMax: 0,
  preserveOrdering: false,
  priorityLevels: 0,
  defaultPriorityLevel: 0,
  defaultQueuePolicy,
  priorityQueuePolicies: new Map(),
};
