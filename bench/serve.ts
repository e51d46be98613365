/**
 * The price of serving: the host against what it stands on and against what a user would write instead, each pair driven
 * by the same load process in turns in the same run, so that the ratio survives a noisy machine.
 */
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '#compose/package-root.js';
import { encodeInferRequest } from '#core/inference-wire.js';
import { noParameters } from '#core/inference-message.js';
import type { Tensor } from '#core/tensor.js';
import { runChild, startChild, type BenchChild } from './child.js';
import { h2load, hasH2load, type H2loadResult } from './h2load.js';
import { answerBytes, load, type BenchLoad } from './load.js';
import { ensureModel } from './models/ensure-model.js';
import {
  benchReport,
  benchRow,
  chosenParts,
  median,
  type BenchOptions,
  type BenchReport,
  type BenchRow,
  type BenchTarget,
} from './report.js';

const inferPath = '/inference.GRPCInferenceService/ModelInfer';
const streamPath = '/inference.GRPCInferenceService/ModelStreamInfer';
const benchModelFolder = join(packageRoot, '.cache/bench-models');

interface Sizes {
  readonly rounds: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
}

/** What a part is given. The host serves the small models, started when it is first asked for. */
interface Scene {
  readonly sizes: Sizes;
  readonly notes: string[];
  readonly host: () => Promise<BenchChild>;
}

const parts: readonly { readonly name: string; readonly run: (scene: Scene) => Promise<readonly BenchRow[]> }[] = [
  { name: 'small', run: smallRequests },
  { name: 'rest', run: binaryRest },
  { name: 'large', run: largeTensors },
  { name: 'resnet', run: saturatedResnet },
  { name: 'batching', run: batchingGain },
  { name: 'beside', run: besideLargeModel },
];
/** Those that follow each other at the beginning and share the host. */
const partsOfHost = new Set(['small', 'rest', 'large']);

export async function run(options: BenchOptions): Promise<BenchReport> {
  const sizes: Sizes = options.quick
    ? { rounds: 1, seconds: 1, warmUpSeconds: 1 }
    : { rounds: 3, seconds: 3, warmUpSeconds: 1 };
  const notes: string[] = [];
  const rows: BenchRow[] = [];
  const repository = await mkdtemp(join(tmpdir(), 'intarsia-bench-'));
  let host: Promise<BenchChild> | undefined;
  const stopHost = async (): Promise<void> => {
    const running = await host;
    host = undefined;
    await running?.stop();
  };
  try {
    for (const model of ['digits', 'identity']) {
      await cp(join(packageRoot, 'examples/models', model), join(repository, model), { recursive: true });
    }
    const start = (): Promise<BenchChild> => startChild('bench/serve-host-main.js', ['--repository', repository]);
    for (const part of chosenParts(parts, options)) {
      if (!partsOfHost.has(part.name)) await stopHost();
      rows.push(...(await part.run({ sizes, notes, host: () => (host ??= start()) })));
    }
    return benchReport('serve', options, rows, notes);
  } finally {
    await stopHost();
    await rm(repository, { recursive: true, force: true });
  }
}

