/**
 * A model with weights of eight bits, symmetric, a scale for each output channel. Two forms:
 *
 * - `dynamic`: MatMul and Gemm multiply whole numbers; what comes in is put into eight bits as it comes
 *   (DynamicQuantizeLinear, MatMulInteger). Weights keep to ±63 there: processors without VNNI instructions add two
 *   products in 16 bits, and ±127 would overflow, so that answers would depend on the processor. Conv keeps its
 *   arithmetic and gets its weights from a DequantizeLinear: engines lack ConvInteger for signed weights.
 * - `weights`: every weight comes from a DequantizeLinear, ±127; arithmetic stays in single precision.
 */
import { intarsiaError } from '../errors.js';
import { int } from '../onnx/attribute.js';
import { onnxTensor } from '../onnx/builder.js';
import { onnxDataType } from '../onnx/data-type.js';
import type { NodeView } from '../onnx/model-view.js';
import type { ValueTypes } from '../split/boundary-type.js';
import type { SplitGraph, SplitNode } from '../split/graph.js';
import { WireReader } from '../wire.js';
import { freshEnding, GraphEdit, weightsOf, type EncodedVariant, type SideFiles, type Weight } from './graph-edit.js';
import { opsetOf } from './half-variant.js';
import { toChannelBytes, transposed } from './weight-forms.js';

export type Int8Form = 'dynamic' | 'weights';

export interface Int8Options {
  readonly form: Int8Form;
  readonly sideFiles: SideFiles;
}

export interface Int8Variant extends EncodedVariant {
  /** Nodes that multiply whole numbers. */
  readonly integerNodes: number;
  /** Nodes that keep their arithmetic and have weights of eight bits. */
  readonly weightOnlyNodes: number;
}

/** Smaller weights are not worth the nodes that unpack them. Elements. */
const elementsMin = 64;
/** First operator set whose DequantizeLinear knows channels. */
const opsetMin = 13;
const dynamicLargest = 63;
const weightsLargest = 127;

/** @throws FAILED_PRECONDITION with the reason when there is nothing to convert, or weights are not finite. */
export function int8Variant(graph: SplitGraph, types: ValueTypes, options: Int8Options): Int8Variant {
  const opset = opsetOf(graph);
  const conversion = new Conversion(graph, types, options);
  if (conversion.found > 0 && opset < opsetMin) {
    throw intarsiaError(
      'FAILED_PRECONDITION',
      `operator set ${opset} has no eight-bit weights by channel: ${opsetMin} is needed`,
      { opset, opsetMin },
    );
  }
  return conversion.run();
}

interface Candidate {
  readonly operator: 'MatMul' | 'Gemm' | 'Conv';
  readonly weight: Weight;
  /** Dimension of the output channels. */
  readonly axis: number;
  /** Whether the weight has outputs in front, inputs behind. */
  readonly isTurned: boolean;
  readonly isInteger: boolean;
}

class Conversion {
  readonly #graph: SplitGraph;
  readonly #types: ValueTypes;
  readonly #edit: GraphEdit;
  readonly #ending: string;
  readonly #candidates = new Map<number, Candidate>();
  readonly #made = new Set<string>();

  constructor(graph: SplitGraph, types: ValueTypes, { form, sideFiles }: Int8Options) {
    this.#graph = graph;
    this.#types = types;
    this.#edit = new GraphEdit(graph.model, sideFiles);
    this.#ending = freshEnding(graph, '.int8');
    const weights = weightsOf(graph);
    for (const node of graph.nodes) {
      const candidate = this.#candidateOf(node, weights, form);
      if (candidate !== undefined) this.#candidates.set(node.index, candidate);
    }
  }

  get found(): number {
    return this.#candidates.size;
  }

