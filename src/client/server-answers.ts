/** What a server tells about itself and its models, as plain data: numbers instead of 64-bit integers, names as in TypeScript. */
import {
  ModelConfigResponse,
  ModelMetadataResponse,
  ModelStatisticsResponse,
  RepositoryIndexResponse,
  type InferStatistics,
  type StatisticDuration,
} from '#gen/inference.js';
import type { ModelState } from '#core/catalog.js';
import { isDatatype, type Datatype } from '#core/datatype.js';
import type { TensorSpec } from '#core/tensor.js';
import { intarsiaError } from '#core/errors.js';

export type JsonValue = number | string | boolean | null | JsonValue[] | { [name: string]: JsonValue };

export interface ServerMetadata {
  readonly name: string;
  readonly version: string;
  readonly extensions: readonly string[];
}

export interface ModelMetadata {
  readonly name: string;
  /** Versions that are served. */
  readonly versions: readonly string[];
  readonly platform: string;
  /** Shapes include the batch dimension; -1 may vary. */
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
}

/** The configuration in the protocol's JSON form: the fields of config.pbtxt with their names there. */
export type ModelConfigJson = Readonly<Record<string, JsonValue>>;

export interface RepositoryModel {
  readonly name: string;
  /** Empty when no version is known. */
  readonly version: string;
  readonly state: ModelState | '';
  /** Why it is unavailable; empty when ready. */
  readonly reason: string;
}

/** How often something happened, and the time all of it took. */
export interface DurationTotal {
  readonly count: number;
  readonly ns: number;
}

/** Totals since the model was loaded. */
export interface ModelStatistics {
  readonly name: string;
  readonly version: string;
  /** Milliseconds since 1970; 0 before the first request. */
  readonly lastInferenceMs: number;
  /** Items. */
  readonly inferenceCount: number;
  /** Batches. */
  readonly executionCount: number;
  readonly success: DurationTotal;
  readonly fail: DurationTotal;
  readonly queue: DurationTotal;
  readonly computeInput: DurationTotal;
  readonly computeInfer: DurationTotal;
  readonly computeOutput: DurationTotal;
  readonly batches: readonly { readonly size: number; readonly count: number; readonly inferNs: number }[];
}

export function modelMetadataOf(bytes: Uint8Array): ModelMetadata {
  const { name, versions, platform, inputs, outputs } = ModelMetadataResponse.fromBinary(bytes);
  return { name, versions, platform, inputs: inputs.map(tensorSpecOf), outputs: outputs.map(tensorSpecOf) };
}

export function modelConfigOf(bytes: Uint8Array): ModelConfigJson {
  const json = ModelConfigResponse.toJson(ModelConfigResponse.fromBinary(bytes), { useProtoFieldName: true });
  const config = isJsonObject(json) ? json['config'] : undefined;
  return isJsonObject(config) ? config : {};
}

export function modelStatisticsOf(bytes: Uint8Array): ModelStatistics[] {
  return ModelStatisticsResponse.fromBinary(bytes).modelStats.map((stats) => {
    const total = (pick: (all: InferStatistics) => StatisticDuration | undefined): DurationTotal =>
      durationOf(stats.inferenceStats === undefined ? undefined : pick(stats.inferenceStats));
    return {
      name: stats.name,
      version: stats.version,
      lastInferenceMs: Number(stats.lastInference),
      inferenceCount: Number(stats.inferenceCount),
      executionCount: Number(stats.executionCount),
      success: total((all) => all.success),
      fail: total((all) => all.fail),
      queue: total((all) => all.queue),
      computeInput: total((all) => all.computeInput),
      computeInfer: total((all) => all.computeInfer),
      computeOutput: total((all) => all.computeOutput),
      batches: stats.batchStats.map((batch) => {
        const infer = durationOf(batch.computeInfer);
        return { size: Number(batch.batchSize), count: infer.count, inferNs: infer.ns };
      }),
    };
  });
}

export function repositoryModelsOf(bytes: Uint8Array): RepositoryModel[] {
  return RepositoryIndexResponse.fromBinary(bytes).models.map(({ name, version, state, reason }) => ({
    name,
    version,
    state: isModelState(state) ? state : '',
    reason,
  }));
}

const modelStates: ReadonlySet<string> = new Set<ModelState>(['READY', 'UNAVAILABLE', 'LOADING', 'UNLOADING']);

function isModelState(text: string): text is ModelState {
  return modelStates.has(text);
}

function tensorSpecOf(tensor: { name: string; datatype: string; shape: bigint[] }): TensorSpec {
  return { name: tensor.name, datatype: datatypeOf(tensor.datatype), shape: tensor.shape.map(Number) };
}

function datatypeOf(text: string): Datatype {
  if (isDatatype(text)) return text;
  throw intarsiaError('INTERNAL', `the server names the unknown datatype '${text.slice(0, 80)}'`);
}

function durationOf(duration: StatisticDuration | undefined): DurationTotal {
  return { count: Number(duration?.count ?? 0n), ns: Number(duration?.ns ?? 0n) };
}

function isJsonObject(json: JsonValue | undefined): json is Record<string, JsonValue> {
  return typeof json === 'object' && json !== null && !Array.isArray(json);
}
