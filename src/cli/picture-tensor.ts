/** A picture as the tensor that a model wants: layout and size are read off the model's shape, values are normalised. */
import { intarsiaError } from '#core/errors.js';
import { formatShape, type Shape, type TensorSpec } from '#core/tensor.js';
import type { TensorLike } from '#client/index.js';
import type { Picture, PictureFit, PictureRequest } from './program.js';

export interface PictureFlags {
  readonly fit: PictureFit;
  /** Pixel values are multiplied by this; absent: 1/255 for floating point inputs, 1 for others. */
  readonly scale?: number;
  /** Per channel, in scaled values: `(value - mean) / std`. One number counts for every channel. */
  readonly mean: readonly number[];
  readonly std: readonly number[];
  /** White becomes black. */
  readonly invert: boolean;
  /** Blue, green, red instead of red, green, blue. */
  readonly bgr: boolean;
}

interface Layout {
  readonly order: 'CHW' | 'HWC' | 'HW';
  readonly channels: 1 | 3 | 4;
  /** -1: the picture's own. */
  readonly height: number;
  readonly width: number;
}

/** What to ask the decoder for. @throws INVALID_ARGUMENT when the input cannot take a picture. */
export function pictureRequest(spec: TensorSpec, flags: PictureFlags): PictureRequest {
  const { channels, height, width } = layoutOf(spec);
  return { channels, fit: flags.fit, ...(height > 0 && width > 0 ? { size: { width, height } } : {}) };
}

/** The picture as the input's values, with a batch dimension of 1 where the model has one. */
export function pictureTensor(spec: TensorSpec, picture: Picture, flags: PictureFlags): TensorLike {
  const { order, channels } = layoutOf(spec);
  const { width, height, pixels } = picture;
  if (picture.channels !== channels || pixels.byteLength !== width * height * channels) {
    throw intarsiaError(
      'INTERNAL',
      `the decoder gave ${pixels.byteLength} bytes for ${width} × ${height} × ${channels}`,
    );
  }
  const isFloat = spec.datatype.startsWith('FP') || spec.datatype === 'BF16';
  const scale = flags.scale ?? (isFloat ? 1 / 255 : 1);
  const values = new Float64Array(pixels.byteLength);
  const plane = width * height;
  for (let at = 0; at < plane; at += 1) {
    for (let channel = 0; channel < channels; channel += 1) {
      const source = flags.bgr && channel < 3 && channels >= 3 ? 2 - channel : channel;
      const pixel = pixels[at * channels + source] ?? 0;
      const scaled = (flags.invert && channel < 3 ? 255 - pixel : pixel) * scale;
      const mean = flags.mean[flags.mean.length === 1 ? 0 : channel] ?? 0;
      const std = flags.std[flags.std.length === 1 ? 0 : channel] ?? 1;
      const value = (scaled - mean) / std;
      values[order === 'HWC' ? at * channels + channel : channel * plane + at] = isFloat ? value : Math.round(value);
    }
  }
  const sizes: Shape =
    order === 'CHW' ? [channels, height, width] : order === 'HWC' ? [height, width, channels] : [height, width];
  const batch = spec.shape.length - sizes.length;
  return { data: values, datatype: spec.datatype, shape: [...Array.from({ length: batch }, () => 1), ...sizes] };
}

function layoutOf(spec: TensorSpec): Layout {
  const { shape, name } = spec;
  // What is in front of the picture's own dimensions is the batch.
  const [a = 0, b = 0, c = 0] = shape.slice(-3);
  if (shape.length >= 3 && isChannels(a)) return { order: 'CHW', channels: a, height: b, width: c };
  if (shape.length >= 3 && isChannels(c)) return { order: 'HWC', channels: c, height: a, width: b };
  if (shape.length === 2 || (shape.length === 3 && (a === -1 || a === 1))) {
    const [height = 0, width = 0] = shape.slice(-2);
    return { order: 'HW', channels: 1, height, width };
  }
  throw intarsiaError(
    'INVALID_ARGUMENT',
    `input '${name}' of shape ${formatShape(shape)} takes no picture: it has no dimension of 1, 3 or 4 channels`,
    { input: name },
  );
}

function isChannels(size: number): size is 1 | 3 | 4 {
  return size === 1 || size === 3 || size === 4;
}