/** ModelInfer of the digit model against a bare grpc-js echo of the same message sizes. */
async function smallRequests({ host: hostOf, sizes, notes }: Scene): Promise<BenchRow[]> {
  const host = await hostOf();
  const port = Number(host.ready['grpc']);
  const base = { protocol: 'grpc' as const, model: 'digits', input: digit(), ...window(sizes) };
  const reply = await answerBytes({ ...base, port, arrivals: closed(1) });
  return withChildren(
    [startChild('bench/baselines/grpc-echo-main.js', ['--reply-bytes', String(reply)])],
    async ([echo]) => {
      const echoPort = Number(echo.ready['port']);
      const rows: BenchRow[] = [];
      const many = await inTurns(sizes, {
        ours: () => load({ ...base, port, arrivals: closed(64) }),
        theirs: () => load({ ...base, port: echoPort, arrivals: closed(64) }),
      });
      rows.push(
        ...compared({
          key: 'serve.grpc.64',
          theirs: 'echo',
          turns: many,
          of: (r) => r.requestsPerSecond,
          unit: 'requests/s',
          target: { kind: 'at-least', value: 0.7 },
          labels: {
            ours: 'digits, gRPC, 64 in flight: host',
            theirs: 'bare grpc-js echo, 64 in flight',
            ratio: 'host ÷ echo, 64 in flight',
          },
        }),
      );
      // V8 compiles the load generator for good after some ten thousand requests, which take it longer here than anywhere else.
      const alone = { ...base, arrivals: closed(1), warmUpSeconds: 4 * sizes.warmUpSeconds };
      const one = await inTurns(sizes, {
        ours: () => load({ ...alone, port }),
        theirs: () => load({ ...alone, port: echoPort }),
      });
      rows.push(
        ...compared({
          key: 'serve.grpc.1',
          theirs: 'echo',
          turns: one,
          of: (r) => r.latencyMs.p50,
          unit: 'ms',
          target: { kind: 'at-most', value: 2.5 },
          labels: {
            ours: 'digits, gRPC, 1 in flight: p50, host',
            theirs: 'bare grpc-js echo, 1 in flight: p50',
            ratio: 'host ÷ echo, p50, 1 in flight',
          },
        }),
      );
      if (!hasH2load()) {
        notes.push('h2load is not installed (Debian: nghttp2-client): the rows of the server alone are left out');
        return rows;
      }
      const drive = (target: number): Promise<{ readonly requestsPerSecond: number }> =>
        h2load({
          port: target,
          path: inferPath,
          message: grpcMessage('digits', digit()),
          connections: 4,
          streams: 64,
          ...window(sizes),
        });
      const driven = await inTurns(sizes, { ours: () => drive(port), theirs: () => drive(echoPort) });
      rows.push(
        ...compared({
          key: 'serve.h2load',
          theirs: 'echo',
          turns: driven,
          of: (r) => r.requestsPerSecond,
          unit: 'requests/s',
          target: { kind: 'at-least', value: 0.5 },
          labels: {
            ours: 'digits, h2load 4 × 64: host',
            theirs: 'bare grpc-js echo, h2load 4 × 64',
            ratio: 'host ÷ echo, h2load',
          },
        }),
      );
      return rows;
    },
  );
}

/** REST with binary tensors against a bare fastify server that runs the same model in its own process. */
async function binaryRest({ host: hostOf, sizes }: Scene): Promise<BenchRow[]> {
  const host = await hostOf();
  const base = { model: 'digits', input: digit(), arrivals: closed(64), ...window(sizes) };
  const model = join(packageRoot, 'examples/models/digits/1/model.onnx');
  return withChildren([startFastify(model, '1,1,28,28')], async ([fastify]) => {
    const turns = await inTurns(sizes, {
      ours: () => load({ ...base, protocol: 'rest-binary', port: Number(host.ready['http']) }),
      theirs: () =>
        load({ ...base, protocol: 'rest-binary', port: Number(fastify.ready['port']), raw: { path: '/infer' } }),
    });
    return [
      ...compared({
        key: 'serve.rest.64',
        theirs: 'fastify',
        turns: turns,
        of: (r) => r.requestsPerSecond,
        unit: 'requests/s',
        target: { kind: 'at-least', value: 0.6 },
        labels: {
          ours: 'digits, REST binary, 64 in flight: host',
          theirs: 'bare fastify + onnxruntime-node, binary, 64 in flight',
          ratio: 'host ÷ fastify, REST binary',
        },
      }),
    ];
  });
}

/**
 * 600 KB through an identity model: one by one against a tuned echo, as a stream against raw TCP.
 *
 * Host and gRPC echo are driven by h2load: a client in JavaScript takes 1.2 ms of processor time for such a request and
 * would be what is measured, on both sides. The load of raw TCP stays in JavaScript, where nearly all of its time is the
 * kernel's, and takes less for a message than h2load does. About as many messages are under way on each side of a pair.
 */
