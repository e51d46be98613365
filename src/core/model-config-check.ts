/**
 * Whether a configuration and a model can both be right. Every refusal names what the configuration says, where it says
 * it, and what the model says.
 */
import type { Datatype } from './datatype.js';
import { intarsiaError } from './errors.js';
import type { ModelConfigDraft } from './model-config-draft.js';
import type { ModelConfig, Warmup } from './model-config.js';
import type { ModelFacts, ValueFacts } from './onnx/model-facts.js';
import type { Place } from './pbtxt.js';
import { elementCount, formatShape } from './tensor.js';
import type { Shape } from './tensor.js';

/** Threads of one run, at most. */
const threadsMax = 1024;

/** One input or output as the configuration has it, ready to be compared. */
interface Claim {
  readonly what: 'input' | 'output' | 'control_input' | 'state';
  readonly name: string;
  readonly datatype: Datatype;
  /** Shape without the batch dimension, after reshaping; undefined where only the type is claimed. */
  readonly shape?: Shape;
  readonly place: Place;
}

/** @throws MODEL_INVALID when the configuration does not fit the model. */
export function checkAgainstModel(config: ModelConfig, draft: ModelConfigDraft, facts: ModelFacts): void {
  const modelInputs = new Map([...facts.inputs, ...facts.defaultedInputs].map((value) => [value.name, value]));
  const modelOutputs = new Map(facts.outputs.map((value) => [value.name, value]));
  const claims = claimsOf(config, draft);
  for (const claim of claims.inputs) checkClaim(claim, modelInputs, config, 'input');
  for (const claim of claims.outputs) checkClaim(claim, modelOutputs, config, 'output');
  checkBatchDimension(config, draft, facts);
  const given = new Set(claims.inputs.map(({ name }) => name));
  const forgotten = facts.inputs.filter(({ name }) => !given.has(name)).map(({ name }) => JSON.stringify(name));
  if (forgotten.length > 0) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${draft.place}: model ${JSON.stringify(config.name)} also needs input ${forgotten.slice(0, 10).join(', ')}, which the configuration does not have`,
      { place: draft.place },
    );
  }
  for (const { name, dims, reshape } of [...config.inputs, ...config.outputs]) {
    checkReshape(config, draft, { name, dims, ...(reshape === undefined ? {} : { reshape }) });
  }
  checkBatchSizes(config, draft);
  checkThreads(config, draft);
  for (const { value, place } of draft.warmups) checkWarmup(value, place, config);
}

function claimsOf(
  config: ModelConfig,
  draft: ModelConfigDraft,
): { readonly inputs: readonly Claim[]; readonly outputs: readonly Claim[] } {
  const sequencePlace = draft.sequenceBatching?.place ?? draft.place;
  const inputPlaces = new Map(draft.inputs.map(({ name, place }) => [name, place]));
  const outputPlaces = new Map(draft.outputs.map(({ name, place }) => [name, place]));
  const inputs: Claim[] = config.inputs.map(({ name, datatype, dims, reshape }) => ({
    what: 'input',
    name,
    datatype,
    shape: reshape ?? dims,
    place: inputPlaces.get(name) ?? draft.place,
  }));
  const outputs: Claim[] = config.outputs.map(({ name, datatype, dims, reshape }) => ({
    what: 'output',
    name,
    datatype,
    shape: reshape ?? dims,
    place: outputPlaces.get(name) ?? draft.place,
  }));
  for (const { name, datatype } of config.sequenceBatching?.controls ?? []) {
    inputs.push({ what: 'control_input', name, datatype, place: sequencePlace });
  }
  for (const { inputName, outputName, datatype, dims } of config.sequenceBatching?.states ?? []) {
    inputs.push({ what: 'state', name: inputName, datatype, shape: dims, place: sequencePlace });
    outputs.push({ what: 'state', name: outputName, datatype, shape: dims, place: sequencePlace });
  }
  const seen = new Set<string>();
  for (const { name, place } of inputs) {
    if (seen.has(name)) {
      throw intarsiaError(
        'MODEL_INVALID',
        `${place}: input ${JSON.stringify(name)} is both given by clients and by the server`,
        {
          place,
        },
      );
    }
    seen.add(name);
  }
  return { inputs, outputs };
}

function checkClaim(
  claim: Claim,
  values: ReadonlyMap<string, ValueFacts>,
  config: ModelConfig,
  direction: 'input' | 'output',
): void {
  const { what, name, datatype, shape, place } = claim;
  const value = values.get(name);
  if (value === undefined) {
    const known = [...values.keys()].slice(0, 20).map((key) => JSON.stringify(key));
    throw intarsiaError(
      'MODEL_INVALID',
      `${place}: ${what} ${JSON.stringify(name)} is not an ${direction} of model ${JSON.stringify(config.name)}; its ${direction}s are ${known.join(', ') || 'none'}`,
      { place, name },
    );
  }
  if (value.datatype !== undefined && value.datatype !== datatype) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${place}: ${what} ${JSON.stringify(name)} has type ${datatype} in the configuration and ${value.datatype} in model ${JSON.stringify(config.name)}`,
      { place, name },
    );
  }
  if (shape === undefined || value.shape === undefined) return;
  const claimed = config.maxBatchSize > 0 ? [-1, ...shape] : shape;
  const declared = value.shape.map(({ size }) => size);
  const fits =
    claimed.length === declared.length &&
    claimed.every((size, axis) => size === -1 || declared[axis] === -1 || size === declared[axis]);
  if (!fits) {
    const batch = config.maxBatchSize > 0 ? ' (with the batch dimension in front)' : '';
    throw intarsiaError(
      'MODEL_INVALID',
      `${place}: ${what} ${JSON.stringify(name)} has shape ${formatShape(claimed)}${batch} in the configuration and ${formatShape(declared)} in model ${JSON.stringify(config.name)}`,
      { place, name },
    );
  }
}

