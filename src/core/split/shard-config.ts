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
  whole: Pick<ModelConfig, 'sequenceBatching' | 'outputs'> & { readonly name: ModelName },
  { id, compression, splitBatches }: SplitSpec,
  stages: readonly { readonly inputs: readonly string[]; readonly outputs: readonly string[] }[],
): SplitRoute {
  const kept = keptNames(whole);
  return {
    id,
    stages: stages.map(({ inputs, outputs }, index) => ({
      inputs: inputs.filter((name) => !kept.inputs.has(name)),
      outputs: outputs.filter((name) => !kept.outputs.has(name)),
      model: shardModelName(whole.name, id, index),
      ...(inputs.some((name) => kept.inputs.has(name)) ? { stateful: true } : {}),
    })),
    compression,
    batches: splitBatches === true,
  };
}

/**
 * @throws MODEL_INVALID when a value that crosses has no type, a shape is changed by the configuration, or a state would have
 * to be read in one shard and made in another.
 * @throws UNIMPLEMENTED where stages of a model that batches do not, and controls of its sequences have a batch in front.
 */
export function shardConfig(
  whole: ModelConfig,
  facts: ModelFacts,
  { name, batches }: { readonly name: ModelName; readonly batches: boolean },
): ModelConfig {
  const reshaped = [...whole.inputs, ...whole.outputs].find(({ reshape }) => reshape !== undefined);
  if (reshaped !== undefined) {
    throw intarsiaError(
      'MODEL_INVALID',
      `'${reshaped.name}' of model '${whole.name}' has another shape for clients than in the file (reshape); a model in pieces is served with the shapes of its file`,
      { model: whole.name, tensor: reshaped.name },
    );
  }
  const maxBatchSize = batches ? whole.maxBatchSize : 0;
  const sequenceBatching = shardSequences(whole, facts, { name, maxBatchSize });
  const kept = keptNames(whole);
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
    inputs: facts.inputs
      .filter((value) => !kept.inputs.has(value.name))
      .map((value) => ({
        name: value.name,
        datatype: typed(value),
        ...sizes(value),
        format: 'NONE',
        optional: false,
      })),
    outputs: facts.outputs
      .filter((value) => !kept.outputs.has(value.name))
      .map((value) => ({
        name: value.name,
        datatype: typed(value),
        ...sizes(value),
        labelFilename: '',
      })),
    versionPolicy: defaultVersionPolicy,
    instanceGroups,
    defaultModelFilename,
    ...(maxBatchSize > 0 && dynamicBatching !== undefined ? { dynamicBatching } : {}),
    ...(sequenceBatching === undefined ? {} : { sequenceBatching }),
    warmups: [],
    parameters,
    metricTags,
    ...(optimization === undefined ? {} : { optimization }),
  };
}

/** What the server adds to the requests of a sequence and keeps between them: clients and other stages never see it. */
function keptNames({ sequenceBatching, outputs }: Pick<ModelConfig, 'sequenceBatching' | 'outputs'>): {
  readonly inputs: ReadonlySet<string>;
  readonly outputs: ReadonlySet<string>;
} {
  const { controls = [], states = [] } = sequenceBatching ?? {};
  // A state that is an output as well is shown.
  const shown = new Set(outputs.map(({ name }) => name));
  return {
    inputs: new Set([...controls.map(({ name }) => name), ...states.map(({ inputName }) => inputName)]),
    outputs: new Set(states.map(({ outputName }) => outputName).filter((name) => !shown.has(name))),
  };
}

/** Of the states those that this shard owns, and the controls that it reads; undefined where it has neither. */
function shardSequences(
  { name: model, sequenceBatching, maxBatchSize: wholeBatch }: ModelConfig,
  facts: ModelFacts,
  { name, maxBatchSize }: { readonly name: ModelName; readonly maxBatchSize: number },
): ModelConfig['sequenceBatching'] {
  if (sequenceBatching === undefined) return undefined;
  const inputs = new Set(facts.inputs.map((value) => value.name));
  const outputs = new Set(facts.outputs.map((value) => value.name));
  const isUnbatched = wholeBatch > 0 && maxBatchSize === 0;
  const states = sequenceBatching.states.flatMap((state) => {
    const { inputName, outputName, dims } = state;
    if (!inputs.has(inputName) && !outputs.has(outputName)) return [];
    if (inputs.has(inputName) && outputs.has(outputName))
      return [{ ...state, dims: isUnbatched ? [1, ...dims] : dims }];
    throw intarsiaError(
      'MODEL_INVALID',
      `model '${model}' cannot be served in these pieces: shard ${name} ${inputs.has(inputName) ? `reads the state '${inputName}' and does not make '${outputName}'` : `makes '${outputName}' and does not read the state '${inputName}'`}; a state stays in one shard`,
      { model, state: inputName },
    );
  });
  const controls = sequenceBatching.controls.filter((control) => inputs.has(control.name));
  if (controls.length > 0 && isUnbatched) {
    throw intarsiaError(
      'UNIMPLEMENTED',
      `model '${model}' takes batches and its stages do not: the controls of its sequences (${controls.map((control) => control.name).join(', ')}) have a batch in front; serve it whole`,
      { model },
    );
  }
  return states.length === 0 && controls.length === 0 ? undefined : { ...sequenceBatching, states, controls };
}
