/**
 * TensorProto: reading it in each of its storage forms, writing it in one.
 *
 * A tensor's elements lie in raw_data or, one form a type, in float_data, int32_data, int64_data, double_data,
 * uint64_data or string_data; what is read comes out as little-endian, row-major bytes, strings in the BYTES form of
 * ../tensor.ts. Raw data is a view on the message. Data in other files is named here and fetched by others.
 */
import { datatypeOfOnnx } from '../datatype.js';
import { intarsiaError } from '../errors.js';
import { countBytesElements, decodeBytesElements, elementCount, encodeBytesElements, formatShape } from '../tensor.js';
import type { Shape, Tensor } from '../tensor.js';
import { wireType, WireReader, WireWriter } from '../wire.js';
import { onnxDataType, onnxDataTypeName, onnxDataTypeOf, onnxElementBits } from './data-type.js';

/** Where a tensor's bytes lie when they are not in the message. */
export interface ExternalData {
  /** Path relative to the model's folder. Whoever opens it checks that it stays inside. */
  readonly location: string;
  readonly offset: number;
  /** Absent: to the end of the file. */
  readonly length?: number;
}

/** A tensor of a model or of a test vector. */
export interface OnnxTensor {
  readonly name: string;
  /** Number of TensorProto.DataType. */
  readonly dataType: number;
  readonly shape: Shape;
  /** Raw bytes; 4-bit elements two a byte, low half first; strings in the BYTES form. Empty when `external` is set. */
  readonly data: Uint8Array;
  readonly external?: ExternalData;
}

/** Field numbers of TensorProto. */
const field = {
  dims: 1,
  dataType: 2,
  segment: 3,
  floatData: 4,
  int32Data: 5,
  stringData: 6,
  int64Data: 7,
  name: 8,
  rawData: 9,
  doubleData: 10,
  uint64Data: 11,
  externalData: 13,
  dataLocation: 14,
} as const;

/** One run of entries of a typed field: the bytes between `start` and `end`, packed, or a single entry. */
interface Run {
  readonly start: number;
  readonly end: number;
}

/** Bytes that `elements` of this type take; undefined for STRING and unknown types. */
export function onnxTensorBytes(dataType: number, elements: number): number | undefined {
  const bits = onnxElementBits(dataType);
  return bits === undefined || bits === 0 ? undefined : Math.ceil((bits * elements) / 8);
}

/**
 * Reads one TensorProto, such as the whole of a test vector's `input_0.pb`.
 *
 * @throws INVALID_ARGUMENT when the message is malformed, or its data does not fit its type and shape.
 */
export function readTensorProto(source: Uint8Array | WireReader): OnnxTensor {
  const reader = source instanceof WireReader ? source : new WireReader(source);
  const shape: number[] = [];
  const runs = new Map<number, Run[]>();
  const strings: Uint8Array[] = [];
  const external = new Map<string, string>();
  let dataType = 0;
  let name = '';
  let raw: Uint8Array | undefined;
  let isExternal = false;
  while (reader.next()) {
    switch (reader.field) {
      case field.dims:
        reader.repeated((entry) => shape.push(entry.int53()));
        break;
      case field.dataType:
        dataType = reader.varint();
        break;
      case field.segment:
        throw invalid(name, 'is stored in segments, which no known tool writes');
      case field.floatData:
      case field.int32Data:
      case field.int64Data:
      case field.doubleData:
      case field.uint64Data:
        addRun(runs, reader);
        break;
      case field.stringData:
        strings.push(reader.bytes());
        break;
      case field.name:
        name = reader.string();
        break;
      case field.rawData:
        raw = reader.bytes();
        break;
      case field.externalData:
        readPair(reader.message(), external);
        break;
      case field.dataLocation:
        isExternal = reader.varint() === 1;
        break;
      default:
        reader.skip();
    }
  }
  const elements = checkedElementCount(name, dataType, shape);
  if (isExternal) return { name, dataType, shape, data: new Uint8Array(0), external: externalData(name, external) };
  if (dataType === onnxDataType.STRING) {
    if (strings.length !== elements) throw wrongCount(name, shape, strings.length, 'strings');
    return { name, dataType, shape, data: encodeBytesElements(strings) };
  }
  const byteLength = onnxTensorBytes(dataType, elements) ?? 0;
  if (raw !== undefined && raw.byteLength > 0) {
    if (raw.byteLength !== byteLength) {
      throw invalid(
        name,
        `has ${raw.byteLength} bytes; ${onnxDataTypeName(dataType)} ${formatShape(shape)} takes ${byteLength}`,
      );
    }
    return { name, dataType, shape, data: raw };
  }
  return {
    name,
    dataType,
    shape,
    data: readTyped(reader.source, { name, dataType, shape, elements, byteLength, runs }),
  };
}

