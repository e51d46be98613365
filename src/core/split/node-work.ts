/**
 * How much work each node of a graph is: operations, bytes of activations read and written, bytes of weights, and what is
 * alive in memory while it runs. From shapes alone; what a device makes of it is the planner's tables' business.
 *
 * A multiplication with its addition counts as two operations. What bodies of If, Loop and Scan do is not counted, and nodes
 * with such bodies are marked: how often they run no file says.
 */
import { datatypeBytes, datatypeOfOnnx } from '../datatype.js';
import type { NodeView } from '../onnx/model-view.js';
import type { ValueTypes } from './boundary-type.js';
import { nodesInside, type SplitGraph, type SplitNode } from './graph.js';

export interface NodeWork {
  /** Of one run of as many items as the shapes are of. */
  readonly flops: number;
  /** Activations read and written. */
  readonly activationBytes: number;
  /** Alive while it runs: its inputs and outputs, and what later nodes wait for. */
  readonly liveBytes: number;
  /** Whether it runs bodies whose repetitions are not known. */
  readonly isRepeating: boolean;
}

/** Sizes of values as they were in a run, by name. */
export type ValueShapes = ReadonlyMap<string, readonly number[]>;

/** Operations for each element of the output, where it is not one. */
const operationsPerElement: Readonly<Record<string, number>> = {
  BatchNormalization: 2,
  Erf: 10,
  Exp: 8,
  Gelu: 12,
  GroupNormalization: 6,
  HardSwish: 4,
  InstanceNormalization: 6,
  LayerNormalization: 6,
  Log: 8,
  LogSoftmax: 10,
  LRN: 10,
  Pow: 8,
  Sigmoid: 8,
  Softmax: 10,
  Tanh: 10,
};
/** Operators that move or rename and compute nothing. */
const moving: ReadonlySet<string> = new Set(
  `Cast Concat Constant ConstantOfShape DepthToSpace Expand Flatten Gather GatherElements GatherND Identity Pad Reshape Shape
   Size Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze`.split(/\s+/),
);
/** Of them those that only give the same bytes another name. */
const renaming: ReadonlySet<string> = new Set(
  'Constant Flatten Identity Reshape Shape Size Squeeze Unsqueeze'.split(' '),
);

/** The work of every node, by index. Values whose size is not known count as nothing. */
export function nodeWork(graph: SplitGraph, types: ValueTypes, shapes: ValueShapes): readonly NodeWork[] {
  const sizes = new Sizes(graph, types, shapes);
  const { nodes, users, producers, outputs } = graph;
  const kept = new Set(outputs.map(({ name }) => name));
  // Bytes that begin and cease to be needed behind each node.
  const ended = new Float64Array(nodes.length + 1);
  const end = (name: string, made: number, bytes: number): void => {
    const last = kept.has(name) ? nodes.length : (users.get(name)?.at(-1) ?? made);
    ended[last] = (ended[last] as number) + bytes;
  };
  let live = 0;
  for (const { name } of graph.inputs) {
    const bytes = sizes.bytes(name);
    live += bytes;
    end(name, 0, bytes);
  }
  return nodes.map((node): NodeWork => {
    const read = node.uses.filter((name) => producers.has(name) || !graph.initializers.has(name));
    const isRenaming = renaming.has(node.operator);
    let made = 0;
    for (const name of node.defines) {
      const bytes = isRenaming ? 0 : sizes.bytes(name);
      made += bytes;
      end(name, node.index, bytes);
    }
    live += made;
    const liveBytes = live;
    live -= ended[node.index] as number;
    const isRepeating = node.view.attributes.some(({ graphs }) => graphs.length > 0);
    return {
      flops: flopsOf(node, sizes),
      activationBytes: isRenaming ? 0 : made + read.reduce((sum, name) => sum + sizes.bytes(name), 0),
      liveBytes,
      isRepeating,
    };
  });
}

/** Bytes of the initializers that each node holds, and of tensors in its attributes: [name, bytes], by node. */
export function nodeWeights(graph: SplitGraph): readonly (readonly (readonly [string, number])[])[] {
  return graph.nodes.map((node) => {
    const held: [string, number][] = [];
    for (const name of node.uses) {
      const tensor = graph.initializers.get(name);
      if (tensor === undefined) continue;
      held.push([name, 'values' in tensor ? tensor.values.dataBytes + tensor.indices.dataBytes : tensor.dataBytes]);
    }
    const inner = attributeBytes(node.view);
    if (inner > 0) held.push([`node ${node.index}`, inner]);
    return held;
  });
}

