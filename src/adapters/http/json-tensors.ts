/**
 * Tensor data in JSON (nested or flat lists) from and to raw bytes.
 *
 * JSON has no NaN and no infinities: they are the texts "NaN", "Infinity" and "-Infinity", both ways, as in protobuf's own
 * JSON. FP16 and BF16 have no JSON form at all. Whole numbers beyond 2^53 would silently lose digits in JSON numbers: they
 * may be texts, and leave as digits.
 */
import { datatypeBytes, type Datatype } from '#core/datatype.js';
import { intarsiaError } from '#core/errors.js';
import { dimensionsMax } from '#core/inference-message.js';
import { decodeBytesElements, elementCount, encodeBytesElements, type Shape } from '#core/tensor.js';

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The raw bytes of JSON data. @throws INVALID_ARGUMENT naming the tensor, the element and what it should be. */
export function dataFromJson(name: string, datatype: Datatype, shape: Shape, data: unknown): Uint8Array {
  if (datatype === 'FP16' || datatype === 'BF16') {
    throw refused(name, `datatype ${datatype} cannot be written in JSON: send it as binary data`);
  }
  if (!Array.isArray(data)) throw refused(name, 'data must be a list');
  const expected = elementCount(shape);
  const flat: unknown[] = [];
  flatten(name, data, flat, 0);
  if (flat.length !== expected) {
    throw refused(name, `data has ${flat.length} elements, but shape [${shape.join(',')}] has ${expected}`);
  }
  return datatype === 'BYTES' ? textsToRaw(name, flat) : numbersToRaw(name, datatype, flat);
}

function flatten(name: string, list: readonly unknown[], into: unknown[], depth: number): void {
  if (depth > dimensionsMax) throw refused(name, `data is nested deeper than ${dimensionsMax} lists`);
  for (const element of list) {
    if (Array.isArray(element)) flatten(name, element, into, depth + 1);
    else into.push(element);
  }
}

function textsToRaw(name: string, flat: readonly unknown[]): Uint8Array {
  return encodeBytesElements(
    flat.map((value, index) => {
      if (typeof value !== 'string') throw wrongElement(name, index, 'a text', value);
      return encoder.encode(value);
    }),
  );
}

type NumericDatatype = Exclude<Datatype, 'BYTES' | 'FP16' | 'BF16'>;

function numbersToRaw(name: string, datatype: NumericDatatype, flat: readonly unknown[]): Uint8Array {
  const size = datatypeBytes(datatype);
  const raw = new Uint8Array(flat.length * size);
  const view = new DataView(raw.buffer);
  for (let index = 0; index < flat.length; index += 1) {
    const value = flat[index];
    const at = index * size;
    switch (datatype) {
      case 'FP32':
        view.setFloat32(at, real(name, index, value), true);
        break;
      case 'FP64':
        view.setFloat64(at, real(name, index, value), true);
        break;
      case 'BOOL':
        if (value !== true && value !== false && value !== 0 && value !== 1) {
          throw wrongElement(name, index, 'true or false', value);
        }
        raw[at] = Number(value);
        break;
      case 'INT8':
        view.setInt8(at, whole(name, index, value, -0x80, 0x7f));
        break;
      case 'UINT8':
        raw[at] = whole(name, index, value, 0, 0xff);
        break;
      case 'INT16':
        view.setInt16(at, whole(name, index, value, -0x8000, 0x7fff), true);
        break;
      case 'UINT16':
        view.setUint16(at, whole(name, index, value, 0, 0xffff), true);
        break;
      case 'INT32':
        view.setInt32(at, whole(name, index, value, -0x80000000, 0x7fffffff), true);
        break;
      case 'UINT32':
        view.setUint32(at, whole(name, index, value, 0, 0xffffffff), true);
        break;
      case 'INT64':
        view.setBigInt64(at, large(name, index, value, -(2n ** 63n), 2n ** 63n - 1n), true);
        break;
      case 'UINT64':
        view.setBigUint64(at, large(name, index, value, 0n, 2n ** 64n - 1n), true);
        break;
    }
  }
  return raw;
}

