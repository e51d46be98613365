/** What is known of a value that may cross from one shard to the next, and whether it can. */
import { datatypeBytes, datatypeOfOnnx } from '../datatype.js';
import { onnxDataTypeName } from '../onnx/data-type.js';
import type { Dimension, ValueType } from '../onnx/model-view.js';
import { quote, type SplitGraph } from './graph.js';

/** Values whose type is known. Types of intermediate values come from the file or from an engine. */
export type ValueTypes = ReadonlyMap<string, ValueType>;

const kindNames = {
  'sparse-tensor': 'a sparse tensor',
  sequence: 'a sequence',
  map: 'a map',
  optional: 'an optional value',
  opaque: 'an opaque value',
} as const;

/** What the file itself says about its values: inputs, outputs, initializers, and what it notes in between. */
export function declaredTypes(graph: SplitGraph): Map<string, ValueType> {
  const types = new Map<string, ValueType>();
  const add = (name: string, type: ValueType | undefined): void => {
    if (type === undefined || ('dataType' in type && type.dataType === 0)) return;
    types.set(name, type);
  };
  const { graph: file } = graph.model;
  for (const { name, type } of [...file.values, ...file.outputs, ...file.inputs]) add(name, type);
  for (const tensor of file.initializers) {
    const shape = tensor.dims.map((size): Dimension => ({ size, symbol: '' }));
    add(tensor.name, { kind: 'tensor', dataType: tensor.dataType, shape });
  }
  return types;
}

/** Why a value cannot cross from one executor to another; empty when it can. */
export function crossingProblem(name: string, type: ValueType | undefined): string {
  if (type === undefined) return `the engine does not hand out ${quote(name)} as a tensor`;
  if (type.kind !== 'tensor') return `${quote(name)} is ${kindNames[type.kind]}`;
  const datatype = datatypeOfOnnx.get(type.dataType);
  if (datatype === undefined || datatype === 'BF16') {
    return `${quote(name)} is ${onnxDataTypeName(type.dataType)}, which ONNX Runtime's JavaScript interface cannot pass`;
  }
  return '';
}

/** Bytes of a value; undefined when a size is not known or elements differ in size. */
export function crossingBytes(type: ValueType | undefined): number | undefined {
  if (type?.kind !== 'tensor' || type.shape === undefined) return undefined;
  const datatype = datatypeOfOnnx.get(type.dataType);
  if (datatype === undefined || datatypeBytes(datatype) === 0) return undefined;
  let bytes = datatypeBytes(datatype);
  for (const { size } of type.shape) {
    if (size < 0) return undefined;
    bytes *= size;
  }
  return bytes;
}
