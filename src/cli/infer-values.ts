/**
 * What stands after `--input name=`: a picture, a JSON or binary file, or the value itself. The model's declaration decides
 * datatype and shape; a missing batch dimension is added.
 */
import { readFile, stat } from 'node:fs/promises';
import { extname } from 'node:path';
import { intarsiaError, messageOf } from '#core/errors.js';
import {
  elementCount,
  formatShape,
  shapeFits,
  tensorBytes,
  type Shape,
  type Tensor,
  type TensorSpec,
} from '#core/tensor.js';
import { formatBytes, GiB } from '#core/units.js';
import { toTensor, type InputValue, type NestedValues, type Scalar } from '#client/index.js';
import { pictureRequest, pictureTensor, type PictureFlags } from './picture-tensor.js';
import type { Program } from './program.js';

const pictureEndings: ReadonlySet<string> = new Set([
  '.png',
  '.jpg',
  '.jpeg',
  '.webp',
  '.gif',
  '.tif',
  '.tiff',
  '.avif',
]);
const fileEndings: ReadonlySet<string> = new Set([...pictureEndings, '.json', '.bin', '.raw', '.txt']);
const fileBytesMax = 1 * GiB;

export interface ValueOptions {
  readonly program: Pick<Program, 'decodePicture'>;
  readonly picture: PictureFlags;
  /** Shape typed for this input; absent: the model's. */
  readonly shape: Shape | undefined;
}

/** The value of one input. @throws CONFIG_INVALID (file, JSON), INVALID_ARGUMENT (does not fit the model). */
export async function readInputValue(spec: TensorSpec, text: string, options: ValueOptions): Promise<InputValue> {
  const ending = extname(text).toLowerCase();
  if (!fileEndings.has(ending)) return inlineValue(spec, text, options.shape);
  if (pictureEndings.has(ending)) {
    await checkFile(spec.name, text);
    const picture = await options.program.decodePicture(text, pictureRequest(spec, options.picture));
    return pictureTensor(spec, picture, options.picture);
  }
  await checkFile(spec.name, text);
  const bytes = await readFile(text);
  if (ending === '.json') return jsonValue(spec, bytes.toString('utf8'), text, options.shape);
  if (ending === '.txt') {
    return { data: [bytes.toString('utf8').replace(/\r?\n$/, '')], datatype: 'BYTES', shape: singleShape(spec) };
  }
  return rawValue(spec, bytes, text, options.shape);
}

const plainPicture: PictureFlags = { fit: 'fill', mean: [0], std: [1], invert: false, bgr: false };

/** The same as a tensor, for requests that are encoded once. */
export async function readInputTensor(
  spec: TensorSpec,
  text: string,
  options: Pick<ValueOptions, 'program' | 'shape'>,
): Promise<Tensor> {
  return toTensor(spec.name, await readInputValue(spec, text, { ...options, picture: plainPicture }));
}

async function checkFile(input: string, path: string): Promise<void> {
  const found = await stat(path).catch((error: unknown) => {
    throw intarsiaError('CONFIG_INVALID', `--input ${input}: ${path} cannot be read: ${messageOf(error)}`, { path });
  });
  if (!found.isFile()) throw intarsiaError('CONFIG_INVALID', `--input ${input}: ${path} is no file`, { path });
  if (found.size > fileBytesMax) {
    throw intarsiaError(
      'CONFIG_INVALID',
      `--input ${input}: ${path} has ${formatBytes(found.size)}; the limit is ${formatBytes(fileBytesMax)}`,
      { path },
    );
  }
}

/** JSON where it reads as JSON; otherwise a text, for inputs that take text. */
function inlineValue(spec: TensorSpec, text: string, shape: Shape | undefined): InputValue {
  if (spec.datatype === 'BYTES' && !/^\s*["[{]/.test(text)) {
    return { data: [text], datatype: 'BYTES', shape: shape ?? singleShape(spec) };
  }
  return jsonValue(spec, text, 'its value', shape);
}

function jsonValue(spec: TensorSpec, text: string, source: string, shape: Shape | undefined): InputValue {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw intarsiaError(
      'CONFIG_INVALID',
      `--input ${spec.name}: ${source} is no JSON (${messageOf(error)}); files end in ${[...fileEndings].join(' ')}`,
      { input: spec.name },
    );
  }
  const given = isTensorObject(parsed) ? parsed : { data: parsed };
  if (!isNested(given.data)) {
    throw intarsiaError(
      'CONFIG_INVALID',
      `--input ${spec.name}: ${source} must hold numbers, texts or lists of them, or {"shape": …, "data": …}`,
      { input: spec.name },
    );
  }
  const { data } = given;
  const written = shape ?? given.shape ?? (Array.isArray(data) ? nestedShape(data) : undefined);
  const complete = withBatch(spec, written ?? singleShape(spec), countOf(data));
  if (!shapeFits(complete, spec.shape)) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `input '${spec.name}' takes shape ${formatShape(spec.shape)}, where -1 may be any size; ${source} has ${formatShape(complete)}`,
      { input: spec.name },
    );
  }
  return { data, datatype: spec.datatype, shape: complete };
}

interface TensorObject {
  readonly data: unknown;
  readonly shape?: Shape;
}

function isTensorObject(value: unknown): value is TensorObject {
  if (typeof value !== 'object' || value === null || !('data' in value)) return false;
  const { shape } = value as { shape?: unknown };
  return shape === undefined || (Array.isArray(shape) && shape.every((size) => Number.isSafeInteger(size)));
}

function isNested(value: unknown): value is NestedValues | Scalar {
  if (Array.isArray(value)) return value.every(isNested);
  return ['number', 'string', 'boolean'].includes(typeof value);
}

function nestedShape(data: NestedValues): Shape {
  const shape: number[] = [];
  let level: NestedValues | Scalar | undefined = data;
  while (Array.isArray(level)) {
    const list = level as NestedValues;
    shape.push(list.length);
    level = list[0];
  }
  return shape;
}

function countOf(data: NestedValues | Scalar): number {
  return Array.isArray(data) ? (data as NestedValues).reduce<number>((sum, item) => sum + countOf(item), 0) : 1;
}

/** A flat list takes the model's shape when it has as many elements; otherwise a missing first dimension is the batch. */
function withBatch(spec: TensorSpec, shape: Shape, count: number): Shape {
  const single = singleShape(spec);
  if (shape.length === 1 && single.length > 1 && elementCount(single) === count) return single;
  return shape.length === spec.shape.length - 1 ? [1, ...shape] : shape;
}

/** The model's shape with 1 where any size will do. */
function singleShape(spec: TensorSpec): Shape {
  return spec.shape.map((size) => (size < 0 ? 1 : size));
}

function rawValue(spec: TensorSpec, bytes: Uint8Array, path: string, shape: Shape | undefined): InputValue {
  const wanted = shape ?? singleShape(spec);
  const expected = tensorBytes(spec.datatype, wanted);
  if (expected !== undefined && expected !== bytes.byteLength) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `--input ${spec.name}: ${path} has ${bytes.byteLength} bytes; ${spec.datatype} of shape ${formatShape(wanted)} takes ${expected} (give --shape ${spec.name}=… for another shape)`,
      { input: spec.name, bytes: bytes.byteLength, expected },
    );
  }
  return { data: bytes, datatype: spec.datatype, shape: wanted };
}