async function largeTensors({ host: hostOf, sizes, notes }: Scene): Promise<BenchRow[]> {
  if (!hasH2load()) {
    notes.push('h2load is not installed (Debian: nghttp2-client): the rows of 600 KB tensors are left out');
    return [];
  }
  const host = await hostOf();
  const port = Number(host.ready['grpc']);
  const input: Tensor = {
    name: 'INPUT0',
    datatype: 'FP32',
    shape: [1, 150_528],
    data: new Uint8Array(602_112).fill(1),
  };
  const drive = async (
    to: number,
    how: { path: string; streams: number; messages?: number },
  ): Promise<H2loadResult> => {
    const message = grpcMessage('identity', input);
    const result = await h2load({ port: to, message, connections: 1, ...how, ...window(sizes) });
    if (result.answerBytes < input.data.byteLength) {
      throw new Error(`answers have ${result.answerBytes} bytes: an error was answered`);
    }
    return result;
  };
  const unaryCall = { path: inferPath, streams: 8 };
  const streamCall = { path: streamPath, streams: 2, messages: 8 };
  return withChildren(
    [startChild('bench/baselines/grpc-echo-main.js', []), startChild('bench/baselines/tcp-echo-main.js', [])],
    async ([echo, tcp]) => {
      const unary = await inTurns(sizes, {
        ours: () => drive(port, unaryCall),
        theirs: () => drive(Number(echo.ready['port']), unaryCall),
      });
      const stream = await inTurns(sizes, {
        ours: () => drive(port, streamCall),
        theirs: async () => {
          const { messagesPerSecond } = await runChild('bench/baselines/tcp-load-main.js', [
            '--port',
            String(tcp.ready['port']),
            '--bytes',
            String(input.data.byteLength),
            '--seconds',
            String(sizes.seconds),
          ]);
          return { requestsPerSecond: Number(messagesPerSecond) };
        },
      });
      return [
        ...compared({
          key: 'serve.large.unary',
          theirs: 'echo',
          turns: unary,
          of: (r) => r.requestsPerSecond,
          unit: 'requests/s',
          target: { kind: 'at-least', value: 0.6 },
          labels: {
            ours: '600 KB identity, ModelInfer: host',
            theirs: '600 KB, tuned grpc-js echo',
            ratio: 'host ÷ echo, 600 KB',
          },
        }),
        ...compared({
          key: 'serve.large.stream',
          theirs: 'tcp',
          turns: stream,
          of: (r) => r.requestsPerSecond,
          unit: 'requests/s',
          target: { kind: 'at-least', value: 0.4 },
          labels: {
            ours: '600 KB identity, ModelStreamInfer: host',
            theirs: '600 KB, raw TCP echo',
            ratio: 'host ÷ TCP, 600 KB',
          },
        }),
      ];
    },
  );
}

/** ResNet-50 on the CPU, saturated, against a bare loop with the same threads and batch. */
async function saturatedResnet({ sizes }: Scene): Promise<BenchRow[]> {
  const { path } = await ensureModel('resnet50', benchModelFolder);
  const batch = 4;
  const input = image(batch);
  const rows: BenchRow[] = [];
  for (const threads of new Set([1, availableParallelism()])) {
    await withChildren([startBenchHost(['resnet50'], threads)], async ([host]) => {
      const turns = await inTurns(sizes, {
        ours: async () => {
          const report = await load({
            protocol: 'grpc',
            port: Number(host.ready['grpc']),
            model: 'resnet50',
            input,
            arrivals: closed(4),
            seconds: sizes.seconds * 2,
            warmUpSeconds: sizes.warmUpSeconds,
          });
          return { itemsPerSecond: report.itemsPerSecond };
        },
        theirs: async () => {
          const loop = await runChild('bench/baselines/ort-loop-main.js', [
            '--model',
            path,
            '--shape',
            input.shape.join(),
            '--threads',
            String(threads),
            '--seconds',
            String(sizes.seconds * 2),
          ]);
          return { itemsPerSecond: Number(loop['itemsPerSecond']) };
        },
      });
      const name = `${threads} thread${threads === 1 ? '' : 's'}`;
      rows.push(
        ...compared({
          key: `serve.resnet.${threads}`,
          theirs: 'loop',
          turns,
          of: (r) => r.itemsPerSecond,
          unit: 'images/s',
          target: { kind: 'at-least', value: 0.95 },
          labels: {
            ours: `ResNet-50, batch ${batch}, ${name}: host`,
            theirs: `ResNet-50, batch ${batch}, ${name}: bare loop`,
            ratio: `host ÷ bare loop, ${name}`,
          },
        }),
      );
    });
  }
  return rows;
}

