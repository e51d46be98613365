/**
 * The least a server of one model can be: Node, ONNX Runtime, a session that has run once. Prints `{"ready":true}` and
 * waits to be ended. Its memory is what that of a host is compared with.
 */
import * as ort from 'onnxruntime-node';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { model: { type: 'string' }, shape: { type: 'string' } } });
if (values.model === undefined || values.shape === undefined)
  throw new Error('--model FILE and --shape N,N,… are needed');
const shape = values.shape.split(',').map(Number);
const session = await ort.InferenceSession.create(values.model);
const inputName = session.inputNames[0];
if (inputName === undefined) throw new Error('the model has no input');
const size = shape.reduce((product, dimension) => product * dimension, 1);
await session.run({ [inputName]: new ort.Tensor('float32', new Float32Array(size), shape) });
process.stdout.write(`${JSON.stringify({ ready: true })}\n`);
setInterval(() => undefined, 60_000);
