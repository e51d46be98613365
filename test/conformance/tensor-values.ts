/** A tensor's elements as JavaScript values, for comparing: exact whole numbers, doubles, or texts. */
import { decodeBytesElements, type Tensor } from '#core/tensor.js';
import { unreachable } from '#core/errors.js';

export type TensorElements =
  | { readonly kind: 'float'; readonly values: readonly number[] }
  | { readonly kind: 'exact'; readonly values: readonly (bigint | string)[] };

const decoder = new TextDecoder('utf-8', { fatal: false });

export function tensorElements(tensor: Tensor): TensorElements {
  const view = new DataView(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);
  const floats = (width: number, read: (at: number) => number): TensorElements => ({
    kind: 'float',
    values: Array.from({ length: Math.floor(view.byteLength / width) }, (_, index) => read(index * width)),
  });
  const integers = (width: number, read: (at: number) => number | bigint): TensorElements => ({
    kind: 'exact',
    values: Array.from({ length: Math.floor(view.byteLength / width) }, (_, index) => BigInt(read(index * width))),
  });
  const { datatype } = tensor;
  switch (datatype) {
    case 'FP64':
      return floats(8, (at) => view.getFloat64(at, true));
    case 'FP32':
      return floats(4, (at) => view.getFloat32(at, true));
    case 'FP16':
      return floats(2, (at) => halfToNumber(view.getUint16(at, true)));
    case 'BF16':
      return floats(2, (at) => brainToNumber(view.getUint16(at, true)));
    case 'INT64':
      return integers(8, (at) => view.getBigInt64(at, true));
    case 'UINT64':
      return integers(8, (at) => view.getBigUint64(at, true));
    case 'INT32':
      return integers(4, (at) => view.getInt32(at, true));
    case 'UINT32':
      return integers(4, (at) => view.getUint32(at, true));
    case 'INT16':
      return integers(2, (at) => view.getInt16(at, true));
    case 'UINT16':
      return integers(2, (at) => view.getUint16(at, true));
    case 'INT8':
      return integers(1, (at) => view.getInt8(at));
    case 'UINT8':
    case 'BOOL':
      return integers(1, (at) => view.getUint8(at));
    case 'BYTES':
      return { kind: 'exact', values: decodeBytesElements(tensor.data).map((element) => decoder.decode(element)) };
    default:
      return unreachable(datatype);
  }
}

/** An IEEE 754 half, by its definition. */
export function halfToNumber(bits: number): number {
  const sign = (bits & 0x8000) === 0 ? 1 : -1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function brainToNumber(bits: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, bits * 65536);
  return view.getFloat32(0);
}
