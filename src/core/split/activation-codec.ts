/**
 * Makes activations smaller on their way between stages: single precision as half precision (a half of the bytes), or as
 * eight bits between the least and the largest value of the tensor (a quarter). What was packed is unpacked before a device
 * sees it. The error that it costs is measured on every tensor, against what was packed.
 *
 * A tensor that would lose more than precision travels as it is: with values beyond half precision's range, or not finite
 * in eight bits. Other types always do.
 */
import type { Tensor } from '../tensor.js';
import type { SplitCompression } from './split-spec.js';

/** How the bytes of a packed tensor stand for single precision. */
export interface Packing {
  readonly kind: 'fp16' | 'int8';
  /** Of eight bits: value = least + step × byte. */
  readonly least: number;
  readonly step: number;
  /** Largest absolute difference that packing made, and the largest magnitude there was. */
  readonly maxError: number;
  readonly maxMagnitude: number;
}

/** A tensor with its own type and shape, of which the bytes may be packed. */
export interface PackedTensor extends Tensor {
  readonly packing?: Packing;
}

const halfMax = 65_504;

/** The tensor as it travels: the same object where nothing is gained. */
export function packTensor(tensor: PackedTensor, compression: SplitCompression): PackedTensor {
  if (compression === 'none' || tensor.datatype !== 'FP32' || tensor.packing !== undefined) return tensor;
  if (tensor.data.byteLength === 0) return tensor;
  return (compression === 'fp16' ? packHalf(tensor) : packBytes(tensor)) ?? tensor;
}

/** The tensor as devices take it. */
export function unpackTensor(packed: PackedTensor): Tensor {
  const { packing, name, datatype, shape, data } = packed;
  if (packing === undefined) return packed;
  const values = new Float32Array(packing.kind === 'fp16' ? data.byteLength / 2 : data.byteLength);
  if (packing.kind === 'fp16') {
    const halves = aligned(data, 2, (buffer, offset, length) => new Uint16Array(buffer, offset, length));
    const bits = new Uint32Array(values.buffer);
    for (let index = 0; index < halves.length; index += 1) bits[index] = singleBits(halves[index] as number);
  } else {
    const { least, step } = packing;
    for (let index = 0; index < data.length; index += 1) values[index] = least + step * (data[index] as number);
  }
  return { name, datatype, shape, data: new Uint8Array(values.buffer) };
}

function packHalf(tensor: Tensor): PackedTensor | undefined {
  const values = floatsOf(tensor.data);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  const back = new Float32Array(1);
  const backBits = new Uint32Array(back.buffer);
  let maxError = 0;
  let maxMagnitude = 0;
  for (let index = 0; index < values.length; index += 1) {
    const value = values[index] as number;
    const magnitude = Math.abs(value);
    if (magnitude > halfMax && magnitude !== Infinity) return undefined;
    const half = halfBits(bits[index] as number);
    halves[index] = half;
    if (!(magnitude < Infinity)) continue;
    backBits[0] = singleBits(half);
    const error = Math.abs((back[0] as number) - value);
    if (error > maxError) maxError = error;
    if (magnitude > maxMagnitude) maxMagnitude = magnitude;
  }
  const packing: Packing = { kind: 'fp16', least: 0, step: 0, maxError, maxMagnitude };
  return { ...tensor, data: new Uint8Array(halves.buffer), packing };
}

function packBytes(tensor: Tensor): PackedTensor | undefined {
  const values = floatsOf(tensor.data);
  let least = Infinity;
  let most = -Infinity;
  for (let index = 0; index < values.length; index += 1) {
    const value = values[index] as number;
    if (!Number.isFinite(value)) return undefined;
    if (value < least) least = value;
    if (value > most) most = value;
  }
  const step = (most - least) / 255;
  const data = new Uint8Array(values.length);
  let maxError = 0;
  for (let index = 0; index < values.length; index += 1) {
    const value = values[index] as number;
    const byte = step === 0 ? 0 : Math.round((value - least) / step);
    data[index] = byte;
    const error = Math.abs(Math.fround(least + step * byte) - value);
    if (error > maxError) maxError = error;
  }
  const maxMagnitude = Math.max(Math.abs(least), Math.abs(most));
  return { ...tensor, data, packing: { kind: 'int8', least, step, maxError, maxMagnitude } };
}

/** Bits of half precision for bits of single precision: to the nearest, ties to even. */
export function halfBits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Below half precision's normal range: counted in steps of 2^-24.
    if (magnitude < 0x33000000) return sign;
    const shift = 126 - (magnitude >>> 23);
    const fraction = (magnitude & 0x7fffff) | 0x800000;
    const rest = fraction & ((1 << shift) - 1);
    const halfway = 1 << (shift - 1);
    const low = fraction >>> shift;
    return sign | (low + (rest > halfway || (rest === halfway && (low & 1) === 1) ? 1 : 0));
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

/** Bits of single precision for bits of half precision. */
function singleBits(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 0x1f;
  let fraction = half & 0x3ff;
  if (exponent === 0x1f) return (sign | 0x7f800000 | (fraction << 13)) >>> 0;
  if (exponent > 0) return (sign | ((exponent + 112) << 23) | (fraction << 13)) >>> 0;
  if (fraction === 0) return sign >>> 0;
  const shift = Math.clz32(fraction) - 21;
  fraction = (fraction << shift) & 0x3ff;
  return (sign | ((113 - shift) << 23) | (fraction << 13)) >>> 0;
}

function floatsOf(data: Uint8Array): Float32Array {
  return aligned(data, 4, (buffer, offset, length) => new Float32Array(buffer, offset, length));
}

/** A typed view on the bytes; on a copy of them where they do not lie on its grid. */
function aligned<View>(
  data: Uint8Array,
  size: number,
  view: (buffer: ArrayBufferLike, offset: number, length: number) => View,
): View {
  const source = data.byteOffset % size === 0 ? data : data.slice();
  return view(source.buffer, source.byteOffset, source.byteLength / size);
}
