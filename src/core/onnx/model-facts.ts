/**
 * What serving needs to know about a model before it is loaded, and what forbids loading it: inputs, outputs, weights,
 * external files, operators.
 *
 * Some models take a process down rather than fail (an int4 output aborts Node): they are refused here, before any engine
 * sees them. Whether the operators exist is the engine's business.
 */
import { datatypeOfOnnx, type Datatype } from '../datatype.js';
import { intarsiaError } from '../errors.js';
import { formatBytes } from '../units.js';
import { onnxDataTypeName } from './data-type.js';
import { readModel } from './model-reader.js';
import type { Dimension, GraphView, ModelView, NodeView, TensorView, ValueView } from './model-view.js';

/** One input or output of a model. */
export interface ValueFacts {
  readonly name: string;
  /** Undefined for an output whose type the file leaves to the engine. */
  readonly datatype?: Datatype;
  /** Undefined: the rank is unknown. */
  readonly shape?: readonly Dimension[];
}

/** A tensor whose data lies in another file. */
export interface ExternalTensor {
  readonly tensor: string;
  /** Relative to the folder of the model file, without `..`, parts joined by `/`. */
  readonly location: string;
  readonly offset: number;
  readonly length: number;
}

export interface ModelFacts {
  readonly irVersion: number;
  /** Tool that wrote the file, and its version; may be empty. */
  readonly producer: string;
  /** Versions of the operator sets by domain; '' is ONNX's own. */
  readonly opsets: ReadonlyMap<string, number>;
  /** What a caller must give, in file order; initializers are left out. */
  readonly inputs: readonly ValueFacts[];
  readonly outputs: readonly ValueFacts[];
  /** Inputs that have a default in the file and that callers may give or leave out. */
  readonly defaultedInputs: readonly ValueFacts[];
  /** Bytes of all constant tensors: initializers, attributes, subgraphs and functions; external ones included. */
  readonly weightBytes: number;
  readonly externalTensors: readonly ExternalTensor[];
  /** Nodes by operator, such as `Conv` or `com.microsoft::FusedConv`; subgraphs and functions included. */
  readonly operators: ReadonlyMap<string, number>;
}

/**
 * Reads and judges a model file.
 * @throws MODEL_INVALID when it is not a readable ONNX model, or one that must not be loaded.
 */
export function readModelFacts(bytes: Uint8Array): ModelFacts {
  return modelFacts(readModel(bytes));
}

/** The facts of a model that was read already. @throws MODEL_INVALID when it must not be loaded. */
export function modelFacts(model: ModelView): ModelFacts {
  const { graph } = model;
  const tally = new Tally();
  tally.addGraph(graph);
  for (const definition of model.functions) tally.addNodes(definition.nodes);
  const initialized = new Set<string>();
  for (const tensor of graph.initializers) initialized.add(tensor.name);
  for (const tensor of graph.sparseInitializers) initialized.add(tensor.name);
  const required = graph.inputs.filter((value) => !initialized.has(value.name));
  const defaulted = model.irVersion >= 4 ? graph.inputs.filter((value) => initialized.has(value.name)) : [];
  if (graph.outputs.length === 0) throw intarsiaError('MODEL_INVALID', 'the model has no outputs');
  refuseRepeatedNames('input', graph.inputs);
  refuseRepeatedNames('output', graph.outputs);
  const opsets = new Map<string, number>();
  for (const { domain, version } of model.opsets) opsets.set(domain === 'ai.onnx' ? '' : domain, version);
  if (opsets.size === 0) throw intarsiaError('MODEL_INVALID', 'the model names no operator set (opset_import)');
  return {
    irVersion: model.irVersion,
    producer: `${model.producerName} ${model.producerVersion}`.trim(),
    opsets,
    inputs: required.map((value) => valueFacts('input', value)),
    outputs: graph.outputs.map((value) => valueFacts('output', value)),
    defaultedInputs: defaulted.flatMap((value) => (isServable(value) ? [valueFacts('input', value)] : [])),
    weightBytes: tally.weightBytes,
    externalTensors: tally.externalTensors,
    operators: tally.operators,
  };
}

/**
 * Checks that every external tensor lies inside its file.
 * @param fileBytes Size of each file by location.
 * @throws MODEL_INVALID naming tensor, file, range and size.
 */
