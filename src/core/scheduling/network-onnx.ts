/**
 * A network as an ONNX model and back: Gemm and Tanh, opset 17, any number of rows. Any ONNX runtime scores the same rows;
 * the hot path runs the weights itself (simd-scorer.ts).
 */
import { intarsiaError } from '../errors.js';
import { GraphBuilder } from '../onnx/builder.js';
import { onnxDataType } from '../onnx/data-type.js';
import type { ModelDraft } from '../onnx/draft.js';
import type { ModelView, NodeView } from '../onnx/model-view.js';
import { readTensorProto } from '../onnx/tensor-proto.js';
import { WireReader } from '../wire.js';
import { checkNetwork, inputsOf, layersMax, outputsOf, parametersMax, type Layer, type Network } from './network.js';

const opset = 17;

/** The model of a network; `metadata` goes into the file's metadata_props. */
export function networkModel(network: Network, metadata: Readonly<Record<string, string>>): ModelDraft {
  checkNetwork(network);
  const graph = new GraphBuilder('policy');
  let value = graph.input('rows', 'FP32', ['row', inputsOf(network)]);
  const last = network.layers.length - 1;
  network.layers.forEach((layer, index) => {
    const weights = graph.constant(`weights_${index}`, [layer.in, layer.out], layer.weights);
    const bias = graph.constant(`bias_${index}`, [layer.out], layer.bias);
    const output = index === last ? { output: 'scores' } : {};
    value = graph.node('Gemm', [value, weights, bias], output);
    if (index < last) value = graph.node('Tanh', [value]);
  });
  graph.output(value, 'FP32', ['row', outputsOf(network)]);
  return graph.model({ opset, producer: { name: 'intarsia', version: '' }, metadata });
}

/** The network of a model that is such a chain. @throws MODEL_INVALID for any other model. */
export function networkOfModel({ bytes, graph }: ModelView): Network {
  const { nodes, initializers } = graph;
  if (nodes.length === 0 || nodes.length > 2 * layersMax) {
    throw refusal(`it has ${nodes.length} nodes and may have 1 to ${2 * layersMax}`);
  }
  let numbers = 0;
  const constants = new Map<string, { readonly shape: readonly number[]; readonly values: Float32Array }>();
  for (const { name, dataType, dims, dataBytes, external, bodyStart, end } of initializers) {
    if (dataType !== onnxDataType.FLOAT || external !== undefined) {
      throw refusal(`its constant '${name}' is not 32-bit numbers inside the file`);
    }
    numbers += dataBytes / 4;
    if (numbers > parametersMax) throw refusal(`its constants hold more than ${parametersMax} numbers`);
    const { data } = readTensorProto(bytes.subarray(bodyStart, end));
    // A copy: the file's bytes need not lie at a multiple of four.
    constants.set(name, { shape: dims, values: new Float32Array(new Uint8Array(data).buffer) });
  }
  const constant = (name: string | undefined, what: string): { shape: readonly number[]; values: Float32Array } => {
    const found = constants.get(name ?? '');
    if (found === undefined) throw refusal(`its ${what} is not a constant of the model`);
    return found;
  };
  const layers: Layer[] = [];
  const produced = new Map(nodes.map((node) => [node.outputs[0] ?? '', node]));
  let value = graph.outputs[0]?.name ?? '';
  // From the output back to the input, so that the order in the file does not matter.
  for (let step = 0; produced.has(value); step += 1) {
    if (step >= nodes.length) throw refusal('its nodes form a circle');
    const node = produced.get(value) as NodeView;
    const wanted = step % 2 === 0 ? 'Gemm' : 'Tanh';
    if (node.opType !== wanted || node.domain !== '') {
      throw refusal(`node '${node.name}' is ${node.opType} where ${wanted} belongs`);
    }
    value = node.inputs[0] ?? '';
    if (wanted === 'Tanh') continue;
    const weights = constant(node.inputs[1], `weight of '${node.name}'`);
    const bias = constant(node.inputs[2], `bias of '${node.name}'`);
    layers.unshift(layerOf(node, bytes, weights, bias.values));
  }
  if (value !== graph.inputs[0]?.name) throw refusal('its output does not come from its input');
  if (layers.length * 2 - 1 !== nodes.length) throw refusal('it has nodes beside the chain of Gemm and Tanh');
  return checkNetwork({ layers, activation: 'tanh' });
}

function layerOf(
  node: NodeView,
  bytes: Uint8Array,
  weights: { readonly shape: readonly number[]; readonly values: Float32Array },
  bias: Float32Array,
): Layer {
  const [rows = 0, columns = 0] = weights.shape;
  if (weights.shape.length !== 2)
    throw refusal(`the weights of '${node.name}' have ${weights.shape.length} dimensions`);
  const transposed = gemmAttributes(node, bytes);
  if (!transposed) return { in: rows, out: columns, weights: weights.values, bias };
  const turned = new Float32Array(weights.values.length);
  for (let out = 0; out < rows; out += 1) {
    for (let input = 0; input < columns; input += 1) {
      turned[input * rows + out] = weights.values[out * columns + input] as number;
    }
  }
  return { in: columns, out: rows, weights: turned, bias };
}

const attributeField = { float: 2, int: 3 } as const;

/** Whether the weights are transposed; every other attribute must have its usual value. */
function gemmAttributes(node: NodeView, bytes: Uint8Array): boolean {
  let transposed = false;
  for (const { name, bodyStart, end } of node.attributes) {
    const reader = new WireReader(bytes.subarray(bodyStart, end));
    let value = 0;
    while (reader.next()) {
      if (reader.field === attributeField.float) value = reader.float();
      else if (reader.field === attributeField.int) value = reader.int53();
      else reader.skip();
    }
    if (name === 'transB') transposed = value === 1;
    else if (!(name === 'transA' ? value === 0 : (name === 'alpha' || name === 'beta') && value === 1)) {
      throw refusal(`attribute '${name}' of '${node.name}' is ${value}`);
    }
  }
  return transposed;
}

function refusal(reason: string): Error {
  return intarsiaError('MODEL_INVALID', `the policy file cannot be used: ${reason}`, {});
}
