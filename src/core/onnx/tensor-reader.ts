/**
 * Reads TensorProto and SparseTensorProto of a model file without touching their data: name, type, shape, size, and
 * where the data lies when it is in another file. tensor-proto.ts decodes data.
 */
import { intarsiaError } from '../errors.js';
import { formatShape } from '../tensor.js';
import { wireType } from '../wire.js';
import type { WireReader } from '../wire.js';
import { onnxDataType, onnxDataTypeName, onnxElementBits } from './data-type.js';
import { readExternalData } from './external-data.js';
import type { Encoded, SparseTensorView, TensorView } from './model-view.js';
import type { ReadBudget } from './read-budget.js';

const field = {
  dims: 1,
  dataType: 2,
  stringData: 6,
  name: 8,
  rawData: 9,
  externalData: 13,
  dataLocation: 14,
} as const;
const pairField = { key: 1, value: 2 } as const;
const sparseField = { values: 1, indices: 2 } as const;

/** Reads one TensorProto. @throws MODEL_INVALID when type, shape and bytes contradict each other. */
export function readTensor(reader: WireReader, place: Encoded, budget: ReadBudget): TensorView {
  const dims: number[] = [];
  const pairs = new Map<string, string>();
  let dataType = 0;
  let name = '';
  let rawBytes: number | undefined;
  let stringBytes = 0;
  let isExternal = false;
  while (reader.next()) {
    switch (reader.field) {
      case field.dims:
        reader.repeated((entry) => {
          budget.take(1);
          dims.push(entry.int53());
        });
        break;
      case field.dataType:
        reader.expect(wireType.varint);
        dataType = reader.varint();
        break;
      case field.stringData:
        reader.expect(wireType.bytes);
        stringBytes += reader.bytes().byteLength;
        break;
      case field.name:
        name = budget.text(reader);
        break;
      case field.rawData:
        reader.expect(wireType.bytes);
        rawBytes = reader.bytes().byteLength;
        break;
      case field.externalData:
        budget.message(reader, (inner) => readPair(inner, pairs, budget));
        break;
      case field.dataLocation:
        reader.expect(wireType.varint);
        isExternal = reader.varint() === 1;
        break;
      default:
        reader.skip();
    }
  }
  const dataBytes = dataType === onnxDataType.STRING ? stringBytes : bytesOf(name, dataType, dims);
  const view = {
    start: place.start,
    bodyStart: place.bodyStart,
    end: place.end,
    name,
    dataType,
    dims,
    dataBytes,
    external: undefined,
  };
  if (isExternal) {
    if (dataType === onnxDataType.STRING) throw invalid(name, 'holds strings, which cannot lie in another file');
    const external = readExternalData(name, pairs);
    if (external.length !== undefined && external.length !== dataBytes) {
      throw invalid(
        name,
        `is ${onnxDataTypeName(dataType)} ${formatShape(dims)} and takes ${dataBytes} bytes; its external data has ${external.length}`,
      );
    }
    return { ...view, external };
  }
  if (rawBytes !== undefined && rawBytes > 0 && dataType !== onnxDataType.STRING && rawBytes !== dataBytes) {
    throw invalid(
      name,
      `is ${onnxDataTypeName(dataType)} ${formatShape(dims)} and takes ${dataBytes} bytes; it has ${rawBytes}`,
    );
  }
  return view;
}

/** Reads one SparseTensorProto. @throws MODEL_INVALID when its values or indices are missing. */
export function readSparseTensor(reader: WireReader, place: Encoded, budget: ReadBudget): SparseTensorView {
  let values: TensorView | undefined;
  let indices: TensorView | undefined;
  while (reader.next()) {
    switch (reader.field) {
      case sparseField.values:
        values = budget.message(reader, (inner, innerPlace) => readTensor(inner, innerPlace, budget));
        break;
      case sparseField.indices:
        indices = budget.message(reader, (inner, innerPlace) => readTensor(inner, innerPlace, budget));
        break;
      default:
        reader.skip();
    }
  }
  if (values === undefined || indices === undefined) {
    throw invalid(values?.name ?? '', 'is sparse and lacks its values or its indices');
  }
  return { start: place.start, bodyStart: place.bodyStart, end: place.end, name: values.name, values, indices };
}

function readPair(reader: WireReader, pairs: Map<string, string>, budget: ReadBudget): void {
  let key = '';
  let value = '';
  while (reader.next()) {
    if (reader.field === pairField.key) key = budget.text(reader);
    else if (reader.field === pairField.value) value = budget.text(reader);
    else reader.skip();
  }
  pairs.set(key, value);
}

function bytesOf(name: string, dataType: number, dims: readonly number[]): number {
  const bits = onnxElementBits(dataType);
  if (bits === undefined) throw invalid(name, `has the unknown ${onnxDataTypeName(dataType)}`);
  let elements = 1;
  for (const size of dims) {
    if (size < 0) throw invalid(name, `has the negative size ${size} in its shape ${formatShape(dims)}`);
    elements *= size;
  }
  const bytes = Math.ceil((bits * elements) / 8);
  if (!Number.isSafeInteger(bytes)) throw invalid(name, `has the impossible shape ${formatShape(dims)}`);
  return bytes;
}

function invalid(name: string, problem: string): Error {
  return intarsiaError('MODEL_INVALID', `tensor ${JSON.stringify(name)} ${problem}`, { tensor: name });
}
