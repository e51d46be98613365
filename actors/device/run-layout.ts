/**
 * Between requests and runs: which tensors an executor gets for a batch, and which part of its results belongs to whom.
 * Nothing is joined or copied: inputs travel as one chunk a request, outputs come back as views on the run's bytes.
 */
import { datatypeBytes, type Datatype } from '#core/datatype.js';
import { intarsiaError, invariant, type IntarsiaError } from '#core/errors.js';
import { heldBytes, type HeldBytes } from '#core/held-bytes.js';
import { elementCount, formatShape, heldTensor, type Shape, type Tensor, type TensorSpec } from '#core/tensor.js';
import { formatBytes, GiB } from '#core/units.js';
import type { SessionId } from '#core/ids.js';
import type { Batch } from '#core/model-queue.js';
import type { ModelConfig } from '#core/model-config.js';
import type { RunInput, RunRequest, RunResult } from '#ports/executor.js';
import type { Placement } from './protocol.js';

interface Reshape {
  /** As on the API. */
  readonly dims: Shape;
  /** As the model has it. */
  readonly reshape: Shape;
}

/** What each request of a batch gets; `states` only for models that keep some. */
export interface SplitResult {
  readonly outputs: readonly (readonly Tensor[])[];
  readonly states: readonly (readonly Tensor[])[] | undefined;
}

/** What every element of a trial run is. */
export type TrialValue = 0 | 1;

/** Bytes of one input of a trial run. */
const trialBytesMax = 1 * GiB;

export class RunLayout {
  readonly #model: string;
  readonly #batches: boolean;
  readonly #inputs: readonly TensorSpec[];
  readonly #config: ModelConfig;
  readonly #inputReshapes: ReadonlyMap<string, Reshape>;
  readonly #outputReshapes: ReadonlyMap<string, Reshape>;
  /** Outputs of a request that names none. */
  readonly #defaultOutputs: readonly string[];
  readonly #stateOutputs: readonly string[];
  /** Asked of the executor for a request that names none: empty when those are all the model has. */
  readonly #defaultWanted: readonly string[];

