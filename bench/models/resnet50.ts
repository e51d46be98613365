/** ResNet-50 v1.5 (stride in the 3 × 3 convolution): He and others, 2015, as torchvision builds it. 25,557,032 parameters. */
import { int, ints } from '#core/onnx/attribute.js';
import { Network } from './network.js';

const stages = [
  { blocks: 3, width: 64, stride: 1 },
  { blocks: 4, width: 128, stride: 2 },
  { blocks: 6, width: 256, stride: 2 },
  { blocks: 3, width: 512, stride: 2 },
] as const;

/** `image` [batch, 3, 224, 224] in, `logits` [batch, 1000] out. */
export function resnet50(countOnly = false): Network {
  const network = new Network({ name: 'resnet50', seed: 50, countOnly });
  const { graph } = network;
  let value = graph.input('image', 'FP32', ['batch', 3, 224, 224]);
  value = network.convolution(value, { inputs: 3, outputs: 64, kernel: 7, stride: 2 });
  value = network.relu(network.batchNormalization(value, 64));
  value = graph.node('MaxPool', [value], {
    attributes: { kernel_shape: ints([3, 3]), pads: ints([1, 1, 1, 1]), strides: ints([2, 2]) },
  });
  let channels = 64;
  for (const { blocks, width, stride } of stages) {
    for (let block = 0; block < blocks; block += 1) {
      value = bottleneck(network, value, { inputs: channels, width, stride: block === 0 ? stride : 1 });
      channels = 4 * width;
    }
  }
  const pooled = graph.node('GlobalAveragePool', [value]);
  const flat = graph.node('Flatten', [pooled], { attributes: { axis: int(1) } });
  const weights = network.weights([1000, channels], Math.sqrt(6 / (channels + 1000)));
  const logits = graph.node('Gemm', [flat, weights, network.weights([1000], 0.02)], {
    output: 'logits',
    attributes: { transB: int(1) },
  });
  graph.output(logits, 'FP32', ['batch', 1000]);
  return network;
}

function bottleneck(
  network: Network,
  input: string,
  { inputs, width, stride }: { inputs: number; width: number; stride: number },
): string {
  const outputs = 4 * width;
  let value = network.convolution(input, { inputs, outputs: width, kernel: 1 });
  value = network.relu(network.batchNormalization(value, width));
  value = network.convolution(value, { inputs: width, outputs: width, kernel: 3, stride });
  value = network.relu(network.batchNormalization(value, width));
  value = network.convolution(value, { inputs: width, outputs, kernel: 1 });
  value = network.batchNormalization(value, outputs, 0.5);
  let shortcut = input;
  if (stride !== 1 || inputs !== outputs) {
    shortcut = network.convolution(input, { inputs, outputs, kernel: 1, stride });
    shortcut = network.batchNormalization(shortcut, outputs);
  }
  return network.relu(network.graph.node('Add', [value, shortcut]));
}
