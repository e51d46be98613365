/**
 * Changes to a model's main graph, written over the original's bytes: what no change names leaves as it came, fields that
 * nobody here knows included. Weights stay views on the file's memory.
 *
 * Weights that lie in side files are brought into the model, so that a variant is one file. That bounds it to 2 GiB.
 */
import { intarsiaError } from '../errors.js';
import { onnxDataTypeName } from '../onnx/data-type.js';
import type { NodeDraft, ValueDraft } from '../onnx/draft.js';
import type { Encoded, ModelView, NodeView, TensorView } from '../onnx/model-view.js';
import { readTensorProto, writeTensorProto, type OnnxTensor } from '../onnx/tensor-proto.js';
import { modelBytesMax, writeNode, writeValue, type EncodedModel } from '../onnx/writer.js';
import { nodesInside, quote, type SplitGraph } from '../split/graph.js';
import { WireReader, WireWriter } from '../wire.js';

const modelGraph = 7;
const graphField = { node: 1, initializer: 5, input: 11 } as const;
const nodeField = { input: 1, output: 2 } as const;

/** Contents of the side files by location; empty for a model without. */
export type SideFiles = ReadonlyMap<string, Uint8Array>;

export type EncodedVariant = Pick<EncodedModel, 'parts' | 'byteLength'>;

export class GraphEdit {
  readonly #model: ModelView;
  readonly #sideFiles: SideFiles;
  /** By the offset of what is replaced; an empty list takes it away. */
  readonly #replaced = new Map<number, readonly WireWriter[]>();
  readonly #appended = new WireWriter(4096);

  /** @throws FAILED_PRECONDITION when a tensor inside a node has its data in another file. */
  constructor(model: ModelView, sideFiles: SideFiles) {
    this.#model = model;
    this.#sideFiles = sideFiles;
    refuseInnerExternals(model);
  }

  drop({ start }: Encoded): void {
    this.#replaced.set(start, []);
  }

  /** Puts a message in the place of another of the same field. */
  replace({ start }: Encoded, body: WireWriter): void {
    this.#replaced.set(start, [body]);
  }

  appendNode(node: NodeDraft): void {
    const message = new WireWriter();
    writeNode(message, node);
    this.#appended.embed(graphField.node, message);
  }

  /** A node of the file, unchanged. */
  appendOriginal({ start, end }: Encoded): void {
    this.#appended.raw(this.#model.bytes.subarray(start, end));
  }

