/**
 * What callers may hand over as an input, made into a tensor: typed arrays, text, bytes, nested lists of numbers, or a
 * tensor as it is. The type of the array decides the datatype; plain numbers take the one the model declares.
 */
import { datatypeBytes, type Datatype } from '#core/datatype.js';
import { intarsiaError } from '#core/errors.js';
import { elementCount, encodeBytesElements, formatShape, tensorBytes, type Shape, type Tensor } from '#core/tensor.js';
import { bf16OfNumber, fp16OfNumber } from './half-float.js';

export type NumberArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array;
export type Scalar = number | bigint | boolean | string | Uint8Array;
export type NestedValues = readonly (Scalar | NestedValues)[];

/** Values with what they cannot say by themselves. */
export interface TensorLike {
  readonly data: NumberArray | NestedValues | Scalar;
  /** Sizes per dimension. Default: the nesting of a list, or one dimension for a typed array. */
  readonly shape?: Shape;
  /** Default: the type of the array; BYTES for text and bytes; BOOL for booleans; for plain numbers what the model declares. */
  readonly datatype?: Datatype;
}

/** One input of a request. */
export type InputValue = NumberArray | NestedValues | Scalar | TensorLike | Omit<Tensor, 'name'>;

/** Looks up the datatype that the model declares for an input; undefined when the model has no such input. */
export type DeclaredDatatype = (input: string) => Datatype | undefined;

/** Whether `toTensor` will ask the model for this input's datatype. */
export function needsDeclaredDatatype(value: InputValue): boolean {
  if (isTensorLike(value)) return value.datatype === undefined && needsDeclaredDatatype(value.data);
  if (ArrayBuffer.isView(value)) return false;
  const first = firstScalar(value);
  return typeof first === 'number' || typeof first === 'bigint';
}

/**
 * The tensor that a value stands for. Plain numbers that nobody declares become FP32.
 * @throws INVALID_ARGUMENT when shape, values and datatype contradict each other.
 */
export function toTensor(name: string, value: InputValue, declared: DeclaredDatatype = () => undefined): Tensor {
  const like: TensorLike = isTensorLike(value) ? value : { data: value };
  const { data } = like;
  if (data instanceof Uint8Array && like.datatype !== undefined && like.shape !== undefined) {
    return rawTensor({ name, datatype: like.datatype, shape: like.shape, data });
  }
  if (ArrayBuffer.isView(data)) return typedTensor(name, data, like);
  const shape = like.shape ?? shapeOf(name, data);
  const flat: Scalar[] = [];
  flatten(data, flat);
  if (flat.length !== elementCount(shape)) {
    throw mismatch(
      name,
      `shape ${formatShape(shape)} has ${elementCount(shape)} elements`,
      `${flat.length} values are given`,
    );
  }
  const datatype = like.datatype ?? datatypeOfScalar(flat[0]) ?? declared(name) ?? 'FP32';
  return { name, datatype, shape, data: encodeScalars(name, datatype, flat) };
}

function isTensorLike(value: InputValue): value is TensorLike {
  return typeof value === 'object' && !Array.isArray(value) && !ArrayBuffer.isView(value);
}

/** Bytes that are the tensor already, as `Tensor` objects have them. */
function rawTensor(tensor: Tensor): Tensor {
  const expected = tensorBytes(tensor.datatype, tensor.shape);
  if (expected !== undefined && expected !== tensor.data.byteLength) {
    throw mismatch(
      tensor.name,
      `shape ${formatShape(tensor.shape)} of ${tensor.datatype} takes ${expected} bytes`,
      `${tensor.data.byteLength} bytes are given`,
    );
  }
  return tensor;
}

const datatypeOfArray: ReadonlyMap<string, Datatype> = new Map<string, Datatype>([
  ['Float32Array', 'FP32'],
  ['Float64Array', 'FP64'],
  ['Int8Array', 'INT8'],
  ['Int16Array', 'INT16'],
  ['Int32Array', 'INT32'],
  ['BigInt64Array', 'INT64'],
  ['Uint8Array', 'UINT8'],
  ['Buffer', 'UINT8'],
  ['Uint8ClampedArray', 'UINT8'],
  ['Uint16Array', 'UINT16'],
  ['Uint32Array', 'UINT32'],
  ['BigUint64Array', 'UINT64'],
]);

function typedTensor(name: string, data: NumberArray, like: TensorLike): Tensor {
  const own = datatypeOfArray.get(data.constructor.name);
  if (own === undefined) {
    throw intarsiaError('INVALID_ARGUMENT', `input '${name}': ${data.constructor.name} is not a type of tensor data`);
  }
  const shape = like.shape ?? [data.length];
  if (data.length !== elementCount(shape)) {
    throw mismatch(
      name,
      `shape ${formatShape(shape)} has ${elementCount(shape)} elements`,
      `${data.length} values are given`,
    );
  }
  const datatype = like.datatype ?? own;
  // 16-bit patterns may be handed over as they are; every other change of type is a conversion, value by value.
  const samePattern = own === datatype || (own === 'UINT16' && (datatype === 'FP16' || datatype === 'BF16'));
  const bytes = samePattern
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : encodeScalars(name, datatype, data);
  return { name, datatype, shape, data: bytes };
}

