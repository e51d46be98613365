/**
 * Reads an ONNX model file: IR versions 3 to 14, packed and unpacked numbers, subgraphs, functions, sparse and external
 * tensors. The normative formats are onnx-ml.proto and IR.md of onnx/onnx.
 *
 * It reads structure and leaves meaning to others: nodes may come in any order, names are not resolved, operators are not
 * known. Every failure is MODEL_INVALID with the reason; nothing in a file can make it crash, loop, or use memory beyond
 * the bounds of read-budget.ts.
 */
import { intarsiaError, IntarsiaError } from '../errors.js';
import { wireType, WireReader } from '../wire.js';
import type {
  AttributeView,
  Encoded,
  FunctionView,
  GraphView,
  ModelView,
  NodeView,
  OpsetView,
  SparseTensorView,
  TensorView,
  ValueView,
} from './model-view.js';
import { ReadBudget } from './read-budget.js';
import { readSparseTensor, readTensor } from './tensor-reader.js';
import { readValue } from './value-reader.js';

const modelField = { irVersion: 1, producerName: 2, producerVersion: 3, graph: 7, opset: 8, functions: 25 } as const;
const graphField = {
  node: 1,
  name: 2,
  initializer: 5,
  input: 11,
  output: 12,
  value: 13,
  sparseInitializer: 15,
} as const;
const nodeField = { input: 1, output: 2, name: 3, opType: 4, attribute: 5, domain: 7, overload: 8 } as const;
const attributeField = {
  name: 1,
  tensor: 5,
  graph: 6,
  tensors: 10,
  graphs: 11,
  type: 20,
  refName: 21,
  sparseTensor: 22,
  sparseTensors: 23,
} as const;
const functionField = { name: 1, input: 4, output: 5, node: 7, opset: 9, domain: 10, overload: 13 } as const;
const opsetField = { domain: 1, version: 2 } as const;

const irVersionMin = 3;
const irVersionMax = 14;

/** Reads a whole model. @throws MODEL_INVALID with the reason. */
export function readModel(bytes: Uint8Array): ModelView {
  try {
    return readModelProto(bytes);
  } catch (thrown) {
    // The wire reader knows messages, not models.
    if (thrown instanceof IntarsiaError && thrown.code === 'INVALID_ARGUMENT') {
      throw intarsiaError('MODEL_INVALID', `not a readable ONNX model: ${thrown.message}`, thrown.details, thrown);
    }
    throw thrown;
  }
}

function readModelProto(bytes: Uint8Array): ModelView {
  const budget = new ReadBudget();
  const reader = new WireReader(bytes);
  let irVersion: number | undefined;
  let producerName = '';
  let producerVersion = '';
  let graph: GraphView | undefined;
  const opsets: OpsetView[] = [];
  const functions: FunctionView[] = [];
  while (reader.next()) {
    switch (reader.field) {
      case modelField.irVersion:
        reader.expect(wireType.varint);
        irVersion = reader.int53();
        break;
      case modelField.producerName:
        producerName = budget.text(reader);
        break;
      case modelField.producerVersion:
        producerVersion = budget.text(reader);
        break;
      case modelField.graph:
        if (graph !== undefined) throw intarsiaError('MODEL_INVALID', 'the model has two graphs');
        graph = budget.message(reader, (inner, place) => readGraph(inner, place, budget));
        break;
      case modelField.opset:
        opsets.push(budget.message(reader, (inner, place) => readOpset(inner, place, budget)));
        break;
      case modelField.functions:
        functions.push(budget.message(reader, (inner, place) => readFunction(inner, place, budget)));
        break;
      default:
        reader.skip();
    }
  }
  if (irVersion === undefined) throw intarsiaError('MODEL_INVALID', 'not an ONNX model: it has no ir_version');
  if (irVersion < irVersionMin || irVersion > irVersionMax) {
    throw intarsiaError(
      'MODEL_INVALID',
      `the model has IR version ${irVersion}; versions ${irVersionMin} to ${irVersionMax} can be read`,
      { irVersion, irVersionMin, irVersionMax },
    );
  }
  if (graph === undefined) throw intarsiaError('MODEL_INVALID', 'the model has no graph');
  const end = bytes.byteLength;
  return { start: 0, bodyStart: 0, end, bytes, irVersion, producerName, producerVersion, graph, opsets, functions };
}