  run(): Int8Variant {
    const { nodes, model } = this.#graph;
    if (this.found === 0) throw nothingToConvert(this.#graph);
    this.#dropWeights();
    for (const view of model.graph.nodes) this.#edit.drop(view);
    for (const node of nodes) {
      const candidate = this.#candidates.get(node.index);
      if (candidate === undefined) {
        if (!this.#isSpare(node)) this.#edit.appendOriginal(node.view);
      } else if (candidate.isInteger) this.#multiplyIntegers(node.view, candidate);
      else this.#unpackWeight(node.view, candidate);
    }
    const integerNodes = [...this.#candidates.values()].filter(({ isInteger }) => isInteger).length;
    return { ...this.#edit.encode(), integerNodes, weightOnlyNodes: this.found - integerNodes };
  }

  #candidateOf(
    { operator, view }: SplitNode,
    weights: ReadonlyMap<string, Weight>,
    form: Int8Form,
  ): Candidate | undefined {
    if (operator !== 'MatMul' && operator !== 'Gemm' && operator !== 'Conv') return undefined;
    const [input = '', name = ''] = view.inputs;
    const weight = weights.get(name);
    if (weight === undefined || weight.view.dataType !== onnxDataType.FLOAT || !this.#isSingle(input)) return undefined;
    const { dims } = weight.view;
    const elements = dims.reduce((count, size) => count * size, 1);
    if (elements < elementsMin || (operator === 'Conv' ? dims.length < 3 : dims.length !== 2)) return undefined;
    if (operator === 'Conv') return { operator, weight, axis: 0, isTurned: true, isInteger: false };
    const number = (attribute: string, missing: number): number => this.#attribute(view, attribute) ?? missing;
    const isTurned = number('transB', 0) !== 0;
    const isPlain = number('transA', 0) === 0 && number('alpha', 1) === 1 && number('beta', 1) === 1;
    const isInteger = form === 'dynamic' && (operator === 'MatMul' || isPlain);
    return { operator, weight, axis: isTurned ? 0 : 1, isTurned, isInteger };
  }

  /** A number among a node's attributes: `f` or `i`, whichever the file has. */
  #attribute(view: NodeView, name: string): number | undefined {
    const found = view.attributes.find((attribute) => attribute.name === name);
    if (found === undefined) return undefined;
    const reader = new WireReader(this.#graph.model.bytes, found.bodyStart, found.end);
    let value: number | undefined;
    while (reader.next()) {
      if (reader.field === 2) value = reader.float();
      else if (reader.field === 3) value = reader.int53();
      else reader.skip();
    }
    return value ?? 0;
  }

  /** Whether everything that used the value now has it in eight bits. */
  #isUnused(name: string): boolean {
    if (this.#graph.outputs.some((output) => output.name === name)) return false;
    return (this.#graph.users.get(name) ?? []).every((user) => {
      const candidate = this.#candidates.get(user);
      const inputs = this.#graph.nodes[user]?.view.inputs ?? [];
      return candidate !== undefined && inputs[1] === name && inputs.filter((input) => input === name).length === 1;
    });
  }

  #dropWeights(): void {
    for (const { weight } of this.#candidates.values()) {
      const { view, isInitializer } = weight;
      if (!isInitializer || !this.#isUnused(view.name)) continue;
      this.#edit.drop(view);
      const declared = this.#graph.defaultedInputs.get(view.name);
      if (declared !== undefined) this.#edit.drop(declared);
    }
  }

  /** A Constant whose users all have it in eight bits. */
  #isSpare({ operator, defines }: SplitNode): boolean {
    const [name] = defines;
    const users = name === undefined ? [] : (this.#graph.users.get(name) ?? []);
    return operator === 'Constant' && name !== undefined && users.length > 0 && this.#isUnused(name);
  }

  #multiplyIntegers(view: NodeView, { weight, isTurned, operator }: Candidate): void {
    const [input = '', name = '', bias = ''] = view.inputs;
    const [output = ''] = view.outputs;
    const matrix = this.#bytes(name, weight, { isTurned, axis: 1, largest: dynamicLargest });
    const packed = `${input}${this.#ending}`;
    if (!this.#made.has(packed)) {
      this.#made.add(packed);
      this.#node('DynamicQuantizeLinear', [input], [packed, `${packed}.scale`, `${packed}.zero`]);
    }
    const at = `${output}${this.#ending}`;
    this.#node('MatMulInteger', [packed, matrix, `${packed}.zero`], [`${at}.sums`]);
    this.#edit.appendNode({
      opType: 'Cast',
      inputs: [`${at}.sums`],
      outputs: [`${at}.floats`],
      name: `${at}.floats`,
      attributes: { to: int(onnxDataType.FLOAT) },
    });
    this.#node('Mul', [`${packed}.scale`, `${matrix}.scale`], [`${at}.scale`]);
    const hasBias = operator === 'Gemm' && bias !== '';
    this.#node('Mul', [`${at}.floats`, `${at}.scale`], [hasBias ? `${at}.product` : output]);
    if (hasBias) this.#node('Add', [`${at}.product`, bias], [output]);
  }