export function checkExternalRanges(facts: ModelFacts, fileBytes: ReadonlyMap<string, number>): void {
  for (const { tensor, location, offset, length } of facts.externalTensors) {
    const bytes = fileBytes.get(location);
    if (bytes === undefined) {
      throw intarsiaError(
        'MODEL_INVALID',
        `tensor ${quote(tensor)} has its data in ${quote(location)}, which is missing`,
        {
          tensor,
          location,
        },
      );
    }
    if (offset + length > bytes) {
      throw intarsiaError(
        'MODEL_INVALID',
        `tensor ${quote(tensor)} has its data in ${quote(location)} from byte ${offset} to ${offset + length}; the file has ${bytes} bytes (${formatBytes(bytes)})`,
        { tensor, location, offset, lengthBytes: length, fileBytes: bytes },
      );
    }
  }
}

/** Counts weights, external data and operators of a graph and of all graphs inside it. */
class Tally {
  weightBytes = 0;
  readonly externalTensors: ExternalTensor[] = [];
  readonly operators = new Map<string, number>();

  addGraph(graph: GraphView): void {
    for (const tensor of graph.initializers) this.addTensor(tensor);
    for (const { values, indices } of graph.sparseInitializers) {
      this.addTensor(values);
      this.addTensor(indices);
    }
    this.addNodes(graph.nodes);
  }

  addNodes(nodes: readonly NodeView[]): void {
    for (const { domain, opType, attributes } of nodes) {
      const operator = domain === '' || domain === 'ai.onnx' ? opType : `${domain}::${opType}`;
      this.operators.set(operator, (this.operators.get(operator) ?? 0) + 1);
      for (const attribute of attributes) {
        for (const tensor of attribute.tensors) this.addTensor(tensor);
        for (const { values, indices } of attribute.sparseTensors) {
          this.addTensor(values);
          this.addTensor(indices);
        }
        for (const graph of attribute.graphs) this.addGraph(graph);
      }
    }
  }

  addTensor({ name, dataBytes, external }: TensorView): void {
    this.weightBytes += dataBytes;
    if (external === undefined) return;
    const { location, offset } = external;
    this.externalTensors.push({ tensor: name, location, offset, length: dataBytes });
  }
}

/** Why the engines cannot take a value of this kind. */
const kindProblem = {
  'sparse-tensor': 'a sparse tensor',
  sequence: 'a sequence',
  map: 'a map',
  optional: 'an optional value',
  opaque: 'an opaque value',
} as const;

function isServable({ type }: ValueView): boolean {
  return type?.kind === 'tensor' && datatypeOfOnnx.has(type.dataType);
}

function valueFacts(direction: 'input' | 'output', { name, type }: ValueView): ValueFacts {
  if (name === '') throw intarsiaError('MODEL_INVALID', `an ${direction} of the model has no name`);
  if (type === undefined || (type.kind === 'tensor' && type.dataType === 0)) {
    // An engine infers the type of an output from the nodes; what an input takes only the file can say.
    if (direction === 'output') return { name, ...(type?.kind === 'tensor' ? shapeOf(type.shape) : {}) };
    throw intarsiaError('MODEL_INVALID', `input ${quote(name)} of the model has no type`, { input: name });
  }
  if (type.kind !== 'tensor') {
    throw intarsiaError(
      'MODEL_INVALID',
      `${direction} ${quote(name)} of the model is ${kindProblem[type.kind]}; only dense tensors can be served`,
      { [direction]: name },
    );
  }
  const datatype = datatypeOfOnnx.get(type.dataType);
  if (datatype === undefined) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${direction} ${quote(name)} of the model has the element type ${onnxDataTypeName(type.dataType)}, which cannot be served`,
      { [direction]: name, dataType: onnxDataTypeName(type.dataType) },
    );
  }
  return { name, datatype, ...shapeOf(type.shape) };
}

function shapeOf(shape: readonly Dimension[] | undefined): { readonly shape?: readonly Dimension[] } {
  return shape === undefined ? {} : { shape };
}

function refuseRepeatedNames(direction: string, values: readonly ValueView[]): void {
  const seen = new Set<string>();
  for (const { name } of values) {
    if (seen.has(name)) {
      throw intarsiaError('MODEL_INVALID', `the model has two ${direction}s named ${quote(name)}`, { name });
    }
    seen.add(name);
  }
}

/** A name from a file as messages show it: quoted, and cut when somebody made it long. */
function quote(name: string): string {
  return JSON.stringify(name.length > 120 ? `${name.slice(0, 120)}…` : name);
}
