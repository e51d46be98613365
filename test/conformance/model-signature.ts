/** What an ONNX file declares that it takes and gives, read without an inference engine. */
import { datatypeOfOnnx } from '#core/datatype.js';
import { onnxDataTypeName } from '#core/onnx/data-type.js';
import { readTensorProto } from '#core/onnx/tensor-proto.js';
import type { OnnxTensor } from '#core/onnx/tensor-proto.js';
import { WireReader } from '#core/wire.js';

export interface DeclaredValue {
  readonly name: string;
  /** Undefined for sequences, maps and optionals. */
  readonly dataType: number | undefined;
  /** -1 where unknown or symbolic; undefined where even the rank is. */
  readonly shape: readonly number[] | undefined;
}

export interface ModelSignature {
  /** Without those that initializers give a default to. */
  readonly inputs: readonly DeclaredValue[];
  readonly outputs: readonly DeclaredValue[];
}

export function readSignature(model: Uint8Array): ModelSignature {
  const reader = new WireReader(model);
  const inputs: DeclaredValue[] = [];
  const outputs: DeclaredValue[] = [];
  const defaults = new Set<string>();
  while (reader.next()) {
    if (reader.field !== 7) {
      reader.skip();
      continue;
    }
    const graph = reader.message();
    while (graph.next()) {
      if (graph.field === 5) defaults.add(tensorName(graph.message()));
      else if (graph.field === 11) inputs.push(readValue(graph.message()));
      else if (graph.field === 12) outputs.push(readValue(graph.message()));
      else graph.skip();
    }
  }
  return { inputs: inputs.filter((input) => !defaults.has(input.name)), outputs };
}

/** Why a value cannot cross the protocol or ONNX Runtime's JavaScript interface; undefined when it can. */
export function obstacle(value: DeclaredValue): string | undefined {
  if (value.dataType === undefined)
    return `'${value.name}' is a sequence, map or optional: no tensor, cannot cross the protocol`;
  const datatype = datatypeOfOnnx.get(value.dataType);
  if (datatype === undefined || datatype === 'BF16') {
    return `'${value.name}' is ${onnxDataTypeName(value.dataType)}, which onnxruntime-node cannot pass`;
  }
  return undefined;
}

/** A test vector under the name that the model declares. */
export function readVector(bytes: Uint8Array, name: string): OnnxTensor {
  return { ...readTensorProto(bytes), name };
}

function tensorName(reader: WireReader): string {
  let name = '';
  while (reader.next()) {
    if (reader.field === 8) name = reader.string();
    else reader.skip();
  }
  return name;
}

function readValue(reader: WireReader): DeclaredValue {
  let name = '';
  let type: Omit<DeclaredValue, 'name'> = { dataType: undefined, shape: undefined };
  while (reader.next()) {
    if (reader.field === 1) name = reader.string();
    else if (reader.field === 2) type = readType(reader.message());
    else reader.skip();
  }
  return { name, ...type };
}

function readType(reader: WireReader): Omit<DeclaredValue, 'name'> {
  let dataType: number | undefined;
  let shape: number[] | undefined;
  while (reader.next()) {
    if (reader.field !== 1) {
      reader.skip();
      continue;
    }
    const tensor = reader.message();
    while (tensor.next()) {
      if (tensor.field === 1) dataType = tensor.varint();
      else if (tensor.field === 2) shape = readShape(tensor.message());
      else tensor.skip();
    }
  }
  return { dataType, shape };
}

function readShape(reader: WireReader): number[] {
  const shape: number[] = [];
  while (reader.next()) {
    if (reader.field !== 1) {
      reader.skip();
      continue;
    }
    const dimension = reader.message();
    let size = -1;
    while (dimension.next()) {
      if (dimension.field === 1) size = dimension.int53();
      else dimension.skip();
    }
    shape.push(size);
  }
  return shape;
}
