/**
 * The encoder of BERT base: Devlin and others, 2018, as transformers builds it, with pooler. 109,482,240 parameters, of which
 * 23,837,184 are embeddings.
 */
import { int, ints } from '#core/onnx/attribute.js';
import { Network } from './network.js';

const [vocabulary, positions, segments, width, layers, heads, inner] = [30_522, 512, 2, 768, 12, 12, 3072];
const epsilon = 1e-12;

/** `input_ids`, `attention_mask`, `token_type_ids` INT64 [batch, sequence] in; `last_hidden_state`, `pooler_output` out. */
export function bertBase(countOnly = false): Network {
  const network = new Network({ name: 'bert_base', seed: 110, countOnly });
  const { graph } = network;
  const shape = ['batch', 'sequence'];
  const tokens = graph.input('input_ids', 'INT64', shape);
  const mask = graph.input('attention_mask', 'INT64', shape);
  const types = graph.input('token_type_ids', 'INT64', shape);
  const additiveMask = hideMasked(network, mask);
  let value = embed(network, tokens, types);
  for (let layer = 0; layer < layers; layer += 1) {
    const attended = attention(network, value, additiveMask);
    value = network.layerNormalization(graph.node('Add', [value, attended]), width, epsilon);
    const expanded = gelu(network, network.dense(value, width, inner));
    const contracted = network.dense(expanded, inner, width);
    value = network.layerNormalization(graph.node('Add', [value, contracted]), width, epsilon);
  }
  graph.output(value, 'FP32', ['batch', 'sequence', width], 'last_hidden_state');
  const first = graph.node('Gather', [value, graph.constant('first', [], BigInt64Array.of(0n))], {
    attributes: { axis: int(1) },
  });
  graph.output(graph.node('Tanh', [network.dense(first, width, width)], { output: 'pooler_output' }), 'FP32', [
    'batch',
    width,
  ]);
  return network;
}

function embed(network: Network, tokens: string, types: string): string {
  const { graph } = network;
  const words = graph.node('Gather', [network.weights([vocabulary, width], 0.035), tokens]);
  const table = network.weights([positions, width], 0.035);
  const kinds = graph.node('Gather', [network.weights([segments, width], 0.035), types]);
  const length = graph.node('Shape', [tokens], { attributes: { start: int(1), end: int(2) } });
  const zero = graph.constant('slice_start', [1], new BigInt64Array([0n]));
  const places = graph.node('Slice', [table, zero, length, zero]);
  return network.layerNormalization(graph.node('Add', [graph.node('Add', [words, kinds]), places]), width, epsilon);
}

/** 0 where attention may look, a very negative number where not: [batch, 1, 1, sequence]. */
function hideMasked(network: Network, mask: string): string {
  const { graph } = network;
  const wide = graph.node('Unsqueeze', [mask, graph.constant('mask_axes', [2], new BigInt64Array([1n, 2n]))]);
  const numbers = graph.node('Cast', [wide], { attributes: { to: int(1) } });
  const hidden = graph.node('Sub', [network.shared('one', [], Float32Array.of(1)), numbers]);
  return graph.node('Mul', [hidden, graph.constant('hide', [], new Float32Array([-10_000]))]);
}

function attention(network: Network, input: string, mask: string): string {
  const { graph } = network;
  // In a shape, 0 keeps a size.
  const split = network.shared('split_heads', [4], BigInt64Array.of(0n, 0n, BigInt(heads), BigInt(width / heads)));
  const join = network.shared('join_heads', [3], BigInt64Array.of(0n, 0n, BigInt(width)));
  const project = (order: readonly number[]): string => {
    const projected = graph.node('Reshape', [network.dense(input, width, width), split]);
    return graph.node('Transpose', [projected], { attributes: { perm: ints(order) } });
  };
  const [query, key, value] = [project([0, 2, 1, 3]), project([0, 2, 3, 1]), project([0, 2, 1, 3])];
  const scale = network.shared('score_scale', [], Float32Array.of(Math.sqrt(width / heads)));
  const scores = graph.node('Div', [graph.node('MatMul', [query, key]), scale]);
  const shares = graph.node('Softmax', [graph.node('Add', [scores, mask])], { attributes: { axis: int(-1) } });
  const mixed = graph.node('Transpose', [graph.node('MatMul', [shares, value])], {
    attributes: { perm: ints([0, 2, 1, 3]) },
  });
  return network.dense(graph.node('Reshape', [mixed, join]), width, width);
}

/** x / 2 × (1 + erf(x / √2)), in the form that runtimes recognise. */
function gelu(network: Network, input: string): string {
  const { graph } = network;
  const root = network.shared('root_two', [], Float32Array.of(Math.SQRT2));
  const one = network.shared('one', [], Float32Array.of(1));
  const half = network.shared('half', [], Float32Array.of(0.5));
  const erf = graph.node('Erf', [graph.node('Div', [input, root])]);
  return graph.node('Mul', [graph.node('Mul', [input, graph.node('Add', [erf, one])]), half]);
}
