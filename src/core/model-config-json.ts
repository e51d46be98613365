/**
 * Configurations as JSON: Triton's `config` parameter of a load request in, Triton's answer to `GET …/config` out.
 *
 * JSON becomes the same tree of fields as config.pbtxt does, so that one reader knows the fields. As in protobuf's JSON,
 * names may be snake_case or lowerCamelCase, 64-bit numbers may be quoted, and null means absent.
 */
import { tritonDatatypeName } from './datatype.js';
import { intarsiaError, messageOf } from './errors.js';
import type { ModelConfigDraft } from './model-config-draft.js';
import type {
  DynamicBatching,
  ModelConfig,
  QueuePolicy,
  SequenceBatching,
  SequenceControl,
  VersionPolicy,
  Warmup,
} from './model-config.js';
import { modelConfigFromTree } from './model-config-text.js';
import type { OptimizationLevel } from './provider.js';
import type { TextField, TextMessage, TextValue } from './pbtxt.js';

export type JsonValue = string | number | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue };
export type JsonObject = Readonly<Record<string, JsonValue>>;

/** Fields of a configuration whose JSON object is a map: its keys are data, not field names. */
const mapFields = new Set(['parameters', 'metric_tags', 'priority_queue_policy', 'inputs', 'cc_model_filenames']);
const depthMax = 32;
const charactersMax = 4 * 1024 * 1024;

/**
 * Reads a configuration written as JSON.
 * @param source What messages call the text, such as `config`.
 * @throws MODEL_INVALID naming the field, such as `config.input[0].dims`.
 */