function shapeOf(name: string, data: NestedValues | Scalar): Shape {
  const shape: number[] = [];
  let level: Scalar | NestedValues | undefined = data;
  while (Array.isArray(level)) {
    const list: NestedValues = level as NestedValues;
    shape.push(list.length);
    level = list[0];
  }
  checkNesting(name, data, shape, 0);
  return shape;
}

function checkNesting(name: string, data: NestedValues | Scalar, shape: Shape, depth: number): void {
  const isList = Array.isArray(data);
  if (isList !== depth < shape.length || (isList && data.length !== shape[depth])) {
    throw mismatch(name, 'every list at one depth has the same length', 'the lists are ragged');
  }
  if (isList) for (const item of data as NestedValues) checkNesting(name, item, shape, depth + 1);
}

function flatten(data: NestedValues | Scalar, into: Scalar[]): void {
  if (Array.isArray(data)) for (const item of data as NestedValues) flatten(item, into);
  else into.push(data as Scalar);
}

function firstScalar(data: NestedValues | Scalar): Scalar | undefined {
  let level: Scalar | NestedValues | undefined = data;
  while (Array.isArray(level)) level = (level as NestedValues)[0];
  return level as Scalar | undefined;
}

function datatypeOfScalar(scalar: Scalar | undefined): Datatype | undefined {
  if (typeof scalar === 'string' || scalar instanceof Uint8Array) return 'BYTES';
  return typeof scalar === 'boolean' ? 'BOOL' : undefined;
}

const integerRanges: ReadonlyMap<Datatype, readonly [bigint, bigint]> = new Map<Datatype, readonly [bigint, bigint]>([
  ['UINT8', [0n, 255n]],
  ['UINT16', [0n, 65_535n]],
  ['UINT32', [0n, 2n ** 32n - 1n]],
  ['UINT64', [0n, 2n ** 64n - 1n]],
  ['INT8', [-128n, 127n]],
  ['INT16', [-32_768n, 32_767n]],
  ['INT32', [-(2n ** 31n), 2n ** 31n - 1n]],
  ['INT64', [-(2n ** 63n), 2n ** 63n - 1n]],
]);

const utf8 = new TextEncoder();

/**
 * Values as the bytes of a tensor.
 * @throws INVALID_ARGUMENT when a value is of another kind or out of the datatype's range.
 */
export function encodeScalars(name: string, datatype: Datatype, values: ArrayLike<Scalar>): Uint8Array {
  if (datatype === 'BYTES') {
    return encodeBytesElements(
      Array.from(values, (value) => {
        if (typeof value === 'string') return utf8.encode(value);
        if (value instanceof Uint8Array) return value;
        throw unfit(name, datatype, value);
      }),
    );
  }
  const size = datatypeBytes(datatype);
  const data = new Uint8Array(size * values.length);
  const view = new DataView(data.buffer);
  const range = integerRanges.get(datatype);
  for (let index = 0; index < values.length; index += 1) {
    const value = values[index];
    const at = index * size;
    if (datatype === 'BOOL') {
      if (typeof value !== 'boolean' && value !== 0 && value !== 1) throw unfit(name, datatype, value);
      view.setUint8(at, Number(value));
    } else if (range === undefined) {
      if (typeof value !== 'number' && typeof value !== 'bigint') throw unfit(name, datatype, value);
      writeFloat(view, at, datatype, Number(value));
    } else {
      if (typeof value !== 'bigint' && !Number.isInteger(value)) throw unfit(name, datatype, value);
      const whole = BigInt(value as number | bigint);
      if (whole < range[0] || whole > range[1]) throw unfit(name, datatype, value);
      writeInteger(view, at, size, whole);
    }
  }
  return data;
}

function writeFloat(view: DataView, at: number, datatype: Datatype, value: number): void {
  if (datatype === 'FP32') view.setFloat32(at, value, true);
  else if (datatype === 'FP64') view.setFloat64(at, value, true);
  else view.setUint16(at, datatype === 'FP16' ? fp16OfNumber(value) : bf16OfNumber(value), true);
}

function writeInteger(view: DataView, at: number, size: number, value: bigint): void {
  if (size === 8) view.setBigUint64(at, BigInt.asUintN(64, value), true);
  else if (size === 4) view.setUint32(at, Number(BigInt.asUintN(32, value)), true);
  else if (size === 2) view.setUint16(at, Number(BigInt.asUintN(16, value)), true);
  else view.setUint8(at, Number(BigInt.asUintN(8, value)));
}

function unfit(name: string, datatype: Datatype, value: unknown): Error {
  const shown = value instanceof Uint8Array ? `${value.byteLength} bytes` : String(value);
  return intarsiaError('INVALID_ARGUMENT', `input '${name}': ${shown.slice(0, 80)} is not a value of ${datatype}`, {
    input: name,
    datatype,
  });
}

function mismatch(name: string, rule: string, actual: string): Error {
  return intarsiaError('INVALID_ARGUMENT', `input '${name}': ${rule}, but ${actual}`, { input: name });
}
