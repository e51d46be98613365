/** Weights in fewer bits: half precision, and eight bits by channel. Inputs are little-endian single precision. */
import { intarsiaError } from '../errors.js';
import { halfBits } from '../split/activation-codec.js';
import type { Shape } from '../tensor.js';

/** Largest finite half. */
export const halfMax = 65_504;

export interface Halves {
  readonly data: Uint8Array;
  /** Finite values beyond ±65,504 that were set to it. */
  readonly clamped: number;
  /** Values other than zero that half precision rounds to zero. */
  readonly vanished: number;
}

/** Rounds to the nearest half, ties to even. Infinities and what is no number stay what they are. */
export function toHalves(data: Uint8Array): Halves {
  const values = singles(data);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  let clamped = 0;
  let vanished = 0;
  for (let index = 0; index < values.length; index += 1) {
    const value = values[index] as number;
    if (Math.abs(value) > halfMax && Number.isFinite(value)) {
      clamped += 1;
      halves[index] = value < 0 ? 0xfbff : 0x7bff;
      continue;
    }
    const half = halfBits(bits[index] as number);
    if (value !== 0 && (half & 0x7fff) === 0) vanished += 1;
    halves[index] = half;
  }
  return { data: new Uint8Array(halves.buffer), clamped, vanished };
}

export interface ChannelBytes {
  /** In the order of the weights. */
  readonly data: Int8Array;
  /** One a channel; value = scale × byte. */
  readonly scales: Float32Array;
}

/**
 * Symmetric bytes by channel: the largest magnitude of a channel becomes `largest`; a channel of zeros has scale 1.
 *
 * @param axis Dimension of the channels.
 * @param largest Largest magnitude of a byte, at most 127.
 * @throws FAILED_PRECONDITION when a weight is not finite.
 */
export function toChannelBytes(
  bytes: Uint8Array,
  { shape, axis, largest }: { readonly shape: Shape; readonly axis: number; readonly largest: number },
): ChannelBytes {
  const values = singles(bytes);
  const channels = shape[axis] ?? 0;
  const inner = shape.slice(axis + 1).reduce((count, size) => count * size, 1);
  const peaks = new Float64Array(channels);
  for (let index = 0; index < values.length; index += 1) {
    const channel = Math.floor(index / inner) % channels;
    const magnitude = Math.abs(values[index] as number);
    if (!Number.isFinite(magnitude)) {
      throw intarsiaError('FAILED_PRECONDITION', `weight ${index} is ${values[index]}, which eight bits cannot hold`);
    }
    if (magnitude > (peaks[channel] as number)) peaks[channel] = magnitude;
  }
  const scales = new Float32Array(channels);
  for (let channel = 0; channel < channels; channel += 1) {
    const scale = Math.fround((peaks[channel] as number) / largest);
    // So small a channel that its scale would vanish is as good as zero.
    scales[channel] = scale === 0 ? 1 : scale;
  }
  const data = new Int8Array(values.length);
  for (let index = 0; index < values.length; index += 1) {
    const scale = scales[Math.floor(index / inner) % channels] as number;
    data[index] = Math.max(-largest, Math.min(largest, Math.round((values[index] as number) / scale)));
  }
  return { data, scales };
}

/** The values of a matrix with rows and columns exchanged. */
export function transposed(bytes: Uint8Array, rows: number, columns: number): Uint8Array {
  const values = singles(bytes);
  const turned = new Float32Array(values.length);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      turned[column * rows + row] = values[row * columns + column] as number;
    }
  }
  return new Uint8Array(turned.buffer);
}

function singles(data: Uint8Array): Float32Array {
  // Not `slice`: that of a Node Buffer shares its memory, and so its grid.
  const source = data.byteOffset % 4 === 0 ? data : new Uint8Array(data);
  return new Float32Array(source.buffer, source.byteOffset, source.byteLength / 4);
}
