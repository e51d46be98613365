import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { drawSeven } from '#examples/pictures/draw-seven.js';
import { imageSide } from '#examples/training/draw-digits.js';
import { decodePicture } from '#adapters/pictures/sharp-pictures.js';
import { encodeBytesElements, type TensorSpec } from '#core/tensor.js';
import { decodeInferRequest, encodeInferResponse } from '#core/inference-wire.js';
import { noParameters, type InferParameter, type InferRequestMessage } from '#core/inference-message.js';
import {
  ModelConfigResponse,
  ModelMetadataResponse,
  ModelStatisticsResponse,
  RepositoryIndexResponse,
  RepositoryModelLoadResponse,
  ServerLiveResponse,
  ServerMetadataResponse,
  ServerReadyResponse,
} from '#gen/inference.js';
import { echoOf, startPretendServer, StatusError } from '../client/pretend-server.js';
import { pretendProgram, run as runWith, type Said } from './pretend-program.js';

const folder = mkdtempSync(join(tmpdir(), 'intarsia-infer-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const opened: (() => void)[] = [];
afterEach(() => {
  for (const close of opened.splice(0)) close();
});

const { program } = pretendProgram({ decodePicture });
const run = (args: readonly string[]): Promise<Said> => runWith(args, program);

/** A host with one model that gives its inputs back; classification gives two fixed classes. */
async function host(inputs: readonly TensorSpec[], seen: InferRequestMessage[] = []): Promise<string> {
  const receipt = new Map<string, InferParameter>([
    ['intarsia_device', { kind: 'string', value: 'cpu:0' }],
    ['intarsia_compute_us', { kind: 'int64', value: 1500n }],
    ['intarsia_batch_items', { kind: 'int64', value: 2n }],
  ]);
  const words = encodeBytesElements(['0.9:7:seven', '0.1:1:one'].map((text) => Buffer.from(text)));
  const server = await startPretendServer({
    unary: {
      ModelInfer: ({ bytes }) => {
        const request = decodeInferRequest(bytes);
        seen.push(request);
        const answer = echoOf(request, receipt);
        const classes = request.outputs.some(({ parameters }) => parameters.has('classification'));
        const output = { name: 'probabilities', datatype: 'BYTES', shape: [2], parameters: noParameters, data: words };
        return encodeInferResponse(classes ? { ...answer, outputs: [output] } : answer).toBytes();
      },
      ModelMetadata: ({ bytes }) => {
        if (!Buffer.from(bytes).includes('m'))
          throw new StatusError('NOT_FOUND', "Request for unknown model: 'x' is not found");
        const tensor = ({ name, datatype, shape }: TensorSpec) => ({ name, datatype, shape: shape.map(BigInt) });
        return ModelMetadataResponse.toBinary({
          name: 'm',
          versions: ['1'],
          platform: 'onnxruntime_onnx',
          inputs: inputs.map(tensor),
          outputs: [{ name: 'probabilities', datatype: 'FP32', shape: [-1n, 10n] }],
        });
      },
      ModelConfig: () => ModelConfigResponse.toBinary({ config: undefined as never }),
      ModelStatistics: () =>
        ModelStatisticsResponse.toBinary({
          modelStats: [
            {
              name: 'm',
              version: '1',
              lastInference: 0n,
              inferenceCount: 30n,
              executionCount: 10n,
              inferenceStats: { success: { count: 20n, ns: 0n }, queue: { count: 20n, ns: 20_000_000n } },
              batchStats: [],
              memoryUsage: [],
              responseStats: {},
            },
          ],
        }),
      RepositoryIndex: () =>
        RepositoryIndexResponse.toBinary({ models: [{ name: 'm', version: '1', state: 'READY', reason: '' }] }),
      RepositoryModelLoad: () => RepositoryModelLoadResponse.toBinary({ modelName: 'm', isLoaded: true }),
      RepositoryModelUnload: () => {
        throw new StatusError('FAILED_PRECONDITION', 'model control is not explicit');
      },
      ServerLive: () => ServerLiveResponse.toBinary({ live: true }),
      ServerReady: () => ServerReadyResponse.toBinary({ ready: true }),
      ServerMetadata: () => ServerMetadataResponse.toBinary({ name: 'pretend', version: '3', extensions: [] }),
    },
  });
  opened.push(() => server.stop());
  return server.endpoint;
}

const image: TensorSpec = { name: 'image', datatype: 'FP32', shape: [-1, 1, 2, 3] };

describe('intarsia infer', () => {
  it('turns a picture into the tensor the model wants, and prints classes with labels', async () => {
    const seen: InferRequestMessage[] = [];
    const endpoint = await host([image], seen);
    const path = join(folder, 'grey.png');
    await sharp(Buffer.from([0, 51, 102, 153, 204, 255]), { raw: { width: 3, height: 2, channels: 1 } })
      .png()
      .toFile(path);
    const { code, out } = await run([
      'infer',
      'm',
      '--endpoint',
      endpoint,
      '--input',
      `image=${path}`,
      '--classes',
      '2',
    ]);
    expect(code).toBe(0);
    const [input] = seen[0]?.inputs ?? [];
    expect(input?.shape).toEqual([1, 1, 2, 3]);
    const values = new Float32Array(Uint8Array.from(input?.data ?? []).buffer);
    expect([...values].map((value) => Number(value.toFixed(4)))).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(out).toMatch(/1 +7 +seven +0\.9/);
    expect(out).toMatch(/2 +1 +one +0\.1/);
    expect(out).toMatch(/answered in .* by cpu:0: queue .* compute 1\.5 ms.* batch of 2/);
  });

  it('has a picture to begin with: the seven that the examples draw, larger than the model wants it', async () => {
    const wanted = { size: { width: imageSide, height: imageSide }, channels: 1, fit: 'fill' } as const;
    const drawn = join(folder, 'drawn.png');
    writeFileSync(drawn, await drawSeven());
    const kept = await decodePicture('examples/pictures/seven.png', wanted);
    const fresh = await decodePicture(drawn, wanted);
    // Encoders differ between versions of the library; pixels hardly.
    const differences = kept.pixels.map((value, index) => Math.abs(value - (fresh.pixels[index] ?? 255)));
    expect(Math.max(...differences)).toBeLessThanOrEqual(2);
    expect(Math.max(...kept.pixels)).toBeGreaterThan(150);
  });

  it('normalises, crops, inverts and orders colours as asked', async () => {
    const seen: InferRequestMessage[] = [];
    const endpoint = await host([{ name: 'rgb', datatype: 'FP32', shape: [1, 2, 2, 3] }], seen);
    const path = join(folder, 'red.jpg');
    await sharp({ create: { width: 8, height: 8, channels: 3, background: '#ff0000' } })
      .jpeg({ quality: 100 })
      .toFile(path);
    const said = await run([
      'infer',
      'm',
      '--endpoint',
      endpoint,
      '--input',
      `rgb=${path}`,
      '--fit',
      'cover',
      '--bgr',
      '--invert',
      '--mean',
      '0.5',
      '--std',
      '0.5,1,2',
      '--json',
    ]);
    expect(said.code).toBe(0);
    const values = [...new Float32Array(Uint8Array.from(seen[0]?.inputs[0]?.data ?? []).buffer)];
    // Inverted red is cyan; blue first: (1 - 0.5) / 0.5, (1 - 0.5) / 1, (0 - 0.5) / 2.
    for (const [index, wanted] of [1, 0.5, -0.25].entries()) expect(values[index]).toBeCloseTo(wanted, 1);
  });

  it('takes JSON, adds the batch dimension, and prints values and JSON', async () => {
    const endpoint = await host([
      { name: 'a', datatype: 'INT32', shape: [-1, 3] },
      { name: 'b', datatype: 'FP32', shape: [2] },
      { name: 'w', datatype: 'BYTES', shape: [-1, 1] },
      { name: 'n', datatype: 'INT64', shape: [1] },
    ]);
    writeFileSync(join(folder, 'b.json'), '[0.5, 1e-9]');
    const args = [
      'infer',
      'm',
      '--endpoint',
      endpoint,
      '--input',
      'a=[1,2,3]',
      '--input',
      `b=${join(folder, 'b.json')}`,
      '--input',
      'w=hello',
      '--input',
      'n=7',
    ];
    const { code, out } = await run(args);
    expect(code).toBe(0);
    expect(out).toContain('a  INT32 [1,3]\n  1 2 3\n');
    expect(out).toContain('b  FP32 [2]\n  0.5 1e-9\n');
    expect(out).toContain('w  BYTES [1,1]\n  "hello"\n');
    expect(JSON.parse((await run([...args, '--json'])).out)).toMatchObject({
      model: 'm',
      version: '1',
      outputs: [
        { name: 'a', datatype: 'INT32', shape: [1, 3], data: [1, 2, 3] },
        {},
        { data: ['hello'] },
        { data: [7] },
      ],
      receipt: { device: 'cpu:0', batchItems: 2 },
    });
  });

  it('takes raw bytes of the right size, and random values for the rest', async () => {
    const seen: InferRequestMessage[] = [];
    const endpoint = await host([{ name: 'x', datatype: 'INT16', shape: [-1, 2] }, image], seen);
    writeFileSync(join(folder, 'x.bin'), Buffer.from([1, 0, 2, 0]));
    const args = [
      'infer',
      'm',
      '--endpoint',
      endpoint,
      '--input',
      `x=${join(folder, 'x.bin')}`,
      '--random',
      '--shape',
      'image=2,1,2,3',
    ];
    expect((await run(args)).code).toBe(0);
    expect(seen[0]?.inputs.map(({ shape }) => shape)).toEqual([
      [1, 2],
      [2, 1, 2, 3],
    ]);
    writeFileSync(join(folder, 'x.bin'), Buffer.from([1, 0, 2]));
    const { code, err } = await run(args);
    expect(code).toBe(1);
    expect(err).toContain('x.bin has 3 bytes; INT16 of shape [1,2] takes 4');
  });

  it.each([
    [['--input', 'nothing=1'], 1, "model 'm' has no input 'nothing'; it has image"],
    [[], 2, "no input is given; model 'm' takes image (FP32 [-1,1,2,3]): use --input name=value, or --random"],
    [['--input', 'image=nowhere.png'], 2, 'nowhere.png cannot be read'],
    [['--input', 'image={"x":1}'], 2, 'must hold numbers, texts or lists'],
    [['--input', 'image=what'], 2, 'is no JSON'],
    [['--input', 'image'], 2, 'It must be written name=value.'],
    [['--input', 'image=[1,2]'], 1, "input 'image'"],
    [['--timeout-ms', 'soon'], 2, 'It must be a number above 0.'],
  ])('says what is wrong with %j', async (args, code, message) => {
    const endpoint = await host([image]);
    const said = await run(['infer', 'm', '--endpoint', endpoint, ...args]);
    expect([said.code, said.err]).toEqual([code, expect.stringContaining(message)]);
  });

  it('says what is no picture', async () => {
    const endpoint = await host([image]);
    writeFileSync(join(folder, 'fake.png'), 'not a picture');
    const { code, err } = await run([
      'infer',
      'm',
      '--endpoint',
      endpoint,
      '--input',
      `image=${join(folder, 'fake.png')}`,
    ]);
    expect(code).toBe(1);
    expect(err).toMatch(/fake\.png cannot be decoded: .*unsupported image format/);
  });

  it('says where nobody listens, and for a model nobody knows where to look', async () => {
    const endpoint = await host([image]);
    expect((await run(['infer', 'x', '--endpoint', endpoint, '--random'])).err).toBe(
      "error: Request for unknown model: 'x' is not found; see `intarsia models list`\n",
    );
    const { code, err } = await run(['infer', 'm', '--endpoint', '127.0.0.1:1', '--random', '--timeout-ms', '2000']);
    expect(code).toBe(1);
    expect(err).toMatch(
      /endpoint 127\.0\.0\.1:1 cannot be reached: .*; is a host serving there\? Start one with `intarsia start`/,
    );
  });
});

describe('intarsia models', () => {
  it('lists, inspects, loads and unloads', async () => {
    const endpoint = await host([image]);
    const at = ['--endpoint', endpoint];
    expect((await run(['models', 'list', ...at])).out).toMatch(/m +1 +READY/);
    expect(JSON.parse((await run(['models', 'list', '--json', ...at])).out)).toEqual([
      { name: 'm', version: '1', state: 'READY', reason: '' },
    ]);
    const inspected = await run(['models', 'inspect', 'm', ...at]);
    expect(inspected.out).toMatch(/input +image +FP32 +\[-1,1,2,3\]/);
    expect(inspected.out).toMatch(/m +1 +20 +0 +30 +3\.0 +1\.000/);
    expect((await run(['models', 'load', 'm', ...at])).out).toMatch(/^loaded m in /);
    const unload = await run(['models', 'unload', 'm', ...at]);
    expect([unload.code, unload.err]).toEqual([1, 'error: model control is not explicit\n']);
  });
});

describe('intarsia status', () => {
  it('shows a host once, or again and again as differences', async () => {
    const endpoint = await host([image]);
    const once = await run(['status', '--endpoint', endpoint]);
    expect(once.code).toBe(0);
    expect(once.out).toContain(`pretend 3 at ${endpoint}: ready`);
    const watched = await run([
      'status',
      '--endpoint',
      endpoint,
      '--watch',
      '--interval-s',
      '0.01',
      '--looks',
      '3',
      '--json',
    ]);
    const looks = watched.out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { since?: { inferenceCount: number }[] });
    expect(looks).toHaveLength(3);
    expect(looks[0]?.since).toBeUndefined();
    expect(looks[2]?.since?.[0]?.inferenceCount).toBe(0);
  });
});

describe('intarsia bench serve', () => {
  it.each(['grpc'] as const)('drives a host over %s and reports what came of it', async (protocol) => {
    const endpoint = await host([image]);
    const args = [
      'bench',
      'serve',
      '--model',
      'm',
      '--endpoint',
      endpoint,
      '--protocol',
      protocol,
      '--concurrency',
      '4',
      '--seconds',
      '30',
      '--warm-up-seconds',
      '0.05',
      '--requests',
      '300',
      '--deadline-ms',
      '10000',
      '--batch',
      '2',
    ];
    const { code, out } = await run([...args, '--json']);
    expect(code).toBe(0);
    const report = JSON.parse(out) as Record<string, unknown>;
    expect(report).toMatchObject({
      model: 'm',
      protocol,
      arrivals: 'closed loop, 4 in flight',
      failed: 0,
      errors: {},
      goodput: { share: 1 },
      server: { itemsPerBatch: 0, batches: 0 },
      receipts: { itemsPerBatch: 2, devices: { 'cpu:0': expect.any(Number) as number } },
    });
    expect(report['requests']).toBeGreaterThanOrEqual(300);
    expect(report['itemsPerSecond']).toBeCloseTo((report['requestsPerSecond'] as number) * 2);
    const table = await run([...args, '--rate', '2000', '--requests', '100']);
    expect(table.out).toContain('open loop, Poisson, 2000 requests/s');
    expect(table.out).toMatch(/latency +[\d.]+ +[\d.]+/);
    expect(table.out).toMatch(/sent late by/);
    expect(table.out).toMatch(/within 10000 ms \(goodput\)/);
  });

  it('refuses what contradicts itself', async () => {
    const endpoint = await host([image]);
    const base = ['bench', 'serve', '--model', 'm', '--endpoint', endpoint];
    expect((await run([...base, '--rate', '1', '--trace', 'x.csv'])).err).toContain('give one of them');
    expect((await run([...base, '--trace', 'nowhere.csv'])).err).toContain('--trace: nowhere.csv cannot be read');
    expect((await run([...base, '--concurrency', '0'])).err).toContain('concurrency must be a whole number from 1');
    expect((await run(['bench', 'serve'])).err).toContain("required option '--model <name>' not specified");
  });
});
