/**
 * The raw limit of a model on this machine: a loop around onnxruntime-node in a process of its own, nothing else.
 * Prints `{"itemsPerSecond":N,"runs":N}` after `--seconds`.
 */
import * as ort from 'onnxruntime-node';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    shape: { type: 'string' },
    threads: { type: 'string', default: '0' },
    seconds: { type: 'string', default: '5' },
  },
});
if (values.model === undefined || values.shape === undefined)
  throw new Error('--model FILE and --shape N,N,… are needed');
const shape = values.shape.split(',').map(Number);
const session = await ort.InferenceSession.create(values.model, { intraOpNumThreads: Number(values.threads) });
const inputName = session.inputNames[0];
if (inputName === undefined) throw new Error('the model has no input');
const size = shape.reduce((product, dimension) => product * dimension, 1);
const feeds = { [inputName]: new ort.Tensor('float32', new Float32Array(size).fill(0.5), shape) };

for (let warmUp = 0; warmUp < 3; warmUp += 1) await session.run(feeds);
const durationMs = Number(values.seconds) * 1000;
const startMs = performance.now();
let runs = 0;
while (performance.now() - startMs < durationMs) {
  await session.run(feeds);
  runs += 1;
}
const seconds = (performance.now() - startMs) / 1000;
process.stdout.write(`${JSON.stringify({ itemsPerSecond: (runs * (shape[0] ?? 1)) / seconds, runs })}\n`);
