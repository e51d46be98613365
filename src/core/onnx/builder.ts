/**
 * Builds ONNX graphs node by node: values are names, each call returns the name of what it made.
 *
 *     const graph = new GraphBuilder('double');
 *     const x = graph.input('x', 'FP32', ['batch', 4]);
 *     graph.output(graph.node('Add', [x, x]), 'FP32', ['batch', 4], 'y');
 *     const bytes = encodeModelBytes(graph.model({ opset: 17 }));
 *
 * Layers (convolution with normalisation and so on) belong to the generators of models, not here.
 */
import type { Datatype } from '../datatype.js';
import { intarsiaError } from '../errors.js';
import { encodeBytesElements, type Shape } from '../tensor.js';
import { onnxDataType, onnxDataTypeOf, type OnnxDataTypeName } from './data-type.js';
import type { Attribute, DimensionDraft, GraphDraft, ModelDraft, NodeDraft, ValueDraft } from './draft.js';
import type { OnnxTensor } from './tensor-proto.js';

/** Values of a tensor; the array's type is the tensor's, strings make a STRING tensor. */
export type TensorValues =
  | Float32Array
  | Float64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array
  | readonly string[];

const encoder = new TextEncoder();

/**
 * A tensor over an array's memory (not copied). `as` names another type with elements of the same size, such as FLOAT16
 * over Uint16Array or BOOL over Uint8Array.
 */
export function onnxTensor(name: string, shape: Shape, values: TensorValues, as?: OnnxDataTypeName): OnnxTensor {
  if (!ArrayBuffer.isView(values)) {
    const data = encodeBytesElements(values.map((value) => encoder.encode(value)));
    return { name, dataType: onnxDataType.STRING, shape, data };
  }
  const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { name, dataType: onnxDataType[as ?? typeOfArray(values)], shape, data };
}

function typeOfArray(values: Exclude<TensorValues, readonly string[]>): OnnxDataTypeName {
  if (values instanceof Float32Array) return 'FLOAT';
  if (values instanceof Float64Array) return 'DOUBLE';
  if (values instanceof Int8Array) return 'INT8';
  if (values instanceof Int16Array) return 'INT16';
  if (values instanceof Int32Array) return 'INT32';
  if (values instanceof BigInt64Array) return 'INT64';
  if (values instanceof Uint8Array) return 'UINT8';
  if (values instanceof Uint16Array) return 'UINT16';
  return values instanceof Uint32Array ? 'UINT32' : 'UINT64';
}

export interface NodeOptions {
  readonly attributes?: Readonly<Record<string, Attribute>>;
  /** Name of the first output; default: the operator and a number. */
  readonly output?: string;
  readonly domain?: string;
}

export class GraphBuilder {
  readonly name: string;
  readonly #inputs: ValueDraft[] = [];
  readonly #outputs: ValueDraft[] = [];
  readonly #initializers: OnnxTensor[] = [];
  readonly #nodes: NodeDraft[] = [];
  readonly #taken = new Set<string>();
  #made = 0;

  constructor(name: string) {
    this.name = name;
  }

  /** An input of the graph. Without a shape its rank is unknown. Returns its name. */
  input(name: string, datatype: Datatype, shape?: readonly DimensionDraft[]): string {
    this.#take(name);
    this.#inputs.push(valueDraft(name, datatype, shape));
    return name;
  }

  /**
   * Makes a value an output. A name other than the value's own adds an Identity node; every other value keeps its name.
   */
  output(value: string, datatype: Datatype, shape?: readonly DimensionDraft[], name: string = value): void {
    if (name !== value) this.node('Identity', [value], { output: name });
    this.#outputs.push(valueDraft(name, datatype, shape));
  }

  /** A constant of the model. Returns its name. */
  constant(name: string, shape: Shape, values: TensorValues, as?: OnnxDataTypeName): string {
    this.#take(name);
    this.#initializers.push(onnxTensor(name, shape, values, as));
    return name;
  }

  /** A node with one output. Returns the output's name. */
  node(opType: string, inputs: readonly string[], options: NodeOptions = {}): string {
    const output = options.output ?? this.#fresh(opType);
    this.nodeWithOutputs(opType, inputs, [output], options);
    return output;
  }

  /** A node whose outputs are named; the empty string leaves one out. */
  nodeWithOutputs(
    opType: string,
    inputs: readonly string[],
    outputs: readonly string[],
    options: Omit<NodeOptions, 'output'> = {},
  ): void {
    for (const output of outputs) if (output !== '') this.#take(output);
    this.#nodes.push({
      opType,
      inputs,
      outputs,
      name: `${opType}_${this.#nodes.length}`,
      ...(options.domain === undefined ? {} : { domain: options.domain }),
      ...(options.attributes === undefined ? {} : { attributes: options.attributes }),
    });
  }

  /** Elements of all constants: the parameter count of a network whose constants are its weights. */
  get constantElements(): number {
    return this.#initializers.reduce((sum, tensor) => sum + tensor.shape.reduce((count, size) => count * size, 1), 0);
  }

  graph(): GraphDraft {
    return {
      name: this.name,
      nodes: this.#nodes,
      inputs: this.#inputs,
      outputs: this.#outputs,
      initializers: this.#initializers,
    };
  }

  model(options: Omit<ModelDraft, 'graph'>): ModelDraft {
    return { ...options, graph: this.graph() };
  }

  #fresh(opType: string): string {
    for (;;) {
      this.#made += 1;
      const name = `${opType.toLowerCase()}_${this.#made}`;
      if (!this.#taken.has(name)) return name;
    }
  }

  #take(name: string): void {
    if (this.#taken.has(name) || name === '') {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `graph '${this.name}' defines the value '${name}' twice or without a name`,
        {
          graph: this.name,
          value: name,
        },
      );
    }
    this.#taken.add(name);
  }
}

function valueDraft(name: string, datatype: Datatype, shape: readonly DimensionDraft[] | undefined): ValueDraft {
  const dataType = onnxDataTypeOf(datatype);
  return shape === undefined ? { name, dataType } : { name, dataType, shape };
}