/** The tensor as the protocol carries it. @throws INVALID_ARGUMENT when no client type matches, or the data is elsewhere. */
export function tensorOfOnnx(tensor: OnnxTensor): Tensor {
  const datatype = datatypeOfOnnx.get(tensor.dataType);
  if (datatype === undefined)
    throw invalid(tensor.name, `is ${onnxDataTypeName(tensor.dataType)}, which the protocol cannot carry`);
  if (tensor.external !== undefined) throw invalid(tensor.name, `has its data in '${tensor.external.location}'`);
  return { name: tensor.name, datatype, shape: tensor.shape, data: tensor.data };
}

/** A tensor of the protocol in ONNX's terms; the bytes are shared. */
export function onnxOfTensor(tensor: Tensor): OnnxTensor {
  return { name: tensor.name, dataType: onnxDataTypeOf(tensor.datatype), shape: tensor.shape, data: tensor.data };
}

/**
 * Writes the fields of a TensorProto: raw_data, kept by reference, or string_data. Dims leave unpacked, as ONNX's own
 * tools write them.
 *
 * @throws INVALID_ARGUMENT when the bytes do not fit type and shape.
 */
export function writeTensorProto(writer: WireWriter, tensor: OnnxTensor): void {
  const elements = checkedElementCount(tensor.name, tensor.dataType, tensor.shape);
  for (const size of tensor.shape) writer.int64(field.dims, size);
  writer.uint(field.dataType, tensor.dataType);
  if (tensor.external === undefined && tensor.dataType === onnxDataType.STRING) {
    const count = countBytesElements(tensor.data);
    if (count !== elements) throw wrongCount(tensor.name, tensor.shape, count, 'strings');
    for (const element of decodeBytesElements(tensor.data)) writer.bytes(field.stringData, element);
  }
  if (tensor.name !== '') writer.string(field.name, tensor.name);
  if (tensor.external !== undefined) {
    writePair(writer, 'location', tensor.external.location);
    writePair(writer, 'offset', String(tensor.external.offset));
    if (tensor.external.length !== undefined) writePair(writer, 'length', String(tensor.external.length));
    writer.uint(field.dataLocation, 1);
  } else if (tensor.dataType !== onnxDataType.STRING) {
    const byteLength = onnxTensorBytes(tensor.dataType, elements);
    if (tensor.data.byteLength !== byteLength) {
      throw invalid(
        tensor.name,
        `has ${tensor.data.byteLength} bytes; ${onnxDataTypeName(tensor.dataType)} ${formatShape(tensor.shape)} takes ${byteLength ?? 0}`,
      );
    }
    writer.bytes(field.rawData, tensor.data);
  }
}

/** One tensor as a message of its own, such as a test vector. */
export function encodeTensorProto(tensor: OnnxTensor): Uint8Array<ArrayBuffer> {
  const writer = new WireWriter();
  writeTensorProto(writer, tensor);
  return writer.finish();
}

function addRun(runs: Map<number, Run[]>, reader: WireReader): void {
  const { field: number, type } = reader;
  const before = reader.position;
  const list = runs.get(number) ?? [];
  runs.set(number, list);
  if (type === wireType.bytes) {
    const packed = reader.message();
    list.push({ start: packed.position, end: packed.end });
    return;
  }
  reader.skip();
  list.push({ start: before, end: reader.position });
}

interface TypedData {
  readonly name: string;
  readonly dataType: number;
  readonly shape: Shape;
  readonly elements: number;
  readonly byteLength: number;
  readonly runs: ReadonlyMap<number, readonly Run[]>;
}

