/**
 * The configuration under which a shard is served, which follows from the whole model's: it takes and gives what its file
 * says, batches only where the gate has shown that every value between stages has the batch in front, and is optimised as
 * the whole model is.
 */
import { intarsiaError } from '../errors.js';
import type { ModelName } from '../ids.js';
import { defaultVersionPolicy } from '../model-config-draft.js';
import type { ModelConfig } from '../model-config.js';
import type { ModelFacts, ValueFacts } from '../onnx/model-facts.js';
import type { Shape } from '../tensor.js';
import { shardModelName, type SplitSpec } from './split-spec.js';
import type { SplitRoute } from './stage-route.js';

/** How requests for the model are run. `stages`: names that each takes and gives. */
export function splitRoute(
  model: ModelName,
  { id, compression, splitBatches }: SplitSpec,
  stages: readonly { readonly inputs: readonly string[]; readonly outputs: readonly string[] }[],
): SplitRoute {
  return {
    id,
    stages: stages.map((stage, index) => ({ ...stage, model: shardModelName(model, id, index) })),
    compression,
    batches: splitBatches === true,
  };
}

/**
 * @throws UNIMPLEMENTED for a model whose requests belong to sequences: their state would have to stay with one shard.
 * @throws MODEL_INVALID when a value that crosses has no type, or a shape is changed by the configuration.
 */
export function shardConfig(
  whole: ModelConfig,
  facts: ModelFacts,
  { name, batches }: { readonly name: ModelName; readonly batches: boolean },
): ModelConfig {
  if (whole.sequenceBatching !== undefined) {
    throw intarsiaError(
      'UNIMPLEMENTED',
      `model '${whole.name}' keeps sequences (sequence_batching) and cannot be served in pieces; serve it whole`,
      { model: whole.name },
    );
  }
  const reshaped = [...whole.inputs, ...whole.outputs].find(({ reshape }) => reshape !== undefined);
  if (reshaped !== undefined) {
    throw intarsiaError(
      'MODEL_INVALID',
      `'${reshaped.name}' of model '${whole.name}' has another shape for clients than in the file (reshape); a model in pieces is served with the shapes of its file`,
      { model: whole.name, tensor: reshaped.name },
    );
  }
  const maxBatchSize = batches ? whole.maxBatchSize : 0;
  const given = new Map([...whole.inputs, ...whole.outputs].map((tensor) => [tensor.name, tensor.dims]));
  const sizes = (value: ValueFacts): { readonly dims: Shape } => {
    const known = given.get(value.name);
    if (known !== undefined) return { dims: whole.maxBatchSize > 0 && maxBatchSize === 0 ? [-1, ...known] : known };
    const shape = value.shape?.map(({ size }) => size) ?? [-1];
    return { dims: maxBatchSize > 0 ? shape.slice(1) : shape };
  };
  const typed = (value: ValueFacts): NonNullable<ValueFacts['datatype']> => {
    if (value.datatype !== undefined) return value.datatype;
    throw intarsiaError('MODEL_INVALID', `value '${value.name}' of shard ${name} has no type`, { value: value.name });
  };
  const { platform, backend, instanceGroups, defaultModelFilename, parameters, metricTags, optimization } = whole;
  const { dynamicBatching } = whole;
  return {
    name,
    platform,
    backend,
    maxBatchSize,
    inputs: facts.inputs.map((value) => ({
      name: value.name,
      datatype: typed(value),
      ...sizes(value),
      format: 'NONE',
      optional: false,
    })),
    outputs: facts.outputs.map((value) => ({
      name: value.name,
      datatype: typed(value),
      ...sizes(value),
      labelFilename: '',
    })),
    versionPolicy: defaultVersionPolicy,
    instanceGroups,
    defaultModelFilename,
    ...(maxBatchSize > 0 && dynamicBatching !== undefined ? { dynamicBatching } : {}),
    warmups: [],
    parameters,
    metricTags,
    ...(optimization === undefined ? {} : { optimization }),
  };
}
