/**
 * The digit network: 784 pixels, two hidden layers, ten probabilities. Trained with TensorFlow.js, written as ONNX.
 *
 * Small on purpose: some microseconds a picture, so that measurements of the host with it measure the host. Weights begin
 * from our own seeded numbers and pictures come in a seeded order, so that a run can be repeated on the same machine.
 */
import type { Tensorflow } from '#adapters/tfjs/tensorflow.js';
import { int } from '#core/onnx/attribute.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { imagePixels, imageSide } from './draw-digits.js';
import type { DrawnDigits } from './draw-digits.js';
import { RandomNumbers } from './random-numbers.js';

/** Sizes of the layers, input first. */
export const digitLayers = [imagePixels, 128, 64, 10] as const;

export interface DenseLayer {
  readonly inputs: number;
  readonly outputs: number;
  /** `inputs` × `outputs`, row by row. */
  readonly weights: Float32Array;
  readonly bias: Float32Array;
}

export interface TrainingOptions {
  readonly seed: number;
  readonly epochs: number;
  readonly batchSize: number;
  /** Step size at the start; it falls to a twentieth along half a cosine. */
  readonly learningRate: number;
  /** Pictures of an epoch. Each epoch gets new ones: the drawer never runs out. */
  readonly drawEpoch: (epoch: number) => DrawnDigits;
  readonly onEpoch?: (epoch: number, meanLoss: number) => void;
}

/** Uniform weights after He: the spread keeps the signal's size through layers with ReLU. */
export function initialLayers(seed: number, sizes: readonly number[] = digitLayers): DenseLayer[] {
  const random = new RandomNumbers(seed, 1);
  return sizes.slice(1).map((outputs, index) => {
    const inputs = sizes[index] ?? 0;
    const bound = Math.sqrt(6 / inputs);
    const weights = Float32Array.from({ length: inputs * outputs }, () => random.between(-bound, bound));
    return { inputs, outputs, weights, bias: new Float32Array(outputs) };
  });
}

/** Trains from scratch. The same options on the same machine and backend give the same weights. */
export async function trainDigitNetwork(tf: Tensorflow, options: TrainingOptions): Promise<DenseLayer[]> {
  const { seed, epochs, batchSize, learningRate, drawEpoch, onEpoch } = options;
  const variables = initialLayers(seed).map((layer) => ({
    layer,
    weights: tf.variable(tf.tensor2d(layer.weights, [layer.inputs, layer.outputs])),
    bias: tf.variable(tf.tensor1d(layer.bias)),
  }));
  const optimizer = tf.train.momentum(learningRate, 0.9, true);
  const order = new RandomNumbers(seed, 2);
  for (let epoch = 0; epoch < epochs; epoch += 1) {
    const { images, labels } = drawEpoch(epoch);
    const permutation = order.permutation(labels.length);
    const steps = Math.floor(labels.length / batchSize);
    let lossSum = 0;
    for (let step = 0; step < steps; step += 1) {
      const progress = (epoch + step / steps) / epochs;
      optimizer.setLearningRate(learningRate * (0.05 + 0.475 * (1 + Math.cos(Math.PI * progress))));
      const batch = gather(images, labels, permutation.subarray(step * batchSize, (step + 1) * batchSize));
      lossSum += tf.tidy(() => {
        const input = tf.tensor2d(batch.images, [batchSize, imagePixels]);
        const wanted = tf.oneHot(tf.tensor1d(batch.labels, 'int32'), 10);
        const loss = optimizer.minimize(() => {
          let value: ReturnType<typeof tf.relu> = input;
          for (const [index, { weights, bias }] of variables.entries()) {
            value = tf.add(tf.matMul(value as typeof input, weights as typeof input), bias);
            if (index < variables.length - 1) value = tf.relu(value);
          }
          return tf.losses.softmaxCrossEntropy(wanted, value).asScalar();
        }, true);
        return loss?.dataSync()[0] ?? 0;
      });
    }
    onEpoch?.(epoch, lossSum / steps);
  }
  const trained: DenseLayer[] = [];
  for (const { layer, weights, bias } of variables) {
    trained.push({
      ...layer,
      weights: Float32Array.from(await weights.data()),
      bias: Float32Array.from(await bias.data()),
    });
    weights.dispose();
    bias.dispose();
  }
  optimizer.dispose();
  return trained;
}

/** The network as an ONNX model: `image` [batch, 1, 28, 28] in, `probabilities` [batch, 10] out. */
export function encodeDigitModel(
  layers: readonly DenseLayer[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  const graph = new GraphBuilder('digits');
  const image = graph.input('image', 'FP32', ['batch', 1, imageSide, imageSide]);
  let value = graph.node('Flatten', [image], { attributes: { axis: int(1) } });
  for (const [index, layer] of layers.entries()) {
    const weights = graph.constant(`weights_${index}`, [layer.inputs, layer.outputs], layer.weights);
    const bias = graph.constant(`bias_${index}`, [layer.outputs], layer.bias);
    value = graph.node('Gemm', [value, weights, bias]);
    if (index < layers.length - 1) value = graph.node('Relu', [value]);
  }
  const probabilities = graph.node('Softmax', [value], { output: 'probabilities', attributes: { axis: int(1) } });
  graph.output(probabilities, 'FP32', ['batch', 10]);
  return encodeModelBytes(graph.model({ opset: 17, metadata }));
}

/** Share of pictures whose most probable digit is right; plain loops, so that it needs no inference engine. */
export function accuracyOf(layers: readonly DenseLayer[], digits: DrawnDigits): number {
  let right = 0;
  for (const [index, label] of digits.labels.entries()) {
    const image = digits.images.subarray(index * imagePixels, (index + 1) * imagePixels);
    if (classify(layers, image) === label) right += 1;
  }
  return digits.labels.length === 0 ? 0 : right / digits.labels.length;
}

function classify(layers: readonly DenseLayer[], image: Float32Array): number {
  let value = image;
  for (const [index, layer] of layers.entries()) {
    const sums = Float32Array.from(layer.bias);
    for (let input = 0; input < layer.inputs; input += 1) {
      const factor = value[input] ?? 0;
      if (factor === 0) continue;
      const row = input * layer.outputs;
      for (let output = 0; output < layer.outputs; output += 1) {
        sums[output] = (sums[output] ?? 0) + factor * (layer.weights[row + output] ?? 0);
      }
    }
    value = index < layers.length - 1 ? sums.map((sum) => Math.max(0, sum)) : sums;
  }
  return value.indexOf(Math.max(...value));
}

function gather(
  images: Float32Array,
  labels: Uint8Array,
  order: Uint32Array,
): { readonly images: Float32Array; readonly labels: Int32Array } {
  const batch = new Float32Array(order.length * imagePixels);
  const wanted = new Int32Array(order.length);
  for (const [row, index] of order.entries()) {
    batch.set(images.subarray(index * imagePixels, (index + 1) * imagePixels), row * imagePixels);
    wanted[row] = labels[index] ?? 0;
  }
  return { images: batch, labels: wanted };
}