  constructor(placement: Pick<Placement, 'config' | 'inputs' | 'outputs'>) {
    const { config } = placement;
    this.#model = config.name;
    this.#config = config;
    this.#batches = config.maxBatchSize > 0;
    this.#inputs = placement.inputs;
    this.#inputReshapes = reshapes(config.inputs);
    this.#outputReshapes = reshapes(config.outputs);
    this.#defaultOutputs = config.outputs.map((output) => output.name);
    this.#stateOutputs = (config.sequenceBatching?.states ?? []).map((state) => state.outputName);
    const wanted = union(this.#defaultOutputs, this.#stateOutputs);
    const all = placement.outputs.every((output) => wanted.includes(output.name));
    this.#defaultWanted = all ? [] : wanted;
  }

  /** The run of a batch. Requests of a batch have the same inputs in the same order, with the same shapes but for the items. */
  request(batch: Batch<unknown>, session: SessionId): RunRequest {
    const { entries } = batch;
    const first = entries[0]?.request;
    invariant(first !== undefined, 'a batch holds at least one request');
    const inputs: RunInput[] = [];
    for (let index = 0; index < first.inputs.length; index += 1) {
      const tensor = first.inputs[index] as Tensor;
      const own: Tensor[] = [];
      for (let at = 0; at < entries.length; at += 1) {
        const part = entries[at]?.request.inputs[index];
        invariant(part?.name === tensor.name, 'requests of a batch have the same inputs');
        own.push(part);
      }
      const { name, datatype } = tensor;
      inputs.push(joinedInput({ name, datatype, shape: this.#inputShape(tensor, batch.items) }, own));
    }
    for (const added of batch.addedInputs) inputs.push(added);
    const outputs = first.outputs.length === 0 ? this.#defaultWanted : union(first.outputs, this.#stateOutputs);
    // States are kept here.
    const leaveOutputs = first.leaveOutputs === true && this.#stateOutputs.length === 0;
    return leaveOutputs ? { session, inputs, outputs, leaveOutputs } : { session, inputs, outputs };
  }

  /** The parts of a result. An error when the model did not give what its configuration promises. */
  split(batch: Batch<unknown>, result: RunResult): SplitResult | IntarsiaError {
    const { entries } = batch;
    const wanted = entries[0]?.request.outputs ?? [];
    const outputs = this.#parts(batch, result, wanted.length === 0 ? this.#defaultOutputs : wanted, true);
    if (!Array.isArray(outputs)) return outputs;
    if (this.#stateOutputs.length === 0) return { outputs, states: undefined };
    const states = this.#parts(batch, result, this.#stateOutputs, false);
    return Array.isArray(states) ? { outputs, states } : states;
  }

  /**
   * A run of one item on invented values, all the same: shows that the model computes at all. Sizes that may vary are those
   * of the configuration, else 1; texts are `0` or `1`, which read as numbers too.
   * @throws MODEL_INVALID when an input is too large to be made.
   */
  trial(session: SessionId, value: TrialValue): RunRequest {
    return { session, inputs: this.#inputs.map((spec) => this.#inventedInput(spec, 1, value)), outputs: [] };
  }

  /** A configured warm-up: what it leaves out (controls, states) is zero. */
  warmup(session: SessionId, inputs: readonly Tensor[]): RunRequest {
    const items = this.#batches ? (inputs[0]?.shape[0] ?? 1) : 1;
    const given = new Map(inputs.map((tensor) => [tensor.name, tensor]));
    return {
      session,
      inputs: this.#inputs.map((spec): RunInput => {
        const tensor = given.get(spec.name);
        if (tensor === undefined) return this.#inventedInput(spec, items, 0);
        return {
          name: spec.name,
          datatype: tensor.datatype,
          shape: this.#inputShape(tensor, items),
          chunks: [tensor.data],
        };
      }),
      outputs: [],
    };
  }

  #inputShape(tensor: Tensor, items: number): Shape {
    const reshape = this.#inputReshapes.get(tensor.name);
    if (reshape !== undefined) {
      const source = this.#batches ? tensor.shape.slice(1) : tensor.shape;
      const target = resolved(reshape.reshape, source, reshape.dims);
      return this.#batches ? [items, ...target] : target;
    }
    if (!this.#batches || tensor.shape[0] === items) return tensor.shape;
    const shape = tensor.shape.slice();
    shape[0] = items;
    return shape;
  }

  #inventedInput(spec: TensorSpec, items: number, value: TrialValue): RunInput {
    const configured = this.#config.inputs.find((input) => input.name === spec.name);
    const own = configured?.reshape ?? configured?.dims;
    const dims = own === undefined ? undefined : this.#batches ? [items, ...own] : own;
    const shape = spec.shape.map((size, axis) => {
      if (size >= 0) return size;
      const wanted = dims?.length === spec.shape.length ? dims[axis] : this.#batches && axis === 0 ? items : undefined;
      return wanted === undefined || wanted < 0 ? 1 : wanted;
    });
    const { name, datatype } = spec;
    const pattern = elementPattern(datatype, value);
    const bytes = pattern.byteLength * elementCount(shape);
    if (bytes > trialBytesMax) {
      throw intarsiaError(
        'MODEL_INVALID',
        `input '${name}' of model '${this.#model}' is ${datatype} ${formatShape(shape)}: ${formatBytes(bytes)}; a trial run takes at most ${formatBytes(trialBytesMax)}`,
        { model: this.#model, input: name, bytes, bytesMax: trialBytesMax },
      );
    }
    const data = new Uint8Array(bytes);
    if (value === 1 || datatype === 'BYTES')
      for (let at = 0; at < bytes; at += pattern.byteLength) data.set(pattern, at);
    return { name, datatype, shape, chunks: [data] };
  }

  #parts(
    batch: Batch<unknown>,
    result: RunResult,
    names: readonly string[],
    reshaped: boolean,
  ): (readonly Tensor[])[] | IntarsiaError {
    const { entries } = batch;
    const parts: Tensor[][] = [];
    for (let at = 0; at < entries.length; at += 1) parts.push([]);
    for (const name of names) {
      const tensor = outputNamed(result.outputs, name);
      if (tensor === undefined) return failedRun(`model '${this.#model}' gave no output '${name}'`);
      const reshape = reshaped ? this.#outputReshapes.get(name) : undefined;
      const refusal = this.#batches ? this.#cut(tensor, batch, reshape, parts) : undefined;
      if (refusal !== undefined) return refusal;
      if (this.#batches) continue;
      parts[0]?.push(
        reshape === undefined ? tensor : { ...tensor, shape: resolved(reshape.dims, tensor.shape, reshape.reshape) },
      );
    }
    return parts;
  }

  /** Gives each request its rows of one output. */
  #cut(
    tensor: Tensor,
    batch: Batch<unknown>,
    reshape: Reshape | undefined,
    parts: Tensor[][],
  ): IntarsiaError | undefined {
    const { entries, items } = batch;
    const { name, datatype } = tensor;
    if (tensor.shape[0] !== items) {
      return failedRun(
        `model '${this.#model}' gave output '${name}' with shape ${formatShape(tensor.shape)} for a batch of ${items} items`,
      );
    }
    const rest = tensor.shape.slice(1);
    const dims = reshape === undefined ? rest : resolved(reshape.dims, rest, reshape.reshape);
    if (entries.length === 1) {
      parts[0]?.push(reshape === undefined ? tensor : { name, datatype, shape: [items, ...dims], data: tensor.data });
      return undefined;
    }
    const itemElements = elementCount(rest);
    const itemBytes = datatypeBytes(datatype) * itemElements;
    const held = itemBytes > 0 ? tensor[heldBytes] : undefined;
    const data = held === undefined ? tensor.data : noBytes;
    let offset = 0;
    for (let at = 0; at < entries.length; at += 1) {
      const own = entries[at]?.request.items ?? 0;
      const end = itemBytes > 0 ? offset + own * itemBytes : textsEnd(data, offset, own * itemElements);
      if (datatypeBytes(datatype) === 0 && end > data.byteLength) {
        return failedRun(`model '${this.#model}' gave output '${name}' with fewer texts than its shape tells`);
      }
      const spec = { name, datatype, shape: [own, ...dims] };
      parts[at]?.push(
        held === undefined
          ? { ...spec, data: data.subarray(offset, end) }
          : heldTensor(spec, held.part(offset, end - offset)),
      );
      offset = end;
    }
    return undefined;
  }
}

const noBytes = new Uint8Array(0);

/** One input of a batch: a chunk of each request. What lies elsewhere stays there, when all of it does. */
export function joinedInput(spec: TensorSpec, tensors: readonly Tensor[]): RunInput {
  const held: HeldBytes[] = [];
  for (const tensor of tensors) {
    const place = tensor[heldBytes];
    if (place === undefined) return { ...spec, chunks: tensors.map(({ data }) => data) };
    held.push(place);
  }
  return {
    ...spec,
    held,
    get chunks() {
      return held.map((place) => place.read());
    },
  };
}

function outputNamed(outputs: readonly Tensor[], name: string): Tensor | undefined {
  for (let index = 0; index < outputs.length; index += 1) if (outputs[index]?.name === name) return outputs[index];
  return undefined;
}

function union(names: readonly string[], more: readonly string[]): readonly string[] {
  const missing = more.filter((name) => !names.includes(name));
  return missing.length === 0 ? names : [...names, ...missing];
}

function reshapes(
  tensors: readonly { readonly name: string; readonly dims: Shape; readonly reshape?: Shape }[],
): ReadonlyMap<string, Reshape> {
  const found = new Map<string, Reshape>();
  for (const { name, dims, reshape } of tensors) if (reshape !== undefined) found.set(name, { dims, reshape });
  return found;
}

/** `target` with its variable sizes taken, in order, from those of `source` that vary in `sourceSpec`. */
function resolved(target: Shape, source: Shape, sourceSpec: Shape): Shape {
  if (!target.includes(-1)) return target;
  const variable = source.filter((_, axis) => sourceSpec[axis] === -1);
  let next = 0;
  return target.map((size) => {
    if (size >= 0) return size;
    next += 1;
    return variable[next - 1] ?? 1;
  });
}

/** Offset behind `count` elements of a BYTES tensor; past the end when there are fewer. */
function textsEnd(data: Uint8Array, offset: number, count: number): number {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  let end = offset;
  for (let index = 0; index < count; index += 1) {
    if (end + 4 > data.byteLength) return data.byteLength + 1;
    end += 4 + view.getUint32(end, true);
  }
  return end;
}

function failedRun(message: string): IntarsiaError {
  return intarsiaError('EXECUTION_FAILED', message);
}

/** The bytes of one element, little-endian; of a text its length and one digit. */
function elementPattern(datatype: Datatype, value: TrialValue): Uint8Array {
  if (datatype === 'BYTES') return Uint8Array.of(1, 0, 0, 0, 0x30 + value);
  const pattern = new Uint8Array(datatypeBytes(datatype));
  const view = new DataView(pattern.buffer);
  if (value === 0) return pattern;
  if (datatype === 'FP64') view.setFloat64(0, 1, true);
  else if (datatype === 'FP32') view.setFloat32(0, 1, true);
  else if (datatype === 'FP16') view.setUint16(0, 0x3c00, true);
  else if (datatype === 'BF16') view.setUint16(0, 0x3f80, true);
  else pattern[0] = 1;
  return pattern;
}
