/**
 * Makes a complete ModelConfig of what somebody wrote and of what the model says itself, as Triton's ONNX backend does:
 * inputs and outputs come from the model when they are not written, and the batch dimension is recognised.
 *
 * Where it differs from Triton (docs/model-repository.md tells users): an inferred batch holds 32 items instead of 4, and
 * a first dimension counts as the batch only when it looks like one.
 */
import { intarsiaError } from './errors.js';
import { checkAgainstModel } from './model-config-check.js';
import { defaultModelFilename, defaultVersionPolicy } from './model-config-draft.js';
import type { DraftInput, DraftOutput, ModelConfigDraft } from './model-config-draft.js';
import { defaultDynamicBatching } from './model-config.js';
import type { ModelConfig, ModelInputConfig, ModelOutputConfig } from './model-config.js';
import type { ModelFacts, ValueFacts } from './onnx/model-facts.js';
import type { Shape } from './tensor.js';

/**
 * Items of a batch when nobody says. Large enough that small models gain all they can from batching, small enough that
 * the inputs of a large one stay in memory.
 */
export const inferredBatchSize = 32;

const platformName = 'onnxruntime_onnx';
const backendName = 'onnxruntime';

const emptyDraft: ModelConfigDraft = {
  place: 'no configuration',
  inputs: [],
  outputs: [],
  versionPolicy: defaultVersionPolicy,
  instanceGroups: [],
  defaultModelFilename,
  warmups: [],
  parameters: new Map(),
  metricTags: new Map(),
  notes: [],
};

/**
 * The configuration of a model version.
 * @param draft What was written; undefined when there is no configuration at all.
 * @param facts What the model file says.
 * @param name The name of the model's folder.
 * @throws MODEL_INVALID when the two contradict each other; the message names both.
 */
export function completeModelConfig(draft: ModelConfigDraft | undefined, facts: ModelFacts, name: string): ModelConfig {
  const written = draft ?? emptyDraft;
  checkIdentity(written, name);
  const sequence = written.sequenceBatching?.value;
  const serverInputs = new Set<string>();
  for (const control of sequence?.controls ?? []) serverInputs.add(control.name);
  for (const state of sequence?.states ?? []) serverInputs.add(state.inputName);
  const stateOutputs = new Set((sequence?.states ?? []).map((state) => state.outputName));
  const isInferred = written.inputs.length === 0 || written.outputs.length === 0;
  const canBatch = isInferred && hasBatchDimension(facts);
  const maxBatchSize = written.maxBatchSize?.value ?? (canBatch ? inferredBatchSize : 0);
  const batches = maxBatchSize > 0;
  const dynamicBatching =
    written.dynamicBatching?.value ??
    (canBatch && maxBatchSize > 1 && sequence === undefined ? defaultDynamicBatching : undefined);
  const inputs =
    written.inputs.length === 0
      ? facts.inputs
          .filter((value) => !serverInputs.has(value.name))
          .map((value) => inferredInput(value, batches, name))
      : written.inputs.map((input) => completedInput(input, facts, batches, name));
  const outputs =
    written.outputs.length === 0
      ? facts.outputs
          .filter((value) => !stateOutputs.has(value.name))
          .map((value) => inferredOutput(value, batches, name))
      : written.outputs.map((output) => completedOutput(output, facts, batches, name));
  const config: ModelConfig = {
    name,
    platform: platformName,
    backend: backendName,
    maxBatchSize,
    inputs,
    outputs,
    versionPolicy: written.versionPolicy,
    instanceGroups:
      written.instanceGroups.length === 0
        ? [{ name, kind: 'AUTO', count: 1, gpus: [] }]
        : written.instanceGroups.map((group, index) => ({
            ...group,
            name: group.name === '' ? `${name}_${index}` : group.name,
          })),
    defaultModelFilename: written.defaultModelFilename,
    ...(dynamicBatching === undefined ? {} : { dynamicBatching }),
    ...(sequence === undefined ? {} : { sequenceBatching: sequence }),
    warmups: written.warmups.map(({ value }) => value),
    parameters: written.parameters,
    metricTags: written.metricTags,
    ...(written.optimization === undefined ? {} : { optimization: written.optimization }),
  };
  checkAgainstModel(config, written, facts);
  return config;
}