function attributeBytes(node: NodeView): number {
  let bytes = 0;
  for (const view of [node, ...nodesInside(node)]) {
    for (const { tensors } of view.attributes) for (const { dataBytes } of tensors) bytes += dataBytes;
  }
  for (const { graphs } of node.attributes) {
    for (const { initializers } of graphs) for (const { dataBytes } of initializers) bytes += dataBytes;
  }
  return bytes;
}

class Sizes {
  readonly #graph: SplitGraph;
  readonly #types: ValueTypes;
  readonly #shapes: ValueShapes;

  constructor(graph: SplitGraph, types: ValueTypes, shapes: ValueShapes) {
    this.#graph = graph;
    this.#types = types;
    this.#shapes = shapes;
  }

  /** Undefined when it is not known. */
  shape(name: string): readonly number[] | undefined {
    const known = this.#shapes.get(name);
    if (known !== undefined) return known;
    const tensor = this.#graph.initializers.get(name);
    if (tensor !== undefined && !('values' in tensor)) return tensor.dims;
    const type = this.#types.get(name);
    if (type?.kind !== 'tensor' || type.shape === undefined) return undefined;
    const sizes = type.shape.map(({ size }) => size);
    // A size that varies is most often the batch, which is one here.
    return sizes.map((size) => (size < 0 ? 1 : size));
  }

  elements(name: string | undefined): number {
    if (name === undefined || name === '') return 0;
    return (this.shape(name) ?? [0]).reduce((product, size) => product * size, 1);
  }

  bytes(name: string): number {
    const type = this.#types.get(name);
    const datatype = type?.kind === 'tensor' ? datatypeOfOnnx.get(type.dataType) : undefined;
    return this.elements(name) * (datatype === undefined ? 4 : Math.max(1, datatypeBytes(datatype)));
  }

  /** The first input that is a constant of at least two dimensions: weights. */
  weights(node: SplitNode): string | undefined {
    return node.view.inputs.find((name) => this.#isConstant(name) && (this.shape(name)?.length ?? 0) >= 2);
  }

  #isConstant(name: string): boolean {
    if (this.#graph.initializers.has(name)) return true;
    const producer = this.#graph.nodes[this.#graph.producers.get(name) ?? -1];
    if (producer === undefined) return false;
    return (
      producer.operator === 'Constant' ||
      (/QuantizeLinear$/.test(producer.operator) && this.#isConstant(producer.view.inputs[0] ?? ''))
    );
  }
}

function flopsOf(node: SplitNode, sizes: Sizes): number {
  const { operator, view } = node;
  const name = operator.slice(operator.lastIndexOf(':') + 1);
  const out = sizes.elements(view.outputs[0]);
  if (moving.has(name)) return 0;
  if (/ConvTranspose/.test(name)) {
    const weights = sizes.shape(sizes.weights(node) ?? view.inputs[1] ?? '') ?? [];
    return 2 * sizes.elements(view.inputs[0]) * product(weights.slice(1));
  }
  if (/Conv/.test(name)) {
    const weights = sizes.shape(sizes.weights(node) ?? view.inputs[1] ?? '') ?? [];
    return 2 * out * product(weights.slice(1));
  }
  if (/MatMul|Gemm/.test(name)) {
    const left = sizes.elements(view.inputs[0]);
    const weights = sizes.weights(node);
    const columns = sizes.shape(view.outputs[0] ?? '')?.at(-1) ?? 1;
    // Rows × columns × depth: the depth is what the weights have beside columns, or the last size of the left side.
    const depth =
      weights === undefined
        ? (sizes.shape(view.inputs[0] ?? '')?.at(-1) ?? 1)
        : sizes.elements(weights) / Math.max(1, columns);
    return 2 * Math.max(out * depth, left);
  }
  if (/^(LSTM|GRU|RNN)$/.test(name)) {
    const [steps = 1, batch = 1] = sizes.shape(view.inputs[0] ?? '') ?? [];
    return 2 * steps * batch * (sizes.elements(view.inputs[1]) + sizes.elements(view.inputs[2]));
  }
  if (/Attention/.test(name)) {
    const [, rows = 1, width = 1] = sizes.shape(view.outputs[0] ?? '') ?? [];
    const projections = sizes.elements(sizes.weights(node)) * 2 * (out / Math.max(1, width));
    return projections + 4 * out * rows;
  }
  if (/Pool|^Reduce|^Arg|^TopK|^NonMax/.test(name)) return Math.max(out, sizes.elements(view.inputs[0]));
  return out * (operationsPerElement[name] ?? 1);
}

function product(sizes: readonly number[]): number {
  return sizes.reduce((total, size) => total * size, 1);
}
