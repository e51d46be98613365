/** Inputs and outputs of a configured model, as clients see them and as the model file itself takes them. */
import type { ModelConfig } from './model-config.js';
import type { ModelFacts, ValueFacts } from './onnx/model-facts.js';
import type { Shape, TensorSpec } from './tensor.js';

/** What clients send: -1 in front when the model batches; what the server adds to sequences is left out. */
export function clientInputs(config: ModelConfig): readonly TensorSpec[] {
  return config.inputs.map(({ name, datatype, dims }) => ({ name, datatype, shape: batched(config, dims) }));
}

/** What clients get. */
export function clientOutputs(config: ModelConfig): readonly TensorSpec[] {
  return config.outputs.map(({ name, datatype, dims }) => ({ name, datatype, shape: batched(config, dims) }));
}

/** What the model file takes: after reshaping, with sequence controls and states. In the file's order. */
export function artifactInputs(config: ModelConfig, facts: ModelFacts): readonly TensorSpec[] {
  return artifactSpecs([...facts.inputs, ...givenDefaults(config, facts)], configuredSpecs(config).inputs);
}

/** What the model file gives; outputs whose type neither the file nor the configuration says are left out. */
export function artifactOutputs(config: ModelConfig, facts: ModelFacts): readonly TensorSpec[] {
  return artifactSpecs(facts.outputs, configuredSpecs(config).outputs);
}

/** Inputs with a default in the file are only fed where the configuration names them. */
function givenDefaults(config: ModelConfig, facts: ModelFacts): readonly ValueFacts[] {
  const names = new Set(config.inputs.map(({ name }) => name));
  return facts.defaultedInputs.filter(({ name }) => names.has(name));
}

function artifactSpecs(
  values: readonly ValueFacts[],
  configured: ReadonlyMap<string, TensorSpec>,
): readonly TensorSpec[] {
  return values.flatMap(({ name, datatype, shape }) => {
    const known = configured.get(name);
    const type = datatype ?? known?.datatype;
    if (type === undefined) return [];
    return [{ name, datatype: type, shape: shape?.map(({ size }) => size) ?? known?.shape ?? [-1] }];
  });
}

function configuredSpecs(config: ModelConfig): {
  readonly inputs: ReadonlyMap<string, TensorSpec>;
  readonly outputs: ReadonlyMap<string, TensorSpec>;
} {
  const inputs = new Map<string, TensorSpec>();
  const outputs = new Map<string, TensorSpec>();
  for (const { name, datatype, dims, reshape } of config.inputs) {
    inputs.set(name, { name, datatype, shape: batched(config, reshape ?? dims) });
  }
  for (const { name, datatype, dims, reshape } of config.outputs) {
    outputs.set(name, { name, datatype, shape: batched(config, reshape ?? dims) });
  }
  for (const { name, datatype } of config.sequenceBatching?.controls ?? []) {
    inputs.set(name, { name, datatype, shape: batched(config, [1]) });
  }
  for (const { inputName, outputName, datatype, dims } of config.sequenceBatching?.states ?? []) {
    inputs.set(inputName, { name: inputName, datatype, shape: batched(config, dims) });
    outputs.set(outputName, { name: outputName, datatype, shape: batched(config, dims) });
  }
  return { inputs, outputs };
}

function batched(config: ModelConfig, dims: Shape): Shape {
  return config.maxBatchSize > 0 ? [-1, ...dims] : dims;
}
