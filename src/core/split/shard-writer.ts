/**
 * Writes a shard as an ONNX model of its own, of the original's bytes.
 *
 * Nodes, tensors, functions, operator sets, metadata and fields that nobody here knows leave as they came; only the list
 * of the graph's inputs and outputs is new. The result is a list of ranges: weights are views on the source file's memory
 * and held once. Tensors in other files keep naming them, so that a shard lies in a folder where the same side files do.
 */
import { intarsiaError } from '../errors.js';
import type { Dimension, Encoded, ValueType, ValueView } from '../onnx/model-view.js';
import type { NodeView, TensorView } from '../onnx/model-view.js';
import { modelBytesMax, type EncodedModel } from '../onnx/writer.js';
import { WireReader, WireWriter } from '../wire.js';
import type { ValueTypes } from './boundary-type.js';
import type { CutPlan, ShardDraft } from './cut.js';
import { functionKey, nodesInside, type SplitGraph } from './graph.js';

const modelField = { graph: 7, trainingInfo: 20, functions: 25 } as const;
const graphField = {
  node: 1,
  initializer: 5,
  input: 11,
  output: 12,
  value: 13,
  quantization: 14,
  sparseInitializer: 15,
} as const;

export interface EncodedShard extends Pick<EncodedModel, 'parts' | 'byteLength'> {
  /** Side files that must lie in the shard's folder, each once. */
  readonly locations: readonly string[];
  /** Bytes of the weights it holds, side files included. */
  readonly weightBytes: number;
}

/**
 * The shard as a model file.
 *
 * Inputs from other shards are declared by element type, with a rank where `types` knows one but never with sizes: what
 * files say about values in between can be wrong, and an engine would refuse what disagrees.
 *
 * @throws MODEL_INVALID when a value that crosses has no known tensor type; INVALID_ARGUMENT beyond 2 GiB.
 */
export function encodeShard(plan: CutPlan, shard: ShardDraft, types: ValueTypes): EncodedShard {
  const { graph } = plan;
  const { model } = graph;
  const source = model.bytes;
  const functions = new Set(calledFunctions(graph, shard).map(({ start }) => start));
  const body = encodeGraph(graph, shard, types);
  const writer = new WireWriter(1024);
  const reader = new WireReader(source);
  const isWhole = plan.shards.length === 1;
  while (reader.next()) {
    const { field, fieldStart } = reader;
    reader.skip();
    if (field === modelField.graph) writer.embed(modelField.graph, body);
    else if (field === modelField.functions && !functions.has(fieldStart)) continue;
    else if (field === modelField.trainingInfo && !isWhole) continue;
    else writer.raw(source.subarray(fieldStart, reader.position));
  }
  if (writer.byteLength > modelBytesMax) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `shard ${shard.index} takes ${writer.byteLength} bytes, one ONNX file holds ${modelBytesMax}`,
      { bytes: writer.byteLength, bytesMax: modelBytesMax },
    );
  }
  const tensors = [...heldTensors(graph, shard)];
  return {
    parts: writer.parts(),
    byteLength: writer.byteLength,
    locations: [...new Set(tensors.flatMap(({ external }) => (external === undefined ? [] : [external.location])))],
    weightBytes: tensors.reduce((sum, { dataBytes }) => sum + dataBytes, 0),
  };
}

/** The model with further values among its outputs, named and nothing else: an engine then tells their types. */
export function encodeWithOutputs(
  graph: SplitGraph,
  names: readonly string[],
): Pick<EncodedModel, 'parts' | 'byteLength'> {
  const { model } = graph;
  const place = model.graph;
  const body = new WireWriter(1024);
  body.raw(model.bytes.subarray(place.bodyStart, place.end));
  for (const name of names) body.message(graphField.output, (value) => value.string(1, name));
  const writer = new WireWriter(1024);
  writer.raw(model.bytes.subarray(0, place.start)).embed(modelField.graph, body).raw(model.bytes.subarray(place.end));
  return { parts: writer.parts(), byteLength: writer.byteLength };
}

