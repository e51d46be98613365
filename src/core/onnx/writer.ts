/**
 * Writes ONNX models: a draft in, the bytes of the file out, as ranges that share the weights' memory.
 *
 * The same draft gives the same bytes, so that a digest names a model. What does not fit one message (2 GiB) goes into a
 * side file. It checks what would make a file that no reader takes; whether the operators make sense is the runtime's word.
 */
import { intarsiaError } from '../errors.js';
import { WireWriter } from '../wire.js';
import { onnxDataType } from './data-type.js';
import type { Attribute, GraphDraft, ModelDraft, NodeDraft, ValueDraft } from './draft.js';
import { writeTensorProto } from './tensor-proto.js';
import type { OnnxTensor } from './tensor-proto.js';

/** Protocol Buffers' own limit for one message. Bytes. */
export const modelBytesMax = 2 ** 31 - 1;

/** Puts weights into a file next to the model. */
export interface ExternalWeights {
  /** Name of the side file, in the model's folder: `model.onnx.data`. */
  readonly location: string;
  /** Tensors of at least this many bytes move out. Default 1024, as ONNX's tools do. */
  readonly tensorBytesMin?: number;
  /** Offsets are multiples of this many bytes, so that the file can be mapped. Default 4096. */
  readonly alignment?: number;
}

/** A written model; write the ranges one after another. */
export interface EncodedModel {
  readonly parts: readonly Uint8Array[];
  readonly byteLength: number;
  /** The side file's ranges, when weights were put there. */
  readonly external?: {
    readonly location: string;
    readonly parts: readonly Uint8Array[];
    readonly byteLength: number;
  };
}

const attributeType = { float: 1, int: 2, string: 3, tensor: 4, graph: 5, floats: 6, ints: 7, strings: 8 } as const;

/** Oldest IR version that may carry an opset of ONNX's own operators. */
function irVersionOf(opset: number): number {
  if (opset >= 25) return 13;
  if (opset >= 24) return 12;
  if (opset >= 23) return 11;
  if (opset >= 21) return 10;
  if (opset >= 19) return 9;
  return opset >= 15 ? 8 : 7;
}

/**
 * Encodes a model.
 *
 * @throws INVALID_ARGUMENT when tensors do not fit their shapes, names repeat, or the message would exceed 2 GiB.
 */
export function encodeModel(draft: ModelDraft, external?: ExternalWeights): EncodedModel {
  checkNames(draft.graph);
  const outside = external === undefined ? undefined : layOutExternal(draft.graph.initializers, external);
  const writer = new WireWriter(4096);
  writer.int64(1, draft.irVersion ?? irVersionOf(draft.opset));
  writer.string(2, draft.producer?.name ?? 'intarsia');
  if (draft.producer !== undefined && draft.producer.version !== '') writer.string(3, draft.producer.version);
  if (draft.documentation !== undefined) writer.string(6, draft.documentation);
  const graph = new WireWriter(4096);
  writeGraph(graph, draft.graph, outside?.initializers ?? draft.graph.initializers);
  writer.embed(7, graph);
  for (const [domain, version] of Object.entries({ '': draft.opset, ...draft.domains })) {
    writer.message(8, (opset) => opset.string(1, domain).int64(2, version));
  }
  for (const [key, value] of Object.entries(draft.metadata ?? {})) {
    writer.message(14, (pair) => pair.string(1, key).string(2, value));
  }
  if (writer.byteLength > modelBytesMax) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `model '${draft.graph.name}' takes ${writer.byteLength} bytes, one ONNX file holds ${modelBytesMax}: put its weights into a side file`,
      { bytes: writer.byteLength, bytesMax: modelBytesMax },
    );
  }
  return {
    parts: writer.parts(),
    byteLength: writer.byteLength,
    ...(outside === undefined
      ? {}
      : { external: { location: outside.location, parts: outside.parts, byteLength: outside.byteLength } }),
  };
}

/** The file in one piece, for models that fit into memory twice. */
export function encodeModelBytes(draft: ModelDraft): Uint8Array<ArrayBuffer> {
  const encoded = encodeModel(draft);
  const bytes = new Uint8Array(encoded.byteLength);
  let offset = 0;
  for (const part of encoded.parts) {
    bytes.set(part, offset);
    offset += part.byteLength;
  }
  return bytes;
}

