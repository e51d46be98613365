/**
 * A model in half precision: weights and values of single precision become halves, inputs and outputs stay what they are.
 *
 * Each node either computes in halves or, when its operator is listed, belongs to another domain, has a body or is a
 * function of the model, in single precision as before; where the two meet a Cast stands. A value in single precision
 * keeps its name, so that bodies of If and Loop find what they capture; its half has a name of its own.
 */
import { intarsiaError } from '../errors.js';
import { int } from '../onnx/attribute.js';
import { onnxDataType } from '../onnx/data-type.js';
import type { ValueTypes } from '../split/boundary-type.js';
import { functionKey, type SplitGraph, type SplitNode } from '../split/graph.js';
import { freshEnding, GraphEdit, weightsOf, type EncodedVariant, type SideFiles, type Weight } from './graph-edit.js';
import { toHalves } from './weight-forms.js';

/**
 * Operators that stay in single precision: no half form in ONNX or in its common engines, a type in their attributes, or
 * sums and ranges that halves cannot hold.
 */
export const singleOperators: ReadonlySet<string> = new Set(
  `Bernoulli BlackmanWindow CastLike Constant ConstantOfShape CumSum DequantizeLinear DFT DynamicQuantizeLinear EyeLike
   HammingWindow HannWindow IsInf Max MeanVarianceNormalization MelWeightMatrix Min Multinomial NonMaxSuppression
   QLinearConv QLinearMatMul QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Resize
   RoiAlign STFT TopK Upsample`.split(/\s+/),
);

/** Operators that take whatever type there is and make none of it. */
const indifferentOperators: ReadonlySet<string> = new Set(['Cast', 'Shape', 'Size']);

/** Before this operator set a Cast names its type as a text. */
const opsetMin = 7;

export interface HalfOptions {
  /** Further operators that stay in single precision. */
  readonly keep: ReadonlySet<string>;
  readonly sideFiles: SideFiles;
}

export interface HalfVariant extends EncodedVariant {
  /** Nodes that compute in halves. */
  readonly nodes: number;
  /** Tensors that became halves. */
  readonly weights: number;
  /** Weights beyond ±65,504 that were set to it. */
  readonly clamped: number;
  /** Weights other than zero that became zero. */
  readonly vanished: number;
}

type Mode = 'half' | 'single' | 'indifferent';

/** @throws FAILED_PRECONDITION with the reason when there is nothing to convert. */
export function halfVariant(graph: SplitGraph, types: ValueTypes, options: HalfOptions): HalfVariant {
  const opset = opsetOf(graph);
  if (opset < opsetMin) {
    throw intarsiaError('FAILED_PRECONDITION', `operator set ${opset} is too old for halves: ${opsetMin} is needed`);
  }
  return new Conversion(graph, types, options).run();
}

/** Version of ONNX's own operators. */
export function opsetOf({ model }: SplitGraph): number {
  return model.opsets.find(({ domain }) => domain === '' || domain === 'ai.onnx')?.version ?? 0;
}

class Conversion {
  readonly #graph: SplitGraph;
  readonly #types: ValueTypes;
  readonly #options: HalfOptions;
  readonly #edit: GraphEdit;
  readonly #ending: string;
  readonly #weights: ReadonlyMap<string, Weight>;
  readonly #modes: readonly Mode[];
  /** Names for which each form is there. */
  readonly #single = new Set<string>();
  readonly #half = new Set<string>();
  #converted = 0;
  #clamped = 0;
  #vanished = 0;

  constructor(graph: SplitGraph, types: ValueTypes, options: HalfOptions) {
    this.#graph = graph;
    this.#types = types;
    this.#options = options;
    this.#edit = new GraphEdit(graph.model, options.sideFiles);
    this.#ending = freshEnding(graph, '.half');
    this.#weights = weightsOf(graph);
    this.#modes = graph.nodes.map((node) => this.#modeOf(node));
  }

