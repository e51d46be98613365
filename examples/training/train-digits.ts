/**
 * Trains the digit classifier of the example repository on digits it draws itself:
 *
 *     node dist/examples/training/train-digits.js --out examples/models/digits
 *
 * Writes the model, its configuration, its labels and a card that says how it was made and how well it does. A few minutes.
 */
import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { loadTensorflow } from '#adapters/tfjs/tensorflow.js';
import { digitsCard, digitsConfig, digitsLabels } from './digit-files.js';
import { accuracyOf, encodeDigitModel, trainDigitNetwork } from './digit-network.js';
import { drawDigits } from './draw-digits.js';
import { RandomNumbers } from './random-numbers.js';

/** Streams of pictures: one an epoch, and one that training never sees. */
const testStream = 1_000_000;

const { values } = parseArgs({
  options: {
    out: { type: 'string', default: 'examples/models/digits' },
    seed: { type: 'string', default: '5' },
    epochs: { type: 'string', default: '16' },
    pictures: { type: 'string', default: '24000' },
    tests: { type: 'string', default: '20000' },
  },
});
const [seed, epochs, pictures, tests] = [values.seed, values.epochs, values.pictures, values.tests].map(Number) as [
  number,
  number,
  number,
  number,
];

const startedMs = performance.now();
const { tf, backend, notes } = await loadTensorflow();
console.log(`TensorFlow.js ${tf.version.tfjs} on '${backend}'${notes.length === 0 ? '' : ` (${notes.join('; ')})`}`);
const layers = await trainDigitNetwork(tf, {
  seed,
  epochs,
  batchSize: 100,
  learningRate: 0.05,
  drawEpoch: (epoch) => drawDigits(pictures, new RandomNumbers(seed, epoch + 100)),
  onEpoch: (epoch, loss) => console.log(`epoch ${epoch + 1} of ${epochs}: loss ${loss.toFixed(4)}`),
});
const accuracy = accuracyOf(layers, drawDigits(tests, new RandomNumbers(seed, testStream)));
const model = encodeDigitModel(layers, {
  seed: String(seed),
  epochs: String(epochs),
  pictures_per_epoch: String(pictures),
});
const digest = createHash('sha256').update(model).digest('hex');
const files: Readonly<Record<string, Uint8Array | string>> = {
  '1/model.onnx': model,
  'config.pbtxt': digitsConfig,
  'labels.txt': digitsLabels,
  'README.md': digitsCard({
    accuracy,
    tests,
    seed,
    epochs,
    pictures,
    backend,
    digest,
    bytes: model.length,
    tfjs: tf.version.tfjs,
  }),
};
for (const [path, content] of Object.entries(files)) {
  const target = join(values.out, path);
  await mkdir(dirname(target), { recursive: true });
  await writeFile(target, content);
}
const seconds = ((performance.now() - startedMs) / 1000).toFixed(0);
console.log(
  `accuracy ${(100 * accuracy).toFixed(2)} % on ${tests} unseen drawn digits, ${model.length} bytes, ${seconds} s`,
);
console.log(`sha256 ${digest}`);
