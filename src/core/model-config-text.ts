/**
 * The fields of Triton's ModelConfig (model_config.proto of triton-inference-server/common): what each means here, which
 * are read over, and which are refused because ignoring them would change what a model computes.
 */
import { intarsiaError } from './errors.js';
import {
  defaultModelFilename,
  defaultVersionPolicy,
  type DraftInput,
  type DraftOutput,
  type ModelConfigDraft,
  type Placed,
} from './model-config-draft.js';
import { FieldReader } from './model-config-fields.js';
import { readDynamicBatching, readSequenceBatching } from './model-config-scheduling.js';
import {
  optionalField,
  readDatatype,
  readFileName,
  readShape,
  refuseTwoOf,
  requiredString,
} from './model-config-values.js';
import type {
  InstanceGroup,
  InstanceKind,
  ModelInputConfig,
  VersionPolicy,
  Warmup,
  WarmupInput,
} from './model-config.js';
import { parsePbtxt, type TextMessage } from './pbtxt.js';
import type { OptimizationLevel } from './provider.js';
import type { Shape } from './tensor.js';

const int32Max = 2 ** 31 - 1;

/**
 * Reads the text of a config.pbtxt.
 * @param fileName Shown in messages.
 * @throws MODEL_INVALID `config.pbtxt:12:5: …`.
 */
export function modelConfigFromPbtxt(text: string, fileName: string): ModelConfigDraft {
  return modelConfigFromTree(parsePbtxt(text, fileName));
}

/** Reads a configuration from its tree of fields. @throws MODEL_INVALID with the place. */
export function modelConfigFromTree(tree: TextMessage): ModelConfigDraft {
  const notes: string[] = [];
  const root = new FieldReader(tree, 'the configuration', notes);
  refuseTwoOf(root, ['dynamic_batching', 'sequence_batching', 'ensemble_scheduling']);
  root.refuse('an ensemble is not a model; call its steps', 'ensemble_scheduling');
  root.refuse('batch inputs and outputs are not made by this host', 'batch_input', 'batch_output');
  root.ignore('files by compute capability are not used', 'cc_model_filenames');
  root.ignore('libraries of custom operators are not loaded', 'model_operations');
  root.ignore('repository agents do not run here', 'model_repository_agents');
  root.ignore('answers are not cached', 'response_cache');
  root.ignore('metrics are the same for all models', 'model_metrics');
  root.ignore('the engine is chosen by the device', 'runtime');
  const transaction = root.message('model_transaction_policy');
  transaction?.refuse('an ONNX model gives one answer a request', 'decoupled');
  transaction?.finish();
  const maxBatchSize = root.integer('max_batch_size', { min: 0, max: int32Max });
  const dynamic = root.message('dynamic_batching');
  const sequence = root.message('sequence_batching');
  const optimization = readOptimization(root);
  const draft: ModelConfigDraft = {
    place: root.place,
    ...optionalField('name', root.placedString('name')),
    ...optionalField('platform', root.placedString('platform')),
    ...optionalField('backend', root.placedString('backend')),
    ...optionalField(
      'maxBatchSize',
      maxBatchSize === undefined ? undefined : { value: maxBatchSize, place: root.placeOf('max_batch_size') },
    ),
    inputs: root.messages('input').map(readInput),
    outputs: root.messages('output').map(readOutput),
    versionPolicy: readVersionPolicy(root.message('version_policy')),
    instanceGroups: root.messages('instance_group').map(readInstanceGroup),
    defaultModelFilename: readFileName(root, 'default_model_filename') ?? defaultModelFilename,
    ...optionalField(
      'dynamicBatching',
      dynamic === undefined ? undefined : { value: readDynamicBatching(dynamic), place: dynamic.place },
    ),
    ...optionalField(
      'sequenceBatching',
      sequence === undefined ? undefined : { value: readSequenceBatching(sequence), place: sequence.place },
    ),
    warmups: root.messages('model_warmup').map(readWarmup),
    parameters: readParameters(root),
    metricTags: root.stringMap('metric_tags'),
    ...optionalField('optimization', optimization),
    notes,
  };
  root.finish();
  refuseRepeated('input', draft.inputs);
  refuseRepeated('output', draft.outputs);
  return draft;
}

const formats: readonly ModelInputConfig['format'][] = ['NONE', 'NHWC', 'NCHW'];
const formatsByName = new Map(formats.map((format) => [`FORMAT_${format}`, format]));
const formatsByNumber = new Map(formats.map((format, number) => [number, format]));

function readInput(reader: FieldReader): DraftInput {
  const datatype = readDatatype(reader);
  reader.refuse('inputs of one batch have one shape here', 'allow_ragged_batch');
  reader.refuse('it belongs to TensorRT', 'is_shape_tensor', 'is_non_linear_format_io');
  const input = {
    name: requiredString(reader, 'name'),
    ...optionalField('datatype', datatype),
    ...readShapes(reader),
    format: reader.choice('format', formatsByName, formatsByNumber) ?? 'NONE',
    optional: reader.bool('optional') ?? false,
    place: reader.place,
  };
  reader.finish();
  return input;
}

function readOutput(reader: FieldReader): DraftOutput {
  const datatype = readDatatype(reader);
  reader.refuse('it belongs to TensorRT', 'is_shape_tensor', 'is_non_linear_format_io');
  const output = {
    name: requiredString(reader, 'name'),
    ...optionalField('datatype', datatype),
    ...readShapes(reader),
    labelFilename: readFileName(reader, 'label_filename') ?? '',
    place: reader.place,
  };
  reader.finish();
  return output;
}