/** A model of more than a millisecond that gains from batches: the host batches, a bare server does not. */
async function batchingGain({ sizes }: Scene): Promise<BenchRow[]> {
  const { path } = await ensureModel('mlp', benchModelFolder);
  const input = values();
  const base = { model: 'mlp', input, arrivals: closed(32), ...window(sizes) };
  return withChildren([startBenchHost(['mlp'], 0), startFastify(path, input.shape.join())], async ([host, fastify]) => {
    const turns = await inTurns(sizes, {
      ours: () => load({ ...base, protocol: 'rest-binary', port: Number(host.ready['http']) }),
      theirs: () =>
        load({ ...base, protocol: 'rest-binary', port: Number(fastify.ready['port']), raw: { path: '/infer' } }),
    });
    return [
      ...compared({
        key: 'serve.batching',
        theirs: 'fastify',
        turns: turns,
        of: (r) => r.requestsPerSecond,
        unit: 'requests/s',
        target: { kind: 'at-least', value: 1 },
        labels: {
          ours: 'MLP of 1 ms, 32 in flight: host',
          theirs: 'MLP of 1 ms, 32 in flight: bare fastify',
          ratio: 'host ÷ fastify, with batching',
        },
      }),
    ];
  });
}

/** Tail latency of small requests while a large model keeps the device busy. */
async function besideLargeModel({ sizes }: Scene): Promise<BenchRow[]> {
  const { path } = await ensureModel('resnet50', benchModelFolder);
  const digits = join(packageRoot, 'examples/models/digits/1/model.onnx');
  const small = { model: 'digits', input: digit(), arrivals: { kind: 'poisson', ratePerSecond: 50 } as const };
  const large = { model: 'resnet50', input: image(1), arrivals: closed(2) };
  const both = async (ports: { readonly port: number; readonly raw: boolean }): Promise<{ readonly p99: number }> => {
    const common = { protocol: 'rest-binary' as const, port: ports.port };
    const [answered] = await Promise.all([
      load({ ...common, ...small, ...window(sizes), ...(ports.raw ? { raw: { path: '/infer' } } : {}) }),
      load({
        ...common,
        ...large,
        ...window(sizes),
        ...(ports.raw ? { raw: { path: '/second' } } : {}),
      }),
    ]);
    return { p99: answered.latencyMs.p99 };
  };
  return withChildren(
    [
      startBenchHost(['resnet50', 'digits'], 0),
      startFastify(digits, '1,1,28,28', ['--second-model', path, '--second-shape', '1,3,224,224']),
    ],
    async ([host, fastify]) => {
      const turns = await inTurns(sizes, {
        ours: () => both({ port: Number(host.ready['http']), raw: false }),
        theirs: () => both({ port: Number(fastify.ready['port']), raw: true }),
      });
      return [
        ...compared({
          key: 'serve.beside',
          theirs: 'fastify',
          turns: turns,
          of: (r) => r.p99,
          unit: 'ms',
          target: { kind: 'at-most', value: 1 },
          labels: {
            ours: 'digits beside a busy ResNet-50, p99: host',
            theirs: 'digits beside a busy ResNet-50, p99: bare fastify',
            ratio: 'host ÷ fastify, p99 beside a large model',
          },
        }),
      ];
    },
  );
}

