/** The files that stand beside the digit model in the repository: configuration, labels, card. */

export const digitsConfig = `# Tells handwritten-looking digits apart. image: light strokes on dark ground, 0 to 1. Trained by examples/training.
name: "digits"
backend: "onnxruntime"
max_batch_size: 64
input [
  {
    name: "image"
    data_type: TYPE_FP32
    dims: [ 1, 28, 28 ]
  }
]
output [
  {
    name: "probabilities"
    data_type: TYPE_FP32
    dims: [ 10 ]
    label_filename: "labels.txt"
  }
]
# A batch leaves as soon as the device is free, with whatever waits: delay would cost more than it brings for so small a model.
dynamic_batching { }
# A run takes some 20 µs: to wake a second thread for it costs more than that thread takes over.
parameters {
  key: "intra_op_thread_count"
  value { string_value: "1" }
}
model_warmup [
  {
    name: "one"
    batch_size: 1
    inputs {
      key: "image"
      value: { data_type: TYPE_FP32 dims: [ 1, 28, 28 ] zero_data: true }
    }
  },
  {
    name: "full"
    batch_size: 64
    inputs {
      key: "image"
      value: { data_type: TYPE_FP32 dims: [ 1, 28, 28 ] zero_data: true }
    }
  }
]
`;

export const digitsLabels = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', ''].join(
  '\n',
);

export interface DigitsCard {
  /** Share of test pictures whose most probable digit is right. */
  readonly accuracy: number;
  readonly tests: number;
  readonly seed: number;
  readonly epochs: number;
  readonly pictures: number;
  readonly backend: string;
  readonly tfjs: string;
  readonly digest: string;
  readonly bytes: number;
}

export function digitsCard(card: DigitsCard): string {
  return `# digits

Tells the ten digits apart on pictures of 28 × 28 pixels.

| | |
|---|---|
| takes | \`image\`, FP32 [batch, 1, 28, 28], light strokes on dark ground, 0 to 1 |
| gives | \`probabilities\`, FP32 [batch, 10], summing to 1; labels in \`labels.txt\` |
| network | 784-128-64-10, ReLU, softmax: 109,386 parameters |
| trained on | ${card.epochs} × ${card.pictures} digits drawn by \`examples/training/draw-digits.ts\`, none twice |
| accuracy | ${(100 * card.accuracy).toFixed(2)} % of ${card.tests} drawn digits that training has not seen |
| made by | \`node dist/examples/training/train-digits.js --out examples/models/digits --seed ${card.seed} --epochs ${card.epochs} --pictures ${card.pictures}\` |
| with | TensorFlow.js ${card.tfjs}, backend \`${card.backend}\` |
| file | ${card.bytes} bytes, SHA-256 \`${card.digest}\` |

It has seen drawn digits only: what people really write may differ, and its accuracy there is not promised. The same seed gives
the same pictures everywhere, and the same weights on the same machine and backend; another processor may round differently.
`;
}