  run(): HalfVariant {
    const nodes = this.#modes.filter((mode) => mode === 'half').length;
    if (nodes === 0) throw nothingToConvert(this.#graph, this.#types);
    this.#placeWeights();
    for (const view of this.#graph.model.graph.nodes) this.#edit.drop(view);
    for (const node of this.#graph.nodes) this.#place(node);
    for (const { name } of this.#graph.outputs) if (this.#isSingle(name)) this.#need(name, 'single');
    // What the file says of values that are no longer there in single precision.
    for (const value of this.#graph.model.graph.values) {
      if (this.#half.has(value.name) && !this.#single.has(value.name)) this.#edit.drop(value);
    }
    const encoded = this.#edit.encode();
    return { ...encoded, nodes, weights: this.#converted, clamped: this.#clamped, vanished: this.#vanished };
  }

  #modeOf({ operator, view, uses }: SplitNode): Mode {
    const { domain, opType, overload, inputs, outputs } = view;
    if (indifferentOperators.has(operator)) return 'indifferent';
    const isOwn = this.#graph.functions.has(functionKey({ domain, name: opType, overload }));
    if (isOwn || (domain !== '' && domain !== 'ai.onnx')) return 'single';
    if (singleOperators.has(operator) || this.#options.keep.has(operator)) return 'single';
    if (view.attributes.some(({ graphs }) => graphs.length > 0)) return 'single';
    const names = [...uses, ...outputs].filter((name) => name !== '');
    const isKnown = names.every((name) => this.#types.get(name)?.kind === 'tensor');
    return isKnown && [...inputs, ...outputs].some((name) => this.#isSingle(name)) ? 'half' : 'single';
  }

  /** Weights in the forms that nodes want. */
  #placeWeights(): void {
    const { nodes, outputs, initializers } = this.#graph;
    const asHalf = new Set<string>();
    const asSingle = new Set(outputs.map(({ name }) => name));
    for (const { index, uses } of nodes) {
      const mode = this.#modes[index];
      for (const name of uses) if (mode !== 'indifferent') (mode === 'half' ? asHalf : asSingle).add(name);
    }
    for (const name of [...initializers.keys(), ...this.#graph.inputs.map((value) => value.name)]) {
      this.#single.add(name);
    }
    for (const [name, { view, isInitializer }] of this.#weights) {
      if (!this.#isSingle(name) || !asHalf.has(name)) continue;
      const { shape, data } = this.#edit.read(view);
      const halves = toHalves(data);
      this.#clamped += halves.clamped;
      this.#vanished += halves.vanished;
      this.#converted += 1;
      this.#edit.appendTensor({
        name: this.#halfName(name),
        dataType: onnxDataType.FLOAT16,
        shape,
        data: halves.data,
      });
      this.#half.add(name);
      if (asSingle.has(name)) continue;
      this.#single.delete(name);
      if (!isInitializer) continue;
      this.#edit.drop(view);
      const declared = this.#graph.defaultedInputs.get(name);
      if (declared !== undefined) this.#edit.drop(declared);
    }
  }

  #place(node: SplitNode): void {
    const { view, uses, defines } = node;
    const mode = this.#modes[node.index];
    if (mode === 'half') {
      for (const name of uses) if (this.#isSingle(name)) this.#need(name, 'half');
      const half = (name: string): string => (this.#isSingle(name) ? this.#halfName(name) : name);
      this.#edit.appendRenamed(view, view.inputs.map(half), view.outputs.map(half));
      for (const name of defines) if (this.#isSingle(name)) this.#half.add(name);
      return;
    }
    if (mode === 'indifferent') {
      const there = (name: string): string => {
        return this.#half.has(name) && !this.#single.has(name) ? this.#halfName(name) : name;
      };
      this.#edit.appendRenamed(view, view.inputs.map(there), view.outputs);
    } else {
      const [made] = defines;
      // A Constant that only halves use has become a tensor already.
      if (made !== undefined && this.#weights.has(made) && this.#half.has(made) && !this.#wantsSingle(made)) return;
      for (const name of uses) if (this.#isSingle(name)) this.#need(name, 'single');
      this.#edit.appendOriginal(view);
    }
    for (const name of defines) this.#single.add(name);
  }

  #wantsSingle(name: string): boolean {
    const users = this.#graph.users.get(name) ?? [];
    return (
      this.#graph.outputs.some((output) => output.name === name) || users.some((user) => this.#modes[user] === 'single')
    );
  }

  /** Brings a value into a form in which it is not there yet. */
  #need(name: string, form: 'half' | 'single'): void {
    const there = form === 'half' ? this.#half : this.#single;
    if (there.has(name)) return;
    there.add(name);
    const half = this.#halfName(name);
    const [input, output, to] = form === 'half' ? [name, half, onnxDataType.FLOAT16] : [half, name, onnxDataType.FLOAT];
    this.#edit.appendNode({
      opType: 'Cast',
      inputs: [input],
      outputs: [output],
      name: `${output}.cast`,
      attributes: { to: int(to) },
    });
  }

  #halfName(name: string): string {
    return `${name}${this.#ending}`;
  }

  #isSingle(name: string): boolean {
    const type = this.#types.get(name);
    return type?.kind === 'tensor' && type.dataType === onnxDataType.FLOAT;
  }
}

function nothingToConvert(graph: SplitGraph, types: ValueTypes): Error {
  const all = [...types.values()];
  const has = (dataType: number): boolean => all.some((type) => type.kind === 'tensor' && type.dataType === dataType);
  const why = has(onnxDataType.FLOAT16)
    ? 'it computes in halves already'
    : has(onnxDataType.FLOAT)
      ? 'all of its operators on single precision have to stay there'
      : 'it has no values in single precision';
  return intarsiaError('FAILED_PRECONDITION', `nothing to put into halves: ${why}`, { nodes: graph.nodes.length });
}
