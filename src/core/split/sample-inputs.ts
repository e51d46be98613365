/**
 * Made-up inputs for models without test vectors: drawn from a seed, so that the same model is asked the same.
 *
 * What a model takes beyond types and sizes no file says: an index must lie within its table, a mask is 0 or 1. Small
 * whole numbers fit most; `attempt` gives further ways for models that refuse the first.
 */
import { datatypeBytes } from '../datatype.js';
import { onnxDataType } from '../onnx/data-type.js';
import { readTensorProto } from '../onnx/tensor-proto.js';
import { RandomStream } from '../random.js';
import { elementCount, encodeBytesElements, type Tensor, type TensorSpec } from '../tensor.js';
import type { SplitGraph } from './graph.js';

/**
 * Ways to fill in what is not known: a size for dimensions that vary, another for the last of several in one tensor (a
 * batch of one, of some length), and a bound for whole numbers.
 */
const attempts = [
  { size: 1, last: 1, below: 2 },
  { size: 4, last: 4, below: 2 },
  { size: 1, last: 16, below: 2 },
  { size: 2, last: 2, below: 2 },
  { size: 1, last: 512, below: 2 },
  { size: 1, last: 1, below: 1 },
  { size: 16, last: 16, below: 2 },
  { size: 8, last: 8, below: 1 },
  { size: 32, last: 32, below: 2 },
  { size: 64, last: 64, below: 2 },
] as const;

/** How many ways there are. */
export const sampleAttempts = attempts.length;

export interface SampleOptions {
  readonly seed: number;
  /** From 0 to `sampleAttempts` - 1. */
  readonly attempt: number;
  /** Values for single whole numbers, by input: what the model compares them with (`comparedNumbers`). */
  readonly numbers: ReadonlyMap<string, bigint>;
}

/** Inputs by their specifications. */
export function sampleInputs(specs: readonly TensorSpec[], options: SampleOptions): readonly Tensor[] {
  const way = attempts[options.attempt % attempts.length] ?? attempts[0];
  return specs.map((spec) => {
    const open = spec.shape.filter((size) => size < 0).length;
    const last = open > 1 ? spec.shape.lastIndexOf(-1) : -1;
    const shape = spec.shape.map((size, axis) => (size >= 0 ? size : axis === last ? way.last : way.size));
    const tensor = sampleTensor({ ...spec, shape }, new RandomStream(options.seed).stream(spec.name), way.below);
    const number = options.numbers.get(spec.name);
    if (number === undefined || spec.datatype !== 'INT64' || tensor.data.byteLength !== 8) return tensor;
    return { ...tensor, data: new Uint8Array(BigInt64Array.of(number).buffer) };
  });
}

/** Whole numbers that the graph compares an input with: a mode such as a sampling rate, which no drawing would find. */
export function comparedNumbers(graph: SplitGraph): ReadonlyMap<string, bigint> {
  const inputs = new Set(graph.inputs.map(({ name }) => name));
  const numbers = new Map<string, bigint>();
  for (const { operator, view } of graph.nodes) {
    if (operator !== 'Equal') continue;
    const [left = '', right = ''] = view.inputs;
    for (const [input, other] of [
      [left, right],
      [right, left],
    ] as const) {
      const producer = graph.nodes[graph.producers.get(other) ?? -1];
      const tensor = graph.initializers.get(other) ?? producer?.view.attributes[0]?.tensors[0];
      if (!inputs.has(input) || tensor === undefined || 'values' in tensor || tensor.external !== undefined) continue;
      if (tensor.dataType !== onnxDataType.INT64 || tensor.dataBytes !== 8) continue;
      const { data } = readTensorProto(graph.model.bytes.subarray(tensor.bodyStart, tensor.end));
      numbers.set(input, new DataView(data.buffer, data.byteOffset, 8).getBigInt64(0, true));
    }
  }
  return numbers;
}

function sampleTensor({ name, datatype, shape }: TensorSpec, random: RandomStream, below: number): Tensor {
  const count = elementCount(shape);
  if (datatype === 'BYTES') {
    // Digits: texts that are also numbers.
    const elements = Array.from({ length: count }, () => Uint8Array.of(48 + random.below(10)));
    return { name, datatype, shape, data: encodeBytesElements(elements) };
  }
  const width = datatypeBytes(datatype);
  const data = new Uint8Array(count * width);
  const view = new DataView(data.buffer);
  for (let index = 0; index < count; index += 1) {
    const at = index * width;
    switch (datatype) {
      case 'FP32':
        view.setFloat32(at, random.next() * 2 - 1, true);
        break;
      case 'FP64':
        view.setFloat64(at, random.next() * 2 - 1, true);
        break;
      case 'FP16':
        // Any bits with an exponent from 2^-5 to 2^-1, either sign.
        view.setUint16(at, (random.below(2) << 15) | ((10 + random.below(5)) << 10) | random.below(1024), true);
        break;
      case 'BF16':
        view.setUint16(at, (random.below(2) << 15) | ((122 + random.below(5)) << 7) | random.below(128), true);
        break;
      case 'INT8':
      case 'UINT8':
        // Small integers are quantised values or pixels more often than indexes.
        view.setUint8(at, random.below(below > 1 ? 128 : 1));
        break;
      default:
        view.setUint8(at, random.below(below));
    }
  }
  return { name, datatype, shape, data };
}
