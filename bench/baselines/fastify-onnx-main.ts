/**
 * What a developer would write instead: a bare fastify server that runs one ONNX model in its own process and speaks
 * binary: request body = the bytes of the single input for one item, answer body = the bytes of the first output.
 * Prints `{"port":N}` when ready. `--shape` is the shape of one request's input, `--threads` the threads of a run; a second
 * model is served beside the first at `/second`.
 */
import Fastify from 'fastify';
import * as ort from 'onnxruntime-node';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    shape: { type: 'string' },
    'second-model': { type: 'string' },
    'second-shape': { type: 'string' },
    threads: { type: 'string', default: '0' },
  },
});

const app = Fastify({ bodyLimit: 64 * 1024 * 1024 });
app.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
await addModel('/infer', values.model, values.shape);
if (values['second-model'] !== undefined) await addModel('/second', values['second-model'], values['second-shape']);
await app.listen({ host: '127.0.0.1', port: 0 });
const address = app.server.address();
process.stdout.write(`${JSON.stringify({ port: typeof address === 'object' ? address?.port : 0 })}\n`);

async function addModel(path: string, file: string | undefined, shapeText: string | undefined): Promise<void> {
  if (file === undefined || shapeText === undefined) throw new Error('--model FILE and --shape N,N,… are needed');
  const shape = shapeText.split(',').map(Number);
  const session = await ort.InferenceSession.create(file, { intraOpNumThreads: Number(values.threads) });
  const inputName = session.inputNames[0];
  const outputName = session.outputNames[0];
  if (inputName === undefined || outputName === undefined) throw new Error('the model has no input or no output');
  app.post(path, async (request, reply) => {
    const body = request.body as Buffer;
    const floats =
      body.byteOffset % 4 === 0
        ? new Float32Array(body.buffer, body.byteOffset, body.byteLength / 4)
        : new Float32Array(new Uint8Array(body).buffer);
    const results = await session.run({ [inputName]: new ort.Tensor('float32', floats, shape) });
    const data = results[outputName]?.data as Float32Array;
    return reply.type('application/octet-stream').send(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  });
}