function readShapes(reader: FieldReader): { readonly dims?: Shape; readonly reshape?: Shape } {
  const dims = reader.has('dims') ? readShape(reader, 'dims') : undefined;
  const reshape = reader.message('reshape');
  if (reshape === undefined) return optionalField('dims', dims);
  const shape = readShape(reshape, 'shape');
  reshape.finish();
  return { ...optionalField('dims', dims), reshape: shape };
}

function readVersionPolicy(reader: FieldReader | undefined): VersionPolicy {
  if (reader === undefined) return defaultVersionPolicy;
  refuseTwoOf(reader, ['latest', 'all', 'specific']);
  const latest = reader.message('latest');
  const all = reader.message('all');
  const specific = reader.message('specific');
  reader.finish();
  all?.finish();
  if (all !== undefined) return { kind: 'all' };
  if (specific !== undefined) {
    const versions = specific.integers('versions', { min: 1, max: 999_999_999_999_999 }).map(String);
    specific.finish();
    return { kind: 'specific', versions };
  }
  const count = latest?.integer('num_versions', { min: 0, max: int32Max }) ?? 1;
  latest?.finish();
  return { kind: 'latest', count: Math.max(1, count) };
}

const instanceKinds: readonly InstanceKind[] = ['AUTO', 'GPU', 'CPU', 'MODEL'];
const instanceKindsByName = new Map(instanceKinds.map((kind) => [`KIND_${kind}`, kind]));
const instanceKindsByNumber = new Map(instanceKinds.map((kind, number) => [number, kind]));
/** Far beyond what a device has use for; what is above would only exhaust memory. */
const instancesMax = 1024;

function readInstanceGroup(reader: FieldReader): InstanceGroup {
  reader.ignore('devices share their time by their permits', 'rate_limiter');
  reader.ignore('it belongs to TensorRT', 'profile', 'secondary_devices');
  reader.ignore('host policies are not used', 'host_policy');
  reader.refuse('a passive instance never runs', 'passive');
  const group: InstanceGroup = {
    name: reader.string('name') ?? '',
    kind: reader.choice('kind', instanceKindsByName, instanceKindsByNumber) ?? 'AUTO',
    count: Math.max(1, reader.integer('count', { min: 0, max: instancesMax }) ?? 1),
    gpus: reader.integers('gpus', { min: 0, max: 4095 }),
  };
  reader.finish();
  return group;
}

function readWarmup(reader: FieldReader): Placed<Warmup> {
  const inputs: WarmupInput[] = [];
  const warmup = {
    name: reader.string('name') ?? '',
    batchSize: reader.integer('batch_size', { min: 0, max: int32Max }) ?? 0,
    count: reader.integer('count', { min: 0, max: 10_000 }) ?? 0,
    inputs,
  };
  for (const [name, input] of reader.messageMap('inputs')) {
    refuseTwoOf(input, ['zero_data', 'random_data', 'input_data_file']);
    const datatype = readDatatype(input);
    if (datatype === undefined) {
      throw intarsiaError(
        'MODEL_INVALID',
        `${input.place}: data_type is missing in warm-up input ${JSON.stringify(name)}`,
      );
    }
    const dims = input.integers('dims', { min: 0, max: Number.MAX_SAFE_INTEGER });
    const file = readFileName(input, 'input_data_file');
    const random = input.bool('random_data') !== undefined;
    input.bool('zero_data');
    input.finish();
    const source: WarmupInput['source'] =
      file === undefined ? { kind: random && datatype !== 'BYTES' ? 'random' : 'zero' } : { kind: 'file', file };
    inputs.push({ name, datatype, dims, source });
  }
  reader.finish();
  return { value: warmup, place: reader.place };
}

function readParameters(root: FieldReader): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const [key, value] of root.messageMap('parameters')) {
    parameters.set(key, value.string('string_value') ?? '');
    value.finish();
  }
  return parameters;
}

/** Triton's ONNX backend: -1 basic, 1 extended, 2 disables all; anything else leaves the default. */
const optimizationOfLevel: ReadonlyMap<number, OptimizationLevel> = new Map([
  [-1, 'basic'],
  [1, 'extended'],
  [2, 'disabled'],
]);

function readOptimization(root: FieldReader): OptimizationLevel | undefined {
  const optimization = root.message('optimization');
  if (optimization === undefined) return undefined;
  optimization.ignore('all models share a device by their permits', 'priority');
  optimization.ignore('it belongs to CUDA', 'cuda', 'input_pinned_memory', 'output_pinned_memory');
  optimization.ignore('batches are not gathered by kernels', 'gather_kernel_buffer_threshold', 'eager_batching');
  optimization.ignore('execution providers are chosen by the device', 'execution_accelerators');
  optimization.ignore('the model file stays as it is', 'model_operations');
  const graph = optimization.message('graph');
  optimization.finish();
  const level = graph?.integer('level', { min: -int32Max, max: int32Max });
  graph?.finish();
  return level === undefined ? undefined : optimizationOfLevel.get(level);
}

function refuseRepeated(what: string, entries: readonly { readonly name: string; readonly place: string }[]): void {
  const seen = new Set<string>();
  for (const { name, place } of entries) {
    if (seen.has(name)) {
      throw intarsiaError('MODEL_INVALID', `${place}: ${what} ${JSON.stringify(name)} appears a second time`, {
        place,
      });
    }
    seen.add(name);
  }
}
