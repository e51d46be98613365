/** A chain of layers of width² floats each, for plans. */
import { GraphBuilder } from '#core/onnx/builder.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { RandomStream } from '#core/random.js';

export function perceptron(layers: number, width: number): Uint8Array {
  return encodeModelBytes(perceptronDraft(layers, width));
}

export function perceptronDraft(layers: number, width: number): ReturnType<GraphBuilder['model']> {
  const random = new RandomStream('weights');
  const builder = new GraphBuilder('perceptron');
  let value = builder.input('x', 'FP32', ['batch', width]);
  for (let layer = 0; layer < layers; layer += 1) {
    const weights = Float32Array.from({ length: width * width }, () => random.next() - 0.5);
    value = builder.node('MatMul', [value, builder.constant(`w${layer}`, [width, width], weights)]);
    value = builder.node('Tanh', [value]);
  }
  builder.output(value, 'FP32', ['batch', width], 'y');
  return builder.model({ opset: 17 });
}