  #unpackWeight(view: NodeView, { weight, axis }: Candidate): void {
    const [, name = ''] = view.inputs;
    const packed = this.#bytes(name, weight, { isTurned: false, axis, largest: weightsLargest });
    const unpacked = `${packed}.floats`;
    if (!this.#made.has(unpacked)) {
      this.#made.add(unpacked);
      this.#edit.appendNode({
        opType: 'DequantizeLinear',
        inputs: [packed, `${packed}.scale`, `${packed}.zero`],
        outputs: [unpacked],
        name: unpacked,
        attributes: { axis: int(axis) },
      });
    }
    const inputs = view.inputs.map((input, place) => (place === 1 ? unpacked : input));
    this.#edit.appendRenamed(view, inputs, view.outputs);
  }

  /** Puts the weight's bytes and scales into the model once; their name. */
  #bytes(
    name: string,
    { view }: Weight,
    { isTurned, axis, largest }: { readonly isTurned: boolean; readonly axis: number; readonly largest: number },
  ): string {
    const packed = `${name}${this.#ending}.${isTurned ? 'turned.' : ''}${axis}.${largest}`;
    if (this.#made.has(packed)) return packed;
    this.#made.add(packed);
    const { shape, data } = this.#edit.read(view);
    const [rows = 0, columns = 0] = shape;
    const turned = isTurned ? [columns, rows] : shape;
    const values = isTurned ? transposed(data, rows, columns) : data;
    const bytes = toChannelBytes(values, { shape: turned, axis, largest });
    const channels = bytes.scales.length;
    this.#edit.appendTensor(onnxTensor(packed, turned, bytes.data));
    this.#edit.appendTensor(onnxTensor(`${packed}.scale`, [channels], bytes.scales));
    if (largest === weightsLargest) {
      this.#edit.appendTensor(onnxTensor(`${packed}.zero`, [channels], new Int8Array(channels)));
    }
    return packed;
  }

  #node(opType: string, inputs: readonly string[], outputs: readonly string[]): void {
    this.#edit.appendNode({ opType, inputs, outputs, name: outputs[0] ?? opType });
  }

  #isSingle(name: string): boolean {
    const type = this.#types.get(name);
    return type?.kind === 'tensor' && type.dataType === onnxDataType.FLOAT;
  }
}

function nothingToConvert(graph: SplitGraph): Error {
  const isQuantized = graph.nodes.some(({ operator }) => /Quantize|QLinear|Integer$|QGemm|QAttention/.test(operator));
  return intarsiaError(
    'FAILED_PRECONDITION',
    `nothing to put into eight bits: ${isQuantized ? 'the model is quantised already and ' : ''}no MatMul, Gemm or Conv has constant weights of at least ${elementsMin} elements in single precision`,
    { nodes: graph.nodes.length },
  );
}