function checkBatchDimension(config: ModelConfig, draft: ModelConfigDraft, facts: ModelFacts): void {
  if (config.maxBatchSize === 0) return;
  const served = new Set([...config.inputs, ...config.outputs].map(({ name }) => name));
  for (const { name, shape } of [...facts.inputs, ...facts.outputs]) {
    if (shape === undefined || !served.has(name)) continue;
    if (shape[0]?.size === -1) continue;
    const place = draft.maxBatchSize?.place ?? draft.place;
    throw intarsiaError(
      'MODEL_INVALID',
      `${place}: max_batch_size is ${config.maxBatchSize}, but the first dimension of ${JSON.stringify(name)} does not vary in model ${JSON.stringify(config.name)}: its shape is ${formatShape(shape.map(({ size }) => size))}`,
      { place, name },
    );
  }
}

/** Triton's rule: the same number of elements, and variable sizes in the same order. */
function checkReshape(
  config: ModelConfig,
  draft: ModelConfigDraft,
  entry: { readonly name: string; readonly dims: Shape; readonly reshape?: Shape },
): void {
  const { name, dims, reshape } = entry;
  if (reshape === undefined) return;
  const place = [...draft.inputs, ...draft.outputs].find((drafted) => drafted.name === name)?.place ?? draft.place;
  const sameElements = fixedElements(dims) === fixedElements(reshape);
  const sameVariables = dims.filter((size) => size === -1).length === reshape.filter((size) => size === -1).length;
  if (!sameElements || !sameVariables) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${place}: ${JSON.stringify(name)} has dims ${formatShape(dims)} and reshape ${formatShape(reshape)} in model ${JSON.stringify(config.name)}; the two hold different numbers of elements`,
      { place, name },
    );
  }
}

function fixedElements(shape: Shape): number {
  return elementCount(shape.filter((size) => size !== -1));
}

function checkBatchSizes(config: ModelConfig, draft: ModelConfigDraft): void {
  const { maxBatchSize, sequenceBatching } = config;
  const dynamic = draft.dynamicBatching;
  const strategy = sequenceBatching?.strategy;
  const sizes = [
    ...(dynamic?.value.preferredBatchSizes ?? []),
    ...(strategy?.kind === 'oldest' ? strategy.preferredBatchSizes : []),
  ];
  const largest = Math.max(0, ...sizes);
  if (largest > maxBatchSize) {
    const place = dynamic?.place ?? draft.sequenceBatching?.place ?? draft.place;
    throw intarsiaError(
      'MODEL_INVALID',
      `${place}: preferred_batch_size ${largest} is above max_batch_size ${maxBatchSize}`,
      { place },
    );
  }
}

function checkThreads({ parameters }: ModelConfig, draft: ModelConfigDraft): void {
  const text = parameters.get('intra_op_thread_count');
  if (text === undefined || (/^\d{1,4}$/.test(text) && Number(text) <= threadsMax)) return;
  throw intarsiaError(
    'MODEL_INVALID',
    `${draft.place}: parameter intra_op_thread_count is ${JSON.stringify(text.slice(0, 20))}; it must be a whole number from 0 to ${threadsMax}`,
    { place: draft.place },
  );
}

function checkWarmup(warmup: Warmup, place: Place, config: ModelConfig): void {
  const items = Math.max(1, warmup.batchSize);
  if (items > Math.max(1, config.maxBatchSize)) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${place}: warm-up ${JSON.stringify(warmup.name)} has batch_size ${items}; max_batch_size is ${config.maxBatchSize}`,
      { place },
    );
  }
  const known = new Map<string, { readonly datatype: Datatype; readonly dims?: Shape }>(
    config.inputs.map((input) => [input.name, input]),
  );
  for (const { name, datatype } of config.sequenceBatching?.controls ?? []) known.set(name, { datatype });
  for (const { inputName, datatype, dims } of config.sequenceBatching?.states ?? [])
    known.set(inputName, { datatype, dims });
  for (const { name, datatype, dims } of warmup.inputs) {
    const input = known.get(name);
    const fits =
      input?.datatype === datatype &&
      (input.dims === undefined ||
        (input.dims.length === dims.length && input.dims.every((size, axis) => size === -1 || size === dims[axis])));
    if (fits) continue;
    const wanted =
      input === undefined
        ? `no input of model ${JSON.stringify(config.name)}`
        : `${input.datatype} ${formatShape(input.dims ?? [])} in model ${JSON.stringify(config.name)}`;
    throw intarsiaError(
      'MODEL_INVALID',
      `${place}: warm-up ${JSON.stringify(warmup.name)} gives ${JSON.stringify(name)} as ${datatype} ${formatShape(dims)}; it is ${wanted}`,
      { place, name },
    );
  }
}
