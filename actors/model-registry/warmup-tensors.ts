/**
 * The inputs of the warm-ups that a configuration asks for. They are what the model file itself takes: reshaped, with a batch
 * in front, sequence controls and states included. Where none is asked for, the device makes a trial run by itself.
 */
import type { Datatype } from '#core/datatype.js';
import { intarsiaError } from '#core/errors.js';
import type { ModelConfig, Warmup, WarmupInput } from '#core/model-config.js';
import { countBytesElements, elementCount, formatShape, tensorBytes } from '#core/tensor.js';
import type { Shape, Tensor, TensorSpec } from '#core/tensor.js';
import { formatBytes, GiB } from '#core/units.js';
import type { Random } from '#ports/random.js';
import type { Placement } from '#actors/device/protocol.js';

/** Bytes of the inputs of one warm-up run. */
const warmupBytesMax = 1 * GiB;

export interface WarmupSources {
  readonly config: ModelConfig;
  /** Inputs of the artefact. */
  readonly inputs: readonly TensorSpec[];
  /** Content of the files that warm-ups name, by name. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly random: Random;
}

/** @throws MODEL_INVALID when a file has the wrong size or a run would be too large. */
export function warmupRuns(sources: WarmupSources): Placement['warmups'] {
  const { config } = sources;
  return config.warmups.flatMap((warmup) => {
    const run = { name: warmup.name, inputs: warmupInputs(warmup, sources) };
    // A sample is one run's inputs; repeating it costs no memory.
    return Array.from({ length: Math.max(1, warmup.count) }, () => run);
  });
}

function warmupInputs(warmup: Warmup, sources: WarmupSources): readonly Tensor[] {
  const { config, inputs } = sources;
  const items = Math.max(1, warmup.batchSize);
  let bytes = 0;
  return inputs.map((spec) => {
    const given = warmup.inputs.find(({ name }) => name === spec.name);
    const tensor = given === undefined ? zeroTensor(spec, items, config) : givenTensor(given, warmup, sources);
    bytes += tensor.data.byteLength;
    if (bytes > warmupBytesMax) throw tooLarge(config.name, warmup.name, bytes);
    return tensor;
  });
}

/** A tensor of zeros, or of empty texts, with 1 where a size varies. */
function zeroTensor(spec: TensorSpec, items: number, config: ModelConfig): Tensor {
  const shape = spec.shape.map((size, axis) =>
    axis === 0 && config.maxBatchSize > 0 ? items : size === -1 ? 1 : size,
  );
  const bytes = tensorBytes(spec.datatype, shape) ?? 4 * elementCount(shape);
  if (bytes > warmupBytesMax) throw tooLarge(config.name, 'zeros', bytes);
  // Four zero bytes are the length of an empty text.
  return { name: spec.name, datatype: spec.datatype, shape, data: new Uint8Array(bytes) };
}

function givenTensor(input: WarmupInput, warmup: Warmup, sources: WarmupSources): Tensor {
  const { config } = sources;
  const items = Math.max(1, warmup.batchSize);
  const one = itemData(input, sources);
  if (one.byteLength * items > warmupBytesMax) throw tooLarge(config.name, warmup.name, one.byteLength * items);
  const reshape = config.inputs.find(({ name }) => name === input.name)?.reshape;
  const dims = reshape === undefined ? input.dims : reshaped(input.dims, reshape);
  const shape = config.maxBatchSize > 0 ? [items, ...dims] : dims;
  const data = new Uint8Array(one.byteLength * items);
  for (let item = 0; item < items; item += 1) data.set(one, item * one.byteLength);
  return { name: input.name, datatype: input.datatype, shape, data };
}

/** The model's own shape; what varies in it takes the sizes that vary in the client's, in order. */
function reshaped(dims: Shape, reshape: Shape): Shape {
  const fixed = elementCount(reshape.filter((size) => size !== -1));
  const varying = reshape.filter((size) => size === -1).length;
  const rest = fixed === 0 ? 0 : elementCount(dims) / fixed;
  return reshape.map((size) => (size === -1 ? (varying === 1 ? rest : 1) : size));
}

function itemData(input: WarmupInput, { config, files, random }: WarmupSources): Uint8Array {
  const { name, datatype, dims, source } = input;
  const bytes = tensorBytes(datatype, dims) ?? 4 * elementCount(dims);
  if (source.kind === 'file') {
    const content = files.get(source.file) ?? new Uint8Array(0);
    const fits =
      datatype === 'BYTES' ? countBytesElements(content) === elementCount(dims) : content.byteLength === bytes;
    if (!fits) {
      throw intarsiaError(
        'MODEL_INVALID',
        `warm-up file warmup/${source.file} of model ${JSON.stringify(config.name)} has ${content.byteLength} bytes; ${datatype} ${formatShape(dims)} of input ${JSON.stringify(name)} takes ${datatype === 'BYTES' ? `${elementCount(dims)} texts` : `${bytes} bytes`}`,
        { model: config.name, file: source.file },
      );
    }
    return content;
  }
  if (bytes > warmupBytesMax) throw tooLarge(config.name, name, bytes);
  const data = new Uint8Array(bytes);
  if (source.kind === 'random') fillRandom(data, datatype, random);
  return data;
}

/** Small numbers that every type has: floats in [0, 1), whole numbers 0 and 1 (valid as indices and masks alike). */
function fillRandom(data: Uint8Array, datatype: Datatype, random: Random): void {
  const view = new DataView(data.buffer);
  switch (datatype) {
    case 'FP32':
      for (let offset = 0; offset < data.byteLength; offset += 4) view.setFloat32(offset, random.next(), true);
      return;
    case 'FP64':
      for (let offset = 0; offset < data.byteLength; offset += 8) view.setFloat64(offset, random.next(), true);
      return;
    case 'FP16':
      // Sign and exponent of [0.5, 1), random fraction.
      for (let offset = 0; offset < data.byteLength; offset += 2)
        view.setUint16(offset, 0x3800 + random.below(1024), true);
      return;
    case 'BF16':
      for (let offset = 0; offset < data.byteLength; offset += 2)
        view.setUint16(offset, 0x3f00 + random.below(128), true);
      return;
    case 'BYTES':
      return;
    default: {
      const step = tensorBytes(datatype, [1]) ?? 1;
      for (let offset = 0; offset < data.byteLength; offset += step) data[offset] = random.below(2);
    }
  }
}

function tooLarge(model: string, warmup: string, bytes: number): Error {
  return intarsiaError(
    'MODEL_INVALID',
    `warm-up ${JSON.stringify(warmup)} of model ${JSON.stringify(model)} takes ${bytes} bytes (${formatBytes(bytes)}) of input; at most ${formatBytes(warmupBytesMax)} are made`,
    { model, bytes, bytesMax: warmupBytesMax },
  );
}
