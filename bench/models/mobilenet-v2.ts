/** MobileNetV2 at width 1.0: Sandler and others, 2018, as torchvision builds it. 3,504,872 parameters. */
import { int } from '#core/onnx/attribute.js';
import { Network } from './network.js';

/** Expansion, output channels, blocks, stride of the first block: table 2 of the paper. */
const rows = [
  [1, 16, 1, 1],
  [6, 24, 2, 2],
  [6, 32, 3, 2],
  [6, 64, 4, 2],
  [6, 96, 3, 1],
  [6, 160, 3, 2],
  [6, 320, 1, 1],
] as const;

/** `image` [batch, 3, 224, 224] in, `logits` [batch, 1000] out. */
export function mobilenetV2(countOnly = false): Network {
  const network = new Network({ name: 'mobilenet_v2', seed: 2, countOnly });
  const { graph } = network;
  const zero = graph.constant('zero', [], new Float32Array([0]));
  const six = graph.constant('six', [], new Float32Array([6]));
  const relu6 = (input: string): string => graph.node('Clip', [input, zero, six]);
  let value = graph.input('image', 'FP32', ['batch', 3, 224, 224]);
  value = network.convolution(value, { inputs: 3, outputs: 32, kernel: 3, stride: 2 });
  value = relu6(network.batchNormalization(value, 32));
  let channels = 32;
  for (const [expansion, outputs, blocks, firstStride] of rows) {
    for (let block = 0; block < blocks; block += 1) {
      const stride = block === 0 ? firstStride : 1;
      const before = value;
      const hidden = channels * expansion;
      if (expansion !== 1) {
        value = network.convolution(value, { inputs: channels, outputs: hidden, kernel: 1 });
        value = relu6(network.batchNormalization(value, hidden));
      }
      value = network.convolution(value, { inputs: hidden, outputs: hidden, kernel: 3, stride, groups: hidden });
      value = relu6(network.batchNormalization(value, hidden));
      value = network.convolution(value, { inputs: hidden, outputs, kernel: 1 });
      value = network.batchNormalization(value, outputs, 0.7);
      if (stride === 1 && channels === outputs) value = graph.node('Add', [before, value]);
      channels = outputs;
    }
  }
  value = network.convolution(value, { inputs: channels, outputs: 1280, kernel: 1 });
  value = relu6(network.batchNormalization(value, 1280));
  const pooled = graph.node('GlobalAveragePool', [value]);
  const flat = graph.node('Flatten', [pooled], { attributes: { axis: int(1) } });
  const weights = network.weights([1000, 1280], Math.sqrt(6 / 2280));
  const logits = graph.node('Gemm', [flat, weights, network.weights([1000], 0.02)], {
    output: 'logits',
    attributes: { transB: int(1) },
  });
  graph.output(logits, 'FP32', ['batch', 1000]);
  return network;
}