function checkIdentity(draft: ModelConfigDraft, name: string): void {
  if (draft.name !== undefined && draft.name.value !== '' && draft.name.value !== name) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${draft.name.place}: the configuration is for model ${JSON.stringify(draft.name.value)}; the folder is called ${JSON.stringify(name)}`,
      { place: draft.name.place },
    );
  }
  const { platform, backend } = draft;
  if (platform !== undefined && platform.value !== '' && platform.value !== platformName) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${platform.place}: platform ${JSON.stringify(platform.value)} is not served here; only ${platformName}`,
      { place: platform.place, platform: platform.value },
    );
  }
  if (backend !== undefined && backend.value !== '' && backend.value !== backendName) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${backend.place}: backend ${JSON.stringify(backend.value)} is not served here; only ${backendName}`,
      { place: backend.place, backend: backend.value },
    );
  }
}

/** Names that exporters make up for a dimension nobody named. */
const madeUpSymbol = /^(unk__.*|None|\?|-1|)$/;
/** Names of first dimensions that are no batch: joining requests along them would change their meaning. */
const lengthSymbol = /seq|len|time|frame|token|step|width|height|sample/i;

/**
 * Whether requests may be joined along the first dimension: it varies in every input and output, is one and the same
 * dimension where the file names it, and is not called a length.
 */
function hasBatchDimension(facts: ModelFacts): boolean {
  const symbols = new Set<string>();
  for (const { shape } of [...facts.inputs, ...facts.outputs]) {
    const first = shape?.[0];
    if (first?.size !== -1) return false;
    symbols.add(madeUpSymbol.test(first.symbol) ? '' : first.symbol);
  }
  const [symbol] = symbols;
  return symbols.size === 1 && symbol !== undefined && facts.inputs.length > 0 && !lengthSymbol.test(symbol);
}

function inferredInput(value: ValueFacts, batches: boolean, model: string): ModelInputConfig {
  const { name, datatype, shape } = value;
  if (datatype === undefined) throw untyped('input', name, model);
  if (shape === undefined) {
    throw intarsiaError(
      'MODEL_INVALID',
      `model ${JSON.stringify(model)} does not say how many dimensions its input ${JSON.stringify(name)} has; write its dims in config.pbtxt`,
      { model, input: name },
    );
  }
  return { name, datatype, ...inferredShapes(value, batches), format: 'NONE', optional: false };
}

function inferredOutput(value: ValueFacts, batches: boolean, model: string): ModelOutputConfig {
  if (value.datatype === undefined) throw untyped('output', value.name, model);
  return { name: value.name, datatype: value.datatype, ...inferredShapes(value, batches), labelFilename: '' };
}

/** As Triton does, a tensor without dimensions of its own is shown to clients as one of size 1. */
function inferredShapes({ shape }: ValueFacts, batches: boolean): { readonly dims: Shape; readonly reshape?: Shape } {
  if (shape === undefined) return { dims: [-1] };
  const dims = shape.map(({ size }) => size).slice(batches ? 1 : 0);
  return dims.length === 0 ? { dims: [1], reshape: [] } : { dims };
}

function completedInput(input: DraftInput, facts: ModelFacts, batches: boolean, model: string): ModelInputConfig {
  const value = [...facts.inputs, ...facts.defaultedInputs].find(({ name }) => name === input.name);
  const datatype = input.datatype ?? value?.datatype;
  if (datatype === undefined) throw incomplete(input, 'data_type', model);
  return {
    name: input.name,
    datatype,
    ...completedShapes(input, value, batches, model),
    format: input.format,
    optional: input.optional,
  };
}

function completedOutput(output: DraftOutput, facts: ModelFacts, batches: boolean, model: string): ModelOutputConfig {
  const value = facts.outputs.find(({ name }) => name === output.name);
  const datatype = output.datatype ?? value?.datatype;
  if (datatype === undefined) throw incomplete(output, 'data_type', model);
  return {
    name: output.name,
    datatype,
    ...completedShapes(output, value, batches, model),
    labelFilename: output.labelFilename,
  };
}

function completedShapes(
  entry: DraftInput | DraftOutput,
  value: ValueFacts | undefined,
  batches: boolean,
  model: string,
): { readonly dims: Shape; readonly reshape?: Shape } {
  const reshape = entry.reshape === undefined ? {} : { reshape: entry.reshape };
  if (entry.dims !== undefined) return { dims: entry.dims, ...reshape };
  if (value === undefined) throw incomplete(entry, 'dims', model);
  return { ...inferredShapes(value, batches), ...reshape };
}

function incomplete(entry: DraftInput | DraftOutput, field: string, model: string): Error {
  return intarsiaError(
    'MODEL_INVALID',
    `${entry.place}: ${JSON.stringify(entry.name)} has no ${field}, and model ${JSON.stringify(model)} does not say it`,
    { place: entry.place },
  );
}

function untyped(direction: string, name: string, model: string): Error {
  return intarsiaError(
    'MODEL_INVALID',
    `model ${JSON.stringify(model)} does not say the type of its ${direction} ${JSON.stringify(name)}; write its data_type in config.pbtxt`,
    { model, [direction]: name },
  );
}