function writeGraph(writer: WireWriter, graph: GraphDraft, initializers: readonly OnnxTensor[]): void {
  for (const node of graph.nodes) {
    const message = new WireWriter();
    writeNode(message, node);
    writer.embed(1, message);
  }
  writer.string(2, graph.name);
  for (const initializer of initializers) {
    const message = new WireWriter();
    writeTensorProto(message, initializer);
    writer.embed(5, message);
  }
  for (const value of graph.inputs) writer.message(11, (message) => writeValue(message, value));
  for (const value of graph.outputs) writer.message(12, (message) => writeValue(message, value));
}

/** Writes the fields of a NodeProto. */
export function writeNode(writer: WireWriter, node: NodeDraft): void {
  for (const name of node.inputs) writer.string(1, name);
  for (const name of node.outputs) writer.string(2, name);
  if (node.name !== undefined) writer.string(3, node.name);
  writer.string(4, node.opType);
  for (const [name, attribute] of Object.entries(node.attributes ?? {})) {
    const message = new WireWriter();
    message.string(1, name);
    writeAttribute(message, attribute);
    message.uint(20, attributeType[attribute.kind]);
    writer.embed(5, message);
  }
  if (node.domain !== undefined && node.domain !== '') writer.string(7, node.domain);
}

function writeAttribute(writer: WireWriter, attribute: Attribute): void {
  switch (attribute.kind) {
    case 'float':
      writer.float(2, attribute.value);
      break;
    case 'int':
      writer.int64(3, attribute.value);
      break;
    case 'string':
      writeText(writer, 4, attribute.value);
      break;
    case 'tensor':
      writer.message(5, (message) => writeTensorProto(message, attribute.value));
      break;
    case 'graph':
      checkNames(attribute.value);
      writer.message(6, (message) => writeGraph(message, attribute.value, attribute.value.initializers));
      break;
    case 'floats':
      for (const value of attribute.value) writer.float(7, value);
      break;
    case 'ints':
      for (const value of attribute.value) writer.int64(8, value);
      break;
    case 'strings':
      for (const value of attribute.value) writeText(writer, 9, value);
      break;
  }
}

function writeText(writer: WireWriter, field: number, value: string | Uint8Array): void {
  if (typeof value === 'string') writer.string(field, value);
  else writer.bytes(field, value);
}

/** Writes the fields of a ValueInfoProto. */
export function writeValue(writer: WireWriter, value: ValueDraft): void {
  writer.string(1, value.name);
  writer.message(2, (type) =>
    type.message(1, (tensor) => {
      tensor.uint(1, value.dataType);
      const { shape } = value;
      if (shape === undefined) return;
      tensor.message(2, (message) => {
        for (const size of shape) {
          message.message(1, (dimension) => {
            if (typeof size === 'number') dimension.int64(1, size);
            else if (size !== undefined) dimension.string(2, size);
          });
        }
      });
    }),
  );
}

interface OutsideWeights {
  readonly location: string;
  readonly initializers: readonly OnnxTensor[];
  readonly parts: readonly Uint8Array[];
  readonly byteLength: number;
}

function layOutExternal(initializers: readonly OnnxTensor[], options: ExternalWeights): OutsideWeights {
  const { location, tensorBytesMin = 1024, alignment = 4096 } = options;
  const padding = new Uint8Array(alignment);
  const parts: Uint8Array[] = [];
  let byteLength = 0;
  const moved = initializers.map((tensor): OnnxTensor => {
    const isMovable = tensor.external === undefined && tensor.dataType !== onnxDataType.STRING;
    if (!isMovable || tensor.data.byteLength < tensorBytesMin) return tensor;
    const offset = Math.ceil(byteLength / alignment) * alignment;
    if (offset > byteLength) parts.push(padding.subarray(0, offset - byteLength));
    parts.push(tensor.data);
    byteLength = offset + tensor.data.byteLength;
    return { ...tensor, data: new Uint8Array(0), external: { location, offset, length: tensor.data.byteLength } };
  });
  return { location, initializers: moved, parts, byteLength };
}

/** Each value is defined once in its graph, and before it is named as an output. */
function checkNames(graph: GraphDraft): void {
  const defined = new Set<string>();
  const define = (name: string, what: string): void => {
    if (name === '' || defined.has(name)) {
      const problem = name === '' ? 'has no name' : `takes the name '${name}' a second time`;
      throw intarsiaError('INVALID_ARGUMENT', `graph '${graph.name}': ${what} ${problem}`, {
        graph: graph.name,
        value: name,
      });
    }
    defined.add(name);
  };
  for (const value of graph.inputs) define(value.name, 'an input');
  for (const tensor of graph.initializers) define(tensor.name, 'an initializer');
  for (const node of graph.nodes) {
    for (const name of node.outputs) if (name !== '') define(name, `a ${node.opType} node`);
  }
}