export function modelConfigFromJson(json: string, source: string): ModelConfigDraft {
  if (json.length > charactersMax) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${source}: ${json.length} characters of JSON; at most ${charactersMax} are read`,
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (thrown) {
    throw intarsiaError('MODEL_INVALID', `${source}: not JSON: ${messageOf(thrown)}`, {}, thrown);
  }
  if (!isObject(value)) throw intarsiaError('MODEL_INVALID', `${source}: a configuration is a JSON object`);
  return modelConfigFromTree(treeOf(value, source, 0));
}

function treeOf(object: Readonly<Record<string, unknown>>, place: string, depth: number): TextMessage {
  if (depth > depthMax) throw intarsiaError('MODEL_INVALID', `${place}: objects nest deeper than ${depthMax}`);
  const fields: TextField[] = [];
  for (const [key, value] of Object.entries(object)) {
    const name = key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    const fieldPlace = `${place}.${key.slice(0, 80)}`;
    if (value === null) continue;
    if (mapFields.has(name) && isObject(value)) {
      for (const [mapKey, mapValue] of Object.entries(value)) {
        const entryPlace = `${fieldPlace}[${JSON.stringify(mapKey.slice(0, 80))}]`;
        const entry: TextField[] = [
          { name: 'key', value: { kind: 'loose', text: mapKey, place: entryPlace }, place: entryPlace },
          { name: 'value', value: valueOf(mapValue, entryPlace, depth + 1), place: entryPlace },
        ];
        fields.push({ name, value: { kind: 'message', fields: entry, place: entryPlace }, place: entryPlace });
      }
    } else if (Array.isArray(value)) {
      value.forEach((element: unknown, index) => {
        const elementPlace = `${fieldPlace}[${index}]`;
        fields.push({ name, value: valueOf(element, elementPlace, depth + 1), place: elementPlace });
      });
    } else {
      fields.push({ name, value: valueOf(value, fieldPlace, depth + 1), place: fieldPlace });
    }
  }
  return { kind: 'message', fields, place };
}

function valueOf(value: unknown, place: string, depth: number): TextValue {
  switch (typeof value) {
    case 'string':
      return { kind: 'loose', text: value, place };
    case 'number':
      return { kind: 'number', text: String(value), place };
    case 'boolean':
      return { kind: 'word', text: String(value), place };
    default:
      if (isObject(value)) return treeOf(value, place, depth);
      throw intarsiaError('MODEL_INVALID', `${place}: ${value === null ? 'null' : 'a list'} cannot stand here`, {
        place,
      });
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The configuration as Triton's REST `config` endpoint shows it: snake_case, every field present, numbers unquoted. */
export function modelConfigToJson(config: ModelConfig): JsonObject {
  return {
    name: config.name,
    platform: config.platform,
    backend: config.backend,
    version_policy: versionPolicyJson(config.versionPolicy),
    max_batch_size: config.maxBatchSize,
    input: config.inputs.map((input) => ({
      name: input.name,
      data_type: tritonDatatypeName(input.datatype),
      format: `FORMAT_${input.format}`,
      dims: input.dims,
      ...(input.reshape === undefined ? {} : { reshape: { shape: input.reshape } }),
      is_shape_tensor: false,
      allow_ragged_batch: false,
      optional: input.optional,
    })),
    output: config.outputs.map((output) => ({
      name: output.name,
      data_type: tritonDatatypeName(output.datatype),
      dims: output.dims,
      ...(output.reshape === undefined ? {} : { reshape: { shape: output.reshape } }),
      label_filename: output.labelFilename,
      is_shape_tensor: false,
    })),
    batch_input: [],
    batch_output: [],
    optimization: {
      priority: 'PRIORITY_DEFAULT',
      ...(config.optimization === undefined ? {} : { graph: { level: graphLevelOf[config.optimization] } }),
    },
    ...(config.dynamicBatching === undefined ? {} : { dynamic_batching: dynamicBatchingJson(config.dynamicBatching) }),
    ...(config.sequenceBatching === undefined
      ? {}
      : { sequence_batching: sequenceBatchingJson(config.sequenceBatching) }),
    instance_group: config.instanceGroups.map((group) => ({
      name: group.name,
      kind: `KIND_${group.kind}`,
      count: group.count,
      gpus: group.gpus,
      secondary_devices: [],
      profile: [],
      passive: false,
      host_policy: '',
    })),
    default_model_filename: config.defaultModelFilename,
    cc_model_filenames: {},
    metric_tags: Object.fromEntries(config.metricTags),
    parameters: Object.fromEntries([...config.parameters].map(([key, value]) => [key, { string_value: value }])),
    model_warmup: config.warmups.map(warmupJson),
  };
}

const graphLevelOf: Readonly<Record<OptimizationLevel, number>> = { basic: -1, extended: 1, all: 0, disabled: 2 };

function versionPolicyJson(policy: VersionPolicy): JsonObject {
  switch (policy.kind) {
    case 'latest':
      return { latest: { num_versions: policy.count } };
    case 'all':
      return { all: {} };
    case 'specific':
      return { specific: { versions: policy.versions.map(Number) } };
  }
}

function dynamicBatchingJson(batching: DynamicBatching): JsonObject {
  return {
    preferred_batch_size: batching.preferredBatchSizes,
    max_queue_delay_microseconds: batching.queueDelayUsMax,
    preserve_ordering: batching.preserveOrdering,
    priority_levels: batching.priorityLevels,
    default_priority_level: batching.defaultPriorityLevel,
    default_queue_policy: queuePolicyJson(batching.defaultQueuePolicy),
    priority_queue_policy: Object.fromEntries(
      [...batching.priorityQueuePolicies].map(([level, policy]) => [String(level), queuePolicyJson(policy)]),
    ),
  };
}

function queuePolicyJson(policy: QueuePolicy): JsonObject {
  return {
    timeout_action: policy.timeoutAction,
    default_timeout_microseconds: policy.defaultTimeoutUs,
    allow_timeout_override: policy.allowTimeoutOverride,
    max_queue_size: policy.sizeMax,
  };
}

function sequenceBatchingJson(batching: SequenceBatching): JsonObject {
  const { strategy } = batching;
  return {
    max_sequence_idle_microseconds: batching.idleUsMax,
    control_input: batching.controls.map((control) => ({ name: control.name, control: [controlJson(control)] })),
    state: batching.states.map((state) => ({
      input_name: state.inputName,
      output_name: state.outputName,
      data_type: tritonDatatypeName(state.datatype),
      dims: state.dims,
      initial_state:
        state.initialFile === undefined
          ? []
          : [
              {
                name: state.initialFile,
                data_type: tritonDatatypeName(state.datatype),
                dims: state.dims,
                data_file: state.initialFile,
              },
            ],
    })),
    ...(strategy.kind === 'direct'
      ? {
          direct: {
            max_queue_delay_microseconds: strategy.queueDelayUsMax,
            minimum_slot_utilization: strategy.minimumSlotUtilization,
          },
        }
      : {
          oldest: {
            max_candidate_sequences: strategy.candidateSequencesMax,
            preferred_batch_size: strategy.preferredBatchSizes,
            max_queue_delay_microseconds: strategy.queueDelayUsMax,
            preserve_ordering: strategy.preserveOrdering,
          },
        }),
  };
}

function controlJson({ kind, datatype, falseTrue }: SequenceControl): JsonObject {
  const [no, yes] = falseTrue;
  const controlKind = `CONTROL_SEQUENCE_${kind}`;
  if (kind === 'CORRID') return { kind: controlKind, data_type: tritonDatatypeName(datatype) };
  return {
    kind: controlKind,
    int32_false_true: datatype === 'INT32' ? [no, yes] : [],
    fp32_false_true: datatype === 'FP32' ? [no, yes] : [],
    bool_false_true: datatype === 'BOOL' ? [no !== 0, yes !== 0] : [],
    data_type: 'TYPE_INVALID',
  };
}

function warmupJson(warmup: Warmup): JsonObject {
  return {
    name: warmup.name,
    batch_size: warmup.batchSize,
    count: warmup.count,
    inputs: Object.fromEntries(
      warmup.inputs.map((input) => [
        input.name,
        {
          data_type: tritonDatatypeName(input.datatype),
          dims: input.dims,
          ...(input.source.kind === 'file'
            ? { input_data_file: input.source.file }
            : { [`${input.source.kind}_data`]: true }),
        },
      ]),
    ),
  };
}