function real(name: string, index: number, value: unknown): number {
  if (typeof value === 'number') return value;
  switch (value) {
    case 'NaN':
      return NaN;
    case 'Infinity':
      return Infinity;
    case '-Infinity':
      return -Infinity;
    default:
      throw wrongElement(name, index, 'a number, "NaN", "Infinity" or "-Infinity"', value);
  }
}

function whole(name: string, index: number, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    throw wrongElement(name, index, `a whole number from ${min} to ${max}`, value);
  }
  return value;
}

function large(name: string, index: number, value: unknown, min: bigint, max: bigint): bigint {
  const wanted = `a whole number from ${min} to ${max}, as a text beyond 2^53`;
  let number: bigint;
  if (typeof value === 'number' && Number.isSafeInteger(value)) number = BigInt(value);
  else if (typeof value === 'string' && /^-?\d{1,20}$/.test(value)) number = BigInt(value);
  else throw wrongElement(name, index, wanted, value);
  if (number < min || number > max) throw wrongElement(name, index, wanted, value);
  return number;
}

function wrongElement(name: string, index: number, wanted: string, value: unknown): Error {
  const shown = value === undefined ? 'nothing' : JSON.stringify(value).slice(0, 40);
  return refused(name, `element ${index} must be ${wanted}; it is ${shown}`);
}

function refused(name: string, why: string): Error {
  return intarsiaError('INVALID_ARGUMENT', `tensor '${name.slice(0, 80)}': ${why}`);
}

/**
 * Raw bytes as the JSON text of a flat list.
 * @throws INVALID_ARGUMENT for FP16 and BF16, and for texts that are not UTF-8: the client must ask for binary data.
 */
export function dataToJson(name: string, datatype: Datatype, raw: Uint8Array): string {
  switch (datatype) {
    case 'FP16':
    case 'BF16':
      throw refused(name, `datatype ${datatype} cannot be written in JSON: ask for it with binary_data`);
    case 'BYTES':
      return JSON.stringify(decodeBytesElements(raw).map((element) => decoder.decode(element)));
    case 'FP32':
      return realsToJson(new Float32Array(aligned(raw, 4)));
    case 'FP64':
      return realsToJson(new Float64Array(aligned(raw, 8)));
    case 'BOOL':
      return `[${Array.from(raw, (byte) => (byte === 0 ? 'false' : 'true')).join(',')}]`;
    case 'INT8':
      return `[${new Int8Array(aligned(raw, 1)).join(',')}]`;
    case 'UINT8':
      return `[${raw.join(',')}]`;
    case 'INT16':
      return `[${new Int16Array(aligned(raw, 2)).join(',')}]`;
    case 'UINT16':
      return `[${new Uint16Array(aligned(raw, 2)).join(',')}]`;
    case 'INT32':
      return `[${new Int32Array(aligned(raw, 4)).join(',')}]`;
    case 'UINT32':
      return `[${new Uint32Array(aligned(raw, 4)).join(',')}]`;
    case 'INT64':
      return `[${new BigInt64Array(aligned(raw, 8)).join(',')}]`;
    case 'UINT64':
      return `[${new BigUint64Array(aligned(raw, 8)).join(',')}]`;
  }
}

function realsToJson(values: Float32Array | Float64Array): string {
  for (let index = 0; index < values.length; index += 1) {
    if (!Number.isFinite(values[index])) {
      return `[${Array.from(values, (value) => (Number.isFinite(value) ? String(value) : `"${value}"`)).join(',')}]`;
    }
  }
  return `[${values.join(',')}]`;
}

/** A buffer of exactly these bytes that a typed array can begin at. Copies: JSON costs more than that anyway. */
function aligned(raw: Uint8Array, elementBytes: number): ArrayBuffer {
  const copy = new Uint8Array(raw.byteLength - (raw.byteLength % elementBytes));
  copy.set(raw.subarray(0, copy.byteLength));
  return copy.buffer;
}