  /** A node of the file under other names of values. */
  appendRenamed(view: NodeView, inputs: readonly string[], outputs: readonly string[]): void {
    const message = new WireWriter();
    for (const name of inputs) message.string(nodeField.input, name);
    for (const name of outputs) message.string(nodeField.output, name);
    const reader = new WireReader(this.#model.bytes, view.bodyStart, view.end);
    while (reader.next()) {
      const { field, fieldStart } = reader;
      reader.skip();
      if (field === nodeField.input || field === nodeField.output) continue;
      message.raw(this.#model.bytes.subarray(fieldStart, reader.position));
    }
    this.#appended.embed(graphField.node, message);
  }

  /** A further initializer. Before IR 4 it is an input as well. */
  appendTensor(tensor: OnnxTensor): void {
    const message = new WireWriter();
    writeTensorProto(message, tensor);
    this.#appended.embed(graphField.initializer, message);
    if (this.#model.irVersion >= 4) return;
    const { name, dataType, shape } = tensor;
    const value: ValueDraft = { name, dataType, shape };
    this.#appended.message(graphField.input, (input) => writeValue(input, value));
  }

  /** The tensor with its data, wherever that lies. */
  read(view: TensorView): OnnxTensor {
    return readWeight(this.#model, view, this.#sideFiles);
  }

  /** @throws FAILED_PRECONDITION beyond 2 GiB. */
  encode(): EncodedVariant {
    const { bytes, graph } = this.#model;
    this.#bringInside();
    const body = new WireWriter(4096);
    const inner = new WireReader(bytes, graph.bodyStart, graph.end);
    while (inner.next()) {
      const { field, fieldStart } = inner;
      inner.skip();
      const replaced = this.#replaced.get(fieldStart);
      if (replaced === undefined) body.raw(bytes.subarray(fieldStart, inner.position));
      else for (const message of replaced) body.embed(field, message);
    }
    for (const part of this.#appended.parts()) body.raw(part);
    const writer = new WireWriter(4096);
    const reader = new WireReader(bytes);
    while (reader.next()) {
      const { field, fieldStart } = reader;
      reader.skip();
      if (field === modelGraph) writer.embed(modelGraph, body);
      else writer.raw(bytes.subarray(fieldStart, reader.position));
    }
    const { byteLength } = writer;
    if (byteLength > modelBytesMax) {
      throw intarsiaError(
        'FAILED_PRECONDITION',
        `the variant takes ${byteLength} bytes in one file; an ONNX file holds ${modelBytesMax}`,
        { bytes: byteLength, bytesMax: modelBytesMax },
      );
    }
    return { parts: writer.parts(), byteLength };
  }

  #bringInside(): void {
    for (const view of this.#model.graph.initializers) {
      if (view.external === undefined || this.#replaced.has(view.start)) continue;
      const message = new WireWriter();
      writeTensorProto(message, this.read(view));
      this.replace(view, message);
    }
  }
}

/** A tensor's data from the model or from its side file. @throws NOT_FOUND, MODEL_INVALID. */
export function readWeight(model: ModelView, view: TensorView, sideFiles: SideFiles): OnnxTensor {
  const tensor = readTensorProto(model.bytes.subarray(view.bodyStart, view.end));
  if (tensor.external === undefined) return tensor;
  const { location, offset } = tensor.external;
  const file = sideFiles.get(location);
  if (file === undefined) {
    throw intarsiaError('NOT_FOUND', `side file ${quote(location)} of tensor ${quote(tensor.name)} is missing`);
  }
  if (offset + view.dataBytes > file.byteLength) {
    throw intarsiaError(
      'MODEL_INVALID',
      `tensor ${quote(tensor.name)} ends at byte ${offset + view.dataBytes} of ${quote(location)}, which has ${file.byteLength}`,
    );
  }
  const { name, dataType, shape } = tensor;
  return { name, dataType, shape, data: file.subarray(offset, offset + view.dataBytes) };
}

/** A constant that a graph's node may be given in another form. */
export interface Weight {
  readonly view: TensorView;
  /** Whether it is an initializer; otherwise a Constant node. */
  readonly isInitializer: boolean;
}

/** Constants of the main graph by name: initializers that no caller can override, and Constant nodes of one tensor. */
export function weightsOf(graph: SplitGraph): ReadonlyMap<string, Weight> {
  const weights = new Map<string, Weight>();
  for (const [name, view] of graph.initializers) {
    if ('values' in view) continue;
    if (graph.model.irVersion >= 4 && graph.defaultedInputs.has(name)) continue;
    weights.set(name, { view, isInitializer: true });
  }
  for (const { operator, view, defines } of graph.nodes) {
    const tensor = view.attributes.find(({ name }) => name === 'value')?.tensors[0];
    const [name] = defines;
    if (operator !== 'Constant' || tensor === undefined || name === undefined) continue;
    weights.set(name, { view: tensor, isInitializer: false });
  }
  return weights;
}

/** An ending for new names that no name of the graph has. */
export function freshEnding(graph: SplitGraph, wanted: string): string {
  const names = [
    ...graph.producers.keys(),
    ...graph.initializers.keys(),
    ...graph.inputs.map(({ name }) => name),
    ...graph.model.graph.nodes.flatMap((node) => [...nodesInside(node)].flatMap(({ outputs }) => outputs)),
  ];
  let ending = wanted;
  while (names.some((name) => name.endsWith(ending))) ending += '_';
  return ending;
}

function refuseInnerExternals({ graph, functions }: ModelView): void {
  const nodes = [...graph.nodes, ...functions.flatMap((definition) => definition.nodes)];
  for (const outer of nodes) {
    for (const node of [outer, ...nodesInside(outer)]) {
      for (const { tensors, graphs } of node.attributes) {
        const found = [...tensors, ...graphs.flatMap(({ initializers }) => initializers)].find(
          ({ external }) => external !== undefined,
        );
        if (found === undefined) continue;
        throw intarsiaError(
          'FAILED_PRECONDITION',
          `tensor ${quote(found.name)} (${onnxDataTypeName(found.dataType)}) inside node ${quote(node.name)} has its data in another file; only weights of the main graph can be brought into a variant`,
        );
      }
    }
  }
}
