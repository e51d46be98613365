/**
 * A model's configuration as somebody wrote it: what is missing is still missing, and each part remembers where it
 * stands, so that what is found wrong later can be shown in the file. model-config-completion.ts makes a ModelConfig of
 * it and of the model itself.
 */
import type { Datatype } from './datatype.js';
import type {
  DynamicBatching,
  InstanceGroup,
  ModelInputConfig,
  SequenceBatching,
  VersionPolicy,
  Warmup,
} from './model-config.js';
import type { Place } from './pbtxt.js';
import type { OptimizationLevel } from './provider.js';
import type { Shape } from './tensor.js';

export interface DraftInput {
  readonly name: string;
  readonly datatype?: Datatype;
  readonly dims?: Shape;
  readonly reshape?: Shape;
  readonly format: ModelInputConfig['format'];
  readonly optional: boolean;
  readonly place: Place;
}

export interface DraftOutput {
  readonly name: string;
  readonly datatype?: Datatype;
  readonly dims?: Shape;
  readonly reshape?: Shape;
  readonly labelFilename: string;
  readonly place: Place;
}

/** A value with the place where it stands. */
export interface Placed<Value> {
  readonly value: Value;
  readonly place: Place;
}

export interface ModelConfigDraft {
  /** Start of the text, such as `config.pbtxt:1:1`; shown when something is missing rather than wrong. */
  readonly place: Place;
  readonly name?: Placed<string>;
  readonly platform?: Placed<string>;
  readonly backend?: Placed<string>;
  readonly maxBatchSize?: Placed<number>;
  readonly inputs: readonly DraftInput[];
  readonly outputs: readonly DraftOutput[];
  readonly versionPolicy: VersionPolicy;
  readonly instanceGroups: readonly InstanceGroup[];
  readonly defaultModelFilename: string;
  readonly dynamicBatching?: Placed<DynamicBatching>;
  readonly sequenceBatching?: Placed<SequenceBatching>;
  readonly warmups: readonly Placed<Warmup>[];
  readonly parameters: ReadonlyMap<string, string>;
  readonly metricTags: ReadonlyMap<string, string>;
  readonly optimization?: OptimizationLevel;
  /** What was read and has no effect here, one sentence each. */
  readonly notes: readonly string[];
}

/** Triton's default: the highest version only. */
export const defaultVersionPolicy: VersionPolicy = { kind: 'latest', count: 1 };
/** Triton's default for ONNX. */
export const defaultModelFilename = 'model.onnx';
