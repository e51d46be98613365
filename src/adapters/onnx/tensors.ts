/**
 * Raw bytes ↔ ONNX Runtime's tensors. Bytes are viewed where they lie; they are copied only when they are not aligned to
 * their element size. Strings are the exception: ONNX Runtime's are JavaScript strings, so that the elements of a BYTES
 * tensor must be UTF-8, and its binding takes them for texts that end at the first U+0000.
 */
import type { Tensor as OrtTensor } from 'onnxruntime-node';
import { datatypeBytes, type Datatype } from '#core/datatype.js';
import { intarsiaError } from '#core/errors.js';
import {
  decodeBytesElements,
  elementCount,
  encodeBytesElements,
  formatShape,
  tensorBytes,
  type Tensor,
} from '#core/tensor.js';
import { float16Array, type ViewConstructor } from './half-floats.js';
import type { OnnxLibrary } from './library.js';

const types = new Map<Datatype, { readonly type: OrtTensor.Type; readonly view: ViewConstructor }>([
  ['BOOL', { type: 'bool', view: Uint8Array }],
  ['UINT8', { type: 'uint8', view: Uint8Array }],
  ['UINT16', { type: 'uint16', view: Uint16Array }],
  ['UINT32', { type: 'uint32', view: Uint32Array }],
  ['UINT64', { type: 'uint64', view: BigUint64Array }],
  ['INT8', { type: 'int8', view: Int8Array }],
  ['INT16', { type: 'int16', view: Int16Array }],
  ['INT32', { type: 'int32', view: Int32Array }],
  ['INT64', { type: 'int64', view: BigInt64Array }],
  ['FP16', { type: 'float16', view: float16Array ?? Uint16Array }],
  ['FP32', { type: 'float32', view: Float32Array }],
  ['FP64', { type: 'float64', view: Float64Array }],
]);

const datatypes = new Map<string, Datatype>([...types].map(([datatype, { type }]) => [type, datatype]));
datatypes.set('string', 'BYTES');

/** The protocol's name for ONNX Runtime's; undefined for types that cannot leave it (int4 and its like). */
export function datatypeOfOrt(type: string): Datatype | undefined {
  return datatypes.get(type);
}

/** @throws INVALID_ARGUMENT when bytes and shape disagree, text is not UTF-8, or the engine has no such type. */
export function toOrtTensor(library: OnnxLibrary, tensor: Tensor): OrtTensor {
  const { datatype, shape, data } = tensor;
  if (datatype === 'BYTES') return new library.Tensor('string', decodeTexts(tensor), shape);
  const mapping = types.get(datatype);
  if (mapping === undefined) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `input ${tensor.name}: ONNX Runtime in JavaScript has no tensors of type ${datatype}`,
    );
  }
  const wanted = tensorBytes(datatype, shape);
  if (wanted !== data.byteLength) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `input ${tensor.name} of type ${datatype} and shape ${formatShape(shape)} takes ${wanted ?? 0} bytes; it has ${data.byteLength}`,
      { bytes: data.byteLength, bytesWanted: wanted ?? 0 },
    );
  }
  const size = datatypeBytes(datatype);
  const aligned = data.byteOffset % size === 0 ? data : new Uint8Array(data);
  const view = new mapping.view(aligned.buffer, aligned.byteOffset, data.byteLength / size);
  return new library.Tensor(mapping.type, view as Float32Array, shape);
}

/** The bytes are views on what the engine gave, which belongs to JavaScript and to the caller. */
export function fromOrtTensor(name: string, tensor: OrtTensor): Tensor {
  const datatype = datatypes.get(tensor.type);
  if (datatype === undefined) {
    throw intarsiaError('EXECUTION_FAILED', `output ${name} has type ${tensor.type}, which no protocol carries`);
  }
  if (datatype === 'BYTES') {
    const encoder = new TextEncoder();
    const texts = tensor.data as string[];
    return { name, datatype, shape: tensor.dims, data: encodeBytesElements(texts.map((text) => encoder.encode(text))) };
  }
  const view = tensor.data as Uint8Array;
  return { name, datatype, shape: tensor.dims, data: new Uint8Array(view.buffer, view.byteOffset, view.byteLength) };
}

function decodeTexts(tensor: Tensor): string[] {
  const elements = decodeBytesElements(tensor.data);
  const wanted = elementCount(tensor.shape);
  if (elements.length !== wanted) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `input ${tensor.name} of shape ${formatShape(tensor.shape)} takes ${wanted} strings; it has ${elements.length}`,
      { elements: elements.length, elementsWanted: wanted },
    );
  }
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  return elements.map((element, index) => {
    const problem = (text: string): Error =>
      intarsiaError('INVALID_ARGUMENT', `input ${tensor.name}: string ${index} ${text}`, { index });
    if (element.includes(0)) throw problem('holds U+0000, where ONNX Runtime would cut it off');
    try {
      return decoder.decode(element);
    } catch {
      throw problem("is not UTF-8, which ONNX Runtime's strings must be");
    }
  });
}