function encodeGraph(graph: SplitGraph, shard: ShardDraft, types: ValueTypes): WireWriter {
  const source = graph.model.bytes;
  const place = graph.model.graph;
  const writer = new WireWriter(1024);
  const copy = ({ start, end }: Encoded): void => void writer.raw(source.subarray(start, end));
  for (const { view } of shard.nodes) copy(view);
  const held = new Set(shard.initializers);
  for (const name of shard.initializers) {
    const tensor = graph.initializers.get(name);
    if (tensor !== undefined) copy(tensor);
  }
  const inputsByName = new Map(graph.inputs.map((value) => [value.name, value]));
  const outputsByName = new Map(graph.outputs.map((value) => [value.name, value]));
  for (const name of shard.inputs) {
    const declared = inputsByName.get(name);
    if (declared === undefined) writeBoundary(writer, graphField.input, name, types.get(name));
    else copy(declared);
  }
  // Before IR 4 initializers are inputs too; later such an input can be given instead of its default.
  for (const name of shard.initializers) {
    const declared = graph.defaultedInputs.get(name);
    if (declared !== undefined) copy(declared);
  }
  for (const name of shard.outputs) {
    const declared = outputsByName.get(name);
    if (declared === undefined) writeBoundary(writer, graphField.output, name, types.get(name));
    else copy(declared);
  }
  const outer = new Set([...shard.inputs, ...shard.outputs]);
  const inner = new Set<string>();
  for (const { defines } of shard.nodes) for (const name of defines) if (!outer.has(name)) inner.add(name);
  const notes = new Map<number, ValueView>(place.values.map((value) => [value.start, value]));
  const reader = new WireReader(source, place.bodyStart, place.end);
  while (reader.next()) {
    const { field, fieldStart } = reader;
    if (field === graphField.quantization) {
      const about = firstText(reader.message());
      if (!inner.has(about) && !outer.has(about) && !held.has(about)) continue;
    } else reader.skip();
    if (isListed(field)) continue;
    if (field === graphField.value && !inner.has(notes.get(fieldStart)?.name ?? '')) continue;
    writer.raw(source.subarray(fieldStart, reader.position));
  }
  return writer;
}

/** Fields of the graph that the shard has its own list of. */
function isListed(field: number): boolean {
  return (
    field === graphField.node ||
    field === graphField.initializer ||
    field === graphField.sparseInitializer ||
    field === graphField.input ||
    field === graphField.output
  );
}

function firstText(reader: WireReader): string {
  while (reader.next()) {
    if (reader.field === 1) return reader.string();
    reader.skip();
  }
  return '';
}

function writeBoundary(writer: WireWriter, field: number, name: string, type: ValueType | undefined): void {
  if (type?.kind !== 'tensor') {
    throw intarsiaError(
      'MODEL_INVALID',
      `value ${JSON.stringify(name.slice(0, 120))} crosses without a known tensor type`,
      {
        value: name.slice(0, 120),
      },
    );
  }
  writer.message(field, (value) =>
    value.string(1, name).message(2, (wrapped) =>
      wrapped.message(1, (tensor) => {
        tensor.uint(1, type.dataType);
        const { shape } = type;
        if (shape !== undefined) tensor.message(2, (sizes) => writeRank(sizes, shape));
      }),
    ),
  );
}

/** Dimensions without their sizes; those with a name keep it, names hold in the whole model. */
function writeRank(writer: WireWriter, shape: readonly Dimension[]): void {
  for (const { size, symbol } of shape) {
    writer.message(1, (dimension) => {
      if (size < 0 && symbol !== '') dimension.string(2, symbol);
    });
  }
}

/** Model-local functions that the shard's nodes call, and what those call. */
function calledFunctions(graph: SplitGraph, shard: ShardDraft): readonly Encoded[] {
  if (graph.functions.size === 0) return [];
  const found = new Map<string, Encoded & { readonly nodes: readonly NodeView[] }>();
  const stack: NodeView[] = shard.nodes.map(({ view }) => view);
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    for (const called of [node, ...nodesInside(node)]) {
      const key = functionKey({ domain: called.domain, name: called.opType, overload: called.overload });
      const definition = graph.functions.get(key);
      if (definition === undefined || found.has(key)) continue;
      found.set(key, definition);
      stack.push(...definition.nodes);
    }
  }
  return [...found.values()];
}

/** Every tensor of the shard: initializers, and tensors in attributes and subgraphs. */
function* heldTensors(graph: SplitGraph, shard: ShardDraft): Generator<TensorView> {
  for (const name of shard.initializers) {
    const tensor = graph.initializers.get(name);
    if (tensor === undefined) continue;
    if ('values' in tensor) yield* [tensor.values, tensor.indices];
    else yield tensor;
  }
  for (const { view } of shard.nodes) {
    for (const node of [view, ...nodesInside(view)]) {
      for (const { tensors, sparseTensors, graphs } of node.attributes) {
        yield* tensors;
        for (const { values, indices } of sparseTensors) yield* [values, indices];
        for (const { initializers, sparseInitializers } of graphs) {
          yield* initializers;
          for (const { values, indices } of sparseInitializers) yield* [values, indices];
        }
      }
    }
  }
}