// Servers

function startBenchHost(models: readonly string[], threads: number): Promise<BenchChild> {
  return startChild('bench/serve-host-main.js', [
    ...['--repository', benchModelFolder, '--repository', join(packageRoot, 'examples/models')],
    ...models.flatMap((model) => ['--models', model]),
    ...['--threads', String(threads)],
  ]);
}

function startFastify(model: string, shape: string, more: readonly string[] = []): Promise<BenchChild> {
  return startChild('bench/baselines/fastify-onnx-main.js', ['--model', model, '--shape', shape, ...more]);
}

/** Starts all, runs, stops all, whatever happens. */
async function withChildren<Result>(
  starting: readonly Promise<BenchChild>[],
  work: (children: readonly [BenchChild, BenchChild]) => Promise<Result>,
): Promise<Result> {
  const children = await Promise.all(starting);
  try {
    return await work(children as unknown as readonly [BenchChild, BenchChild]);
  } finally {
    await Promise.all(children.map((child) => child.stop()));
  }
}

// Requests

const digit = (): Tensor => floats('image', [1, 1, 28, 28]);
const image = (batch: number): Tensor => floats('image', [batch, 3, 224, 224]);
const values = (): Tensor => floats('values', [1, 1024]);

function floats(name: string, shape: readonly number[]): Tensor {
  const values = new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(0.5);
  return { name, datatype: 'FP32', shape, data: new Uint8Array(values.buffer) };
}

function grpcMessage(modelName: string, tensor: Tensor): Uint8Array {
  return encodeInferRequest({
    modelName,
    modelVersion: '',
    id: '',
    parameters: noParameters,
    inputs: [{ ...tensor, parameters: noParameters }],
    outputs: [],
    rawContents: true,
  }).toBytes();
}

const closed = (concurrency: number): BenchLoad['arrivals'] => ({ kind: 'closed', concurrency });
const window = (sizes: Sizes): { readonly seconds: number; readonly warmUpSeconds: number } => ({
  seconds: sizes.seconds,
  warmUpSeconds: sizes.warmUpSeconds,
});

// Figures

interface Turns<Ours, Theirs> {
  readonly ours: readonly Ours[];
  readonly theirs: readonly Theirs[];
}

/** One after the other, again and again: a machine that slows down slows both. */
async function inTurns<Ours, Theirs>(
  sizes: Sizes,
  sides: { readonly ours: () => Promise<Ours>; readonly theirs: () => Promise<Theirs> },
): Promise<Turns<Ours, Theirs>> {
  const ours: Ours[] = [];
  const theirs: Theirs[] = [];
  for (let round = 0; round < sizes.rounds; round += 1) {
    theirs.push(await sides.theirs());
    ours.push(await sides.ours());
  }
  return { ours, theirs };
}

interface Comparison<Figure> {
  /** Rows are `key.host`, `key.theirs` and `key.ratio`. */
  readonly key: string;
  readonly theirs: string;
  readonly turns: Turns<Figure, Figure>;
  readonly of: (figure: Figure) => number;
  readonly unit: string;
  readonly target: BenchTarget;
  readonly labels: { readonly ours: string; readonly theirs: string; readonly ratio: string };
}

/** The host's median, the other's, and the median over the rounds of host ÷ other. */
function compared<Figure>({ key, theirs, turns, of, unit, target, labels }: Comparison<Figure>): BenchRow[] {
  const ratios = turns.ours.map((figure, round) => of(figure) / of(turns.theirs[round] as Figure));
  return [
    benchRow({ key: `${key}.host`, label: labels.ours, value: median(turns.ours.map(of)), unit }),
    benchRow({ key: `${key}.${theirs}`, label: labels.theirs, value: median(turns.theirs.map(of)), unit }),
    benchRow({ key: `${key}.ratio`, label: labels.ratio, value: median(ratios), unit: 'x', target }),
  ];
}
