/**
 * The classification extension: an output becomes the `value:index[:label]` texts of its greatest values, per item.
 */
import type { Datatype } from '#core/datatype.js';
import { intarsiaError } from '#core/errors.js';
import type { InferParameters } from '#core/inference-message.js';
import { elementCount, encodeBytesElements, type Tensor } from '#core/tensor.js';

const encoder = new TextEncoder();

/** How many classes the client wants of an output; 0 when it wants the tensor itself. @throws INVALID_ARGUMENT */
export function classCount(output: string, parameters: InferParameters): number {
  const parameter = parameters.get('classification');
  if (parameter === undefined) return 0;
  const value = parameter.kind === 'int64' || parameter.kind === 'uint64' ? parameter.value : -1n;
  if (value < 0n || value > 1_000_000n) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `parameter 'classification' of output '${output}' must be a whole number from 0 to 1000000`,
    );
  }
  return Number(value);
}

/**
 * The `count` greatest values of each item as texts, greatest first; equal values in order of their index. The shape
 * becomes [items, count], or [count] for models that do not batch; at most as many as there are.
 * @throws INVALID_ARGUMENT for datatypes without an order: BYTES, BOOL, FP16, BF16.
 */
export function classify(tensor: Tensor, options: ClassifyOptions): Tensor {
  const { count, batches, labels } = options;
  const items = batches ? (tensor.shape[0] ?? 1) : 1;
  const classes = items === 0 ? 0 : elementCount(tensor.shape) / items;
  const taken = Math.min(count, classes);
  const read = valueReader(tensor);
  const texts: Uint8Array[] = [];
  for (let item = 0; item < items; item += 1) {
    const first = item * classes;
    for (const index of greatest(read, first, classes, taken)) {
      const label = labels[index];
      const value = read.text(first + index);
      texts.push(
        encoder.encode(label === undefined || label === '' ? `${value}:${index}` : `${value}:${index}:${label}`),
      );
    }
  }
  return {
    name: tensor.name,
    datatype: 'BYTES',
    shape: batches ? [items, taken] : [taken],
    data: encodeBytesElements(texts),
  };
}

export interface ClassifyOptions {
  readonly count: number;
  /** Whether the first dimension counts items. */
  readonly batches: boolean;
  /** Names of the classes, by index; may be shorter than the classes or empty. */
  readonly labels: readonly string[];
}

interface ValueReader {
  /** For ordering; NaN counts as the least. */
  value(index: number): number | bigint;
  /** As Triton prints it: six decimals for floating point. */
  text(index: number): string;
}

/** Indices of the greatest values, in O(n log k) with a small sorted list. */
function greatest(read: ValueReader, first: number, classes: number, taken: number): readonly number[] {
  const best: number[] = [];
  for (let index = 0; index < classes; index += 1) {
    const value = read.value(first + index);
    if (best.length === taken && !(value > read.value(first + (best[taken - 1] as number)))) continue;
    let low = 0;
    let high = best.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (value > read.value(first + (best[middle] as number))) high = middle;
      else low = middle + 1;
    }
    best.splice(low, 0, index);
    if (best.length > taken) best.pop();
  }
  return best;
}

function valueReader(tensor: Tensor): ValueReader {
  const { data, datatype } = tensor;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const floating = (read: (offset: number) => number, bytes: number): ValueReader => ({
    value: (index) => {
      const value = read(index * bytes);
      return Number.isNaN(value) ? -Infinity : value;
    },
    text: (index) => {
      const value = read(index * bytes);
      return Number.isFinite(value) ? value.toFixed(6) : Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf';
    },
  });
  const whole = (read: (offset: number) => number | bigint, bytes: number): ValueReader => ({
    value: (index) => read(index * bytes),
    text: (index) => String(read(index * bytes)),
  });
  const readers: Partial<Record<Datatype, () => ValueReader>> = {
    FP32: () => floating((at) => view.getFloat32(at, true), 4),
    FP64: () => floating((at) => view.getFloat64(at, true), 8),
    INT8: () => whole((at) => view.getInt8(at), 1),
    INT16: () => whole((at) => view.getInt16(at, true), 2),
    INT32: () => whole((at) => view.getInt32(at, true), 4),
    INT64: () => whole((at) => view.getBigInt64(at, true), 8),
    UINT8: () => whole((at) => view.getUint8(at), 1),
    UINT16: () => whole((at) => view.getUint16(at, true), 2),
    UINT32: () => whole((at) => view.getUint32(at, true), 4),
    UINT64: () => whole((at) => view.getBigUint64(at, true), 8),
  };
  const make = readers[datatype];
  if (make === undefined) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `classification is not possible for output '${tensor.name}': its datatype ${datatype} has no order`,
    );
  }
  return make();
}
