/**
 * A bare ONNX Runtime loop over one of a chain of model files: the most that a stage on one device could give. The files
 * before it are run once, for its inputs. Prints `{"ready":true}`, begins when a line comes, and prints what it did.
 */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import * as native from 'onnxruntime-node';
import * as web from 'onnxruntime-web';

interface GivenInput {
  readonly name: string;
  readonly type: 'float32' | 'int64';
  readonly shape: readonly number[];
}

const { values } = parseArgs({
  options: {
    file: { type: 'string', multiple: true, default: [] },
    inputs: { type: 'string', default: '[]' },
    provider: { type: 'string', default: 'cpu' },
    threads: { type: 'string', default: '1' },
    seconds: { type: 'string', default: '5' },
  },
});
web.env.wasm.numThreads = 1;
const library = values.provider === 'wasm' ? (web as unknown as typeof native) : native;
const own = values.file.length - 1;
let feeds: Record<string, native.Tensor> = {};
for (const { name, type, shape } of JSON.parse(values.inputs) as readonly GivenInput[]) {
  const size = shape.reduce((product, dimension) => product * dimension, 1);
  const data = type === 'int64' ? new BigInt64Array(size).fill(1n) : new Float32Array(size).fill(0.5);
  feeds[name] = new library.Tensor(type, data as Float32Array, shape);
}
let session: native.InferenceSession | undefined;
for (const [index, file] of values.file.entries()) {
  const options = {
    executionProviders: [values.provider],
    intraOpNumThreads: Number(values.threads),
    logSeverityLevel: 3,
  } as const;
  const loaded =
    values.provider === 'wasm'
      ? await library.InferenceSession.create(await readFile(file), options)
      : await library.InferenceSession.create(file, options);
  const given = Object.fromEntries(loaded.inputNames.map((name) => [name, feeds[name]])) as typeof feeds;
  if (index === own) {
    session = loaded;
    feeds = given;
  } else {
    feeds = { ...feeds, ...(await loaded.run(given)) };
    await loaded.release();
  }
}
if (session === undefined) throw new Error('--file is needed');
for (let warmUp = 0; warmUp < 2; warmUp += 1) await session.run(feeds);
process.stdout.write('{"ready":true}\n');
await once(process.stdin, 'data');
const durationMs = Number(values.seconds) * 1000;
const startMs = performance.now();
let runs = 0;
let endMs = startMs;
while (endMs - startMs < durationMs) {
  await session.run(feeds);
  runs += 1;
  endMs = performance.now();
}
process.stdout.write(`${JSON.stringify({ runsPerSecond: (runs * 1000) / (endMs - startMs) })}\n`);
process.exit(0);