function readGraph(reader: WireReader, place: Encoded, budget: ReadBudget): GraphView {
  let name = '';
  const nodes: NodeView[] = [];
  const initializers: TensorView[] = [];
  const sparseInitializers: SparseTensorView[] = [];
  const inputs: ValueView[] = [];
  const outputs: ValueView[] = [];
  const values: ValueView[] = [];
  while (reader.next()) {
    switch (reader.field) {
      case graphField.node:
        nodes.push(budget.message(reader, (inner, nodePlace) => readNode(inner, nodePlace, budget)));
        break;
      case graphField.name:
        name = budget.text(reader);
        break;
      case graphField.initializer:
        initializers.push(budget.message(reader, (inner, tensorPlace) => readTensor(inner, tensorPlace, budget)));
        break;
      case graphField.sparseInitializer:
        sparseInitializers.push(
          budget.message(reader, (inner, tensorPlace) => readSparseTensor(inner, tensorPlace, budget)),
        );
        break;
      case graphField.input:
        inputs.push(budget.message(reader, (inner, valuePlace) => readValue(inner, valuePlace, budget)));
        break;
      case graphField.output:
        outputs.push(budget.message(reader, (inner, valuePlace) => readValue(inner, valuePlace, budget)));
        break;
      case graphField.value:
        values.push(budget.message(reader, (inner, valuePlace) => readValue(inner, valuePlace, budget)));
        break;
      default:
        reader.skip();
    }
  }
  return {
    start: place.start,
    bodyStart: place.bodyStart,
    end: place.end,
    name,
    nodes,
    initializers,
    sparseInitializers,
    inputs,
    outputs,
    values,
  };
}

function readNode(reader: WireReader, place: Encoded, budget: ReadBudget): NodeView {
  const inputs: string[] = [];
  const outputs: string[] = [];
  const attributes: AttributeView[] = [];
  let name = '';
  let opType = '';
  let domain = '';
  let overload = '';
  while (reader.next()) {
    switch (reader.field) {
      case nodeField.input:
        inputs.push(budget.text(reader));
        break;
      case nodeField.output:
        outputs.push(budget.text(reader));
        break;
      case nodeField.name:
        name = budget.text(reader);
        break;
      case nodeField.opType:
        opType = budget.text(reader);
        break;
      case nodeField.attribute:
        attributes.push(
          budget.message(reader, (inner, attributePlace) => readAttribute(inner, attributePlace, budget)),
        );
        break;
      case nodeField.domain:
        domain = budget.text(reader);
        break;
      case nodeField.overload:
        overload = budget.text(reader);
        break;
      default:
        reader.skip();
    }
  }
  return {
    start: place.start,
    bodyStart: place.bodyStart,
    end: place.end,
    inputs,
    outputs,
    name,
    opType,
    domain,
    overload,
    attributes,
  };
}

function readAttribute(reader: WireReader, place: Encoded, budget: ReadBudget): AttributeView {
  const tensors: TensorView[] = [];
  const sparseTensors: SparseTensorView[] = [];
  const graphs: GraphView[] = [];
  let name = '';
  let type = 0;
  let refName = '';
  while (reader.next()) {
    switch (reader.field) {
      case attributeField.name:
        name = budget.text(reader);
        break;
      case attributeField.type:
        reader.expect(wireType.varint);
        type = reader.varint();
        break;
      case attributeField.refName:
        refName = budget.text(reader);
        break;
      case attributeField.tensor:
      case attributeField.tensors:
        tensors.push(budget.message(reader, (inner, tensorPlace) => readTensor(inner, tensorPlace, budget)));
        break;
      case attributeField.sparseTensor:
      case attributeField.sparseTensors:
        sparseTensors.push(
          budget.message(reader, (inner, tensorPlace) => readSparseTensor(inner, tensorPlace, budget)),
        );
        break;
      case attributeField.graph:
      case attributeField.graphs:
        graphs.push(budget.message(reader, (inner, graphPlace) => readGraph(inner, graphPlace, budget)));
        break;
      default:
        reader.skip();
    }
  }
  return {
    start: place.start,
    bodyStart: place.bodyStart,
    end: place.end,
    name,
    type,
    refName,
    tensors,
    sparseTensors,
    graphs,
  };
}

function readFunction(reader: WireReader, place: Encoded, budget: ReadBudget): FunctionView {
  const inputs: string[] = [];
  const outputs: string[] = [];
  const nodes: NodeView[] = [];
  const opsets: OpsetView[] = [];
  let name = '';
  let domain = '';
  let overload = '';
  while (reader.next()) {
    switch (reader.field) {
      case functionField.name:
        name = budget.text(reader);
        break;
      case functionField.input:
        inputs.push(budget.text(reader));
        break;
      case functionField.output:
        outputs.push(budget.text(reader));
        break;
      case functionField.node:
        nodes.push(budget.message(reader, (inner, nodePlace) => readNode(inner, nodePlace, budget)));
        break;
      case functionField.opset:
        opsets.push(budget.message(reader, (inner, opsetPlace) => readOpset(inner, opsetPlace, budget)));
        break;
      case functionField.domain:
        domain = budget.text(reader);
        break;
      case functionField.overload:
        overload = budget.text(reader);
        break;
      default:
        reader.skip();
    }
  }
  return {
    start: place.start,
    bodyStart: place.bodyStart,
    end: place.end,
    name,
    domain,
    overload,
    inputs,
    outputs,
    nodes,
    opsets,
  };
}

function readOpset(reader: WireReader, place: Encoded, budget: ReadBudget): OpsetView {
  let domain = '';
  let version = 0;
  while (reader.next()) {
    switch (reader.field) {
      case opsetField.domain:
        domain = budget.text(reader);
        break;
      case opsetField.version:
        reader.expect(wireType.varint);
        version = reader.int53();
        break;
      default:
        reader.skip();
    }
  }
  return { start: place.start, bodyStart: place.bodyStart, end: place.end, domain, version };
}