/** Entries are counted before memory is taken, so that a shape alone cannot make the reader allocate. */
function readTyped(source: Uint8Array, tensor: TypedData): Uint8Array {
  const form = typedForm(tensor.dataType);
  if (form === undefined) throw invalid(tensor.name, `is ${onnxDataTypeName(tensor.dataType)} without raw data`);
  const runs = tensor.runs.get(form.field) ?? [];
  const entriesWanted = form.entryBytes === 0 ? 0 : Math.ceil(tensor.byteLength / form.entryBytes);
  const entries = runs.reduce((sum, run) => sum + countEntries(source, run, form.wire), 0);
  if (entries !== entriesWanted) throw wrongCount(tensor.name, tensor.shape, entries, 'entries', entriesWanted);
  const data = new Uint8Array(entriesWanted * form.entryBytes);
  const entry = new Uint8Array(8);
  const view = new DataView(entry.buffer);
  let at = 0;
  for (const run of runs) {
    if (form.wire !== 'varint') {
      data.set(source.subarray(run.start, run.end), at);
      at += run.end - run.start;
      continue;
    }
    const reader = new WireReader(source, run.start, run.end);
    while (reader.position < reader.end) {
      view.setBigUint64(0, reader.uint64(), true);
      for (let byte = 0; byte < form.entryBytes; byte += 1) data[at + byte] = entry[byte] ?? 0;
      at += form.entryBytes;
    }
  }
  return data.subarray(0, tensor.byteLength);
}

interface TypedForm {
  readonly field: number;
  readonly wire: 'fixed32' | 'fixed64' | 'varint';
  /** Bytes of raw data that one entry stands for. */
  readonly entryBytes: number;
}

function typedForm(dataType: number): TypedForm | undefined {
  const bits = onnxElementBits(dataType) ?? 0;
  switch (dataType) {
    case onnxDataType.FLOAT:
    case onnxDataType.COMPLEX64:
      return { field: field.floatData, wire: 'fixed32', entryBytes: 4 };
    case onnxDataType.DOUBLE:
    case onnxDataType.COMPLEX128:
      return { field: field.doubleData, wire: 'fixed64', entryBytes: 8 };
    case onnxDataType.INT64:
      return { field: field.int64Data, wire: 'varint', entryBytes: 8 };
    case onnxDataType.UINT32:
    case onnxDataType.UINT64:
      return { field: field.uint64Data, wire: 'varint', entryBytes: bits / 8 };
    default:
      // Elements of less than a byte share an entry, low bits first, exactly as they share a byte of raw data.
      return bits === 0 ? undefined : { field: field.int32Data, wire: 'varint', entryBytes: Math.max(1, bits / 8) };
  }
}

function countEntries(source: Uint8Array, run: Run, wire: TypedForm['wire']): number {
  if (wire !== 'varint') return (run.end - run.start) / (wire === 'fixed32' ? 4 : 8);
  let count = 0;
  for (let at = run.start; at < run.end; at += 1) if ((source[at] ?? 0) < 0x80) count += 1;
  return count;
}

function readPair(reader: WireReader, pairs: Map<string, string>): void {
  let key = '';
  let value = '';
  while (reader.next()) {
    if (reader.field === 1) key = reader.string();
    else if (reader.field === 2) value = reader.string();
    else reader.skip();
  }
  pairs.set(key, value);
}

function writePair(writer: WireWriter, key: string, value: string): void {
  writer.message(field.externalData, (pair) => pair.string(1, key).string(2, value));
}

function externalData(name: string, pairs: ReadonlyMap<string, string>): ExternalData {
  const location = pairs.get('location');
  if (location === undefined || location === '') throw invalid(name, 'has its data elsewhere but does not say where');
  const length = pairs.get('length');
  const offset = pairs.get('offset');
  return {
    location,
    offset: offset === undefined ? 0 : wholeNumber(name, 'offset', offset),
    ...(length === undefined ? {} : { length: wholeNumber(name, 'length', length) }),
  };
}

function wholeNumber(name: string, key: string, text: string): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value))
    throw invalid(name, `has ${key} '${text}' for its external data, which is no whole number`);
  return value;
}

function checkedElementCount(name: string, dataType: number, shape: Shape): number {
  if (onnxElementBits(dataType) === undefined)
    throw invalid(name, `has ${onnxDataTypeName(dataType)}, which ONNX does not define`);
  if (shape.some((size) => size < 0 || !Number.isSafeInteger(size)))
    throw invalid(name, `has the shape ${formatShape(shape)}`);
  const elements = elementCount(shape);
  if (!Number.isSafeInteger(elements * 16))
    throw invalid(name, `has the shape ${formatShape(shape)}, which is too large`);
  return elements;
}

function wrongCount(name: string, shape: Shape, actual: number, what: string, wanted = elementCount(shape)): Error {
  return invalid(name, `has ${actual} ${what}; its shape ${formatShape(shape)} takes ${wanted}`);
}

function invalid(name: string, what: string): Error {
  return intarsiaError('INVALID_ARGUMENT', `tensor '${name}' ${what}`, { tensor: name });
}
