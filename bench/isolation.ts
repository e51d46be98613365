/**
 * What it costs to run a model in a process of its own rather than in a thread of the host: the same models, batches and
 * numbers in flight through both executors, in turn, several times; ratios of the best, other figures the median.
 *
 * Goals: the ratio process to thread, which decides the default (a process unless it costs more than 5 % on the digit
 * model or ResNet-50), the round trip of a 600 KB tensor, and how busy the host's own event loop is. Two runs are in
 * flight where a device would have two permits. Non-goals: batching, protocols, absolute figures of this machine.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance, type EventLoopUtilization } from 'node:perf_hooks';
import { startThreadExecutor } from '#adapters/piscina/thread-executor.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { artifactDigest, sessionId, type SessionId } from '#core/ids.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { tensorBytes } from '#core/tensor.js';
import type { Executor, RunRequest } from '#ports/executor.js';
import { ensureModel } from './models/ensure-model.js';
import { benchReport, benchRow, median, type BenchOptions, type BenchReport, type BenchRow } from './report.js';

const modelsFolder = '.cache/bench-models';
const floatsOf600KB = 150_000;

interface Case {
  readonly key: string;
  readonly label: string;
  readonly path: string;
  /** Size of the first dimension of each input. */
  readonly batch: number;
  readonly inFlight: number;
  readonly runs: number;
  readonly threads: number;
  /** Decides the default: at least 0.95 of the thread's speed. */
  readonly decides?: boolean;
}

interface Measured {
  readonly runsPerSecond: number;
  readonly p50Us: number;
  /** Time the host's event loop was busy, microseconds a run. */
  readonly hostUs: number;
}

export async function run(options: BenchOptions): Promise<BenchReport> {
  const folder = await mkdtemp(join(tmpdir(), 'intarsia-isolation-'));
  const executors: readonly (readonly [string, Executor])[] = [
    ['thread', await startThreadExecutor({ provider: 'cpu' })],
    ['process', await startProcessExecutor({ provider: 'cpu' })],
  ];
  try {
    const identity = join(folder, 'identity.onnx');
    await writeFile(identity, identityModel());
    const cases = casesOf({ identity, resnet: options.quick ? undefined : await resnetPath() }, options);
    const rows: BenchRow[] = [];
    for (const each of cases) rows.push(...(await compare(each, executors, options.quick ? 3 : 7)));
    return benchReport('isolation', options, rows, [
      'Ratios are process to thread: above 1 the process is faster. Host time is that of its event loop, not of its threads.',
    ]);
  } finally {
    for (const [, executor] of executors) await executor.close({ graceMs: 30_000 });
    await rm(folder, { recursive: true, force: true });
  }
}

async function resnetPath(): Promise<string> {
  return (await ensureModel('resnet50', modelsFolder)).path;
}

function casesOf(
  paths: { readonly identity: string; readonly resnet: string | undefined },
  options: BenchOptions,
): readonly Case[] {
  const digits = 'examples/models/digits/1/model.onnx';
  const few = (runs: number): number => (options.quick ? Math.ceil(runs / 50) : runs);
  const digit = (batch: number, inFlight: number, runs: number, decides = false): Case => ({
    key: `digits.batch-${batch}.in-flight-${inFlight}`,
    label: `digits, batch ${batch}, ${inFlight} in flight`,
    path: digits,
    batch,
    inFlight,
    runs: few(runs),
    threads: 1,
    decides,
  });
  const identity = (inFlight: number): Case => ({
    key: `identity-600KB.in-flight-${inFlight}`,
    label: `identity of 600 KB, ${inFlight} in flight`,
    path: paths.identity,
    batch: floatsOf600KB,
    inFlight,
    runs: few(2_000),
    threads: 1,
  });
  const cases = [digit(1, 1, 3_000), digit(1, 2, 6_000), digit(16, 1, 2_000), digit(16, 2, 4_000, true)];
  cases.push(digit(64, 2, 1_500), identity(1), identity(2));
  if (paths.resnet !== undefined) {
    cases.push({
      key: 'resnet50.batch-1.in-flight-2',
      label: 'ResNet-50, batch 1, 2 in flight',
      path: paths.resnet,
      batch: 1,
      inFlight: 2,
      runs: 40,
      threads: availableParallelism(),
      decides: true,
    });
  }
  return cases;
}

async function compare(
  each: Case,
  executors: readonly (readonly [string, Executor])[],
  repetitions: number,
): Promise<readonly BenchRow[]> {
  const results = new Map<string, Measured[]>();
  const requests = new Map<string, RunRequest>();
  const session = sessionId(each.key);
  for (const [name, executor] of executors) {
    results.set(name, []);
    requests.set(name, await prepare(executor, session, each));
  }
  for (let repetition = 0; repetition < repetitions; repetition += 1) {
    for (const [name, executor] of executors) {
      results.get(name)?.push(await measure(executor, requests.get(name) as RunRequest, each));
    }
  }
  for (const [, executor] of executors) await executor.unload(session);

  const middle = (name: string, figure: keyof Measured): number =>
    median((results.get(name) ?? []).map((measured) => measured[figure]));
  // What disturbs a measurement only slows it down: the ratio is that of the best of each.
  const best = (name: string): number =>
    Math.max(...(results.get(name) ?? []).map((measured) => measured.runsPerSecond));
  return [
    benchRow({
      key: `isolation.${each.key}.ratio`,
      label: `${each.label}: process to thread`,
      value: best('process') / best('thread'),
      unit: 'x',
      ...(each.decides === true ? { target: { kind: 'at-least' as const, value: 0.95 } } : {}),
    }),
    ...executors.flatMap(([name]) => [
      benchRow({
        key: `isolation.${each.key}.${name}.runs-per-second`,
        label: `${each.label}: ${name}`,
        value: middle(name, 'runsPerSecond'),
        unit: 'runs/s',
      }),
      benchRow({
        key: `isolation.${each.key}.${name}.p50-us`,
        label: `${each.label}: ${name}, p50`,
        value: middle(name, 'p50Us'),
        unit: 'µs',
      }),
      benchRow({
        key: `isolation.${each.key}.${name}.host-us`,
        label: `${each.label}: ${name}, host's event loop`,
        value: middle(name, 'hostUs'),
        unit: 'µs/run',
      }),
    ]),
  ];
}

/** Loads the model and makes the request that is repeated: halves, one chunk an item of the batch. */
async function prepare(executor: Executor, session: SessionId, each: Case): Promise<RunRequest> {
  const { inputs } = await executor.load({
    session,
    artifact: { digest: artifactDigest('0'.repeat(64)), path: each.path },
    model: { name: each.key, version: '1' },
    options: { intraOpThreads: each.threads, optimization: 'all' },
  });
  const request: RunRequest = {
    session,
    outputs: [],
    inputs: inputs.map((spec) => {
      const item = spec.shape.slice(1).map((size) => Math.max(1, size));
      const isRow = item.length === 0;
      const chunk = new Uint8Array(
        new Float32Array((tensorBytes('FP32', isRow ? [each.batch] : item) ?? 0) / 4).fill(0.5).buffer,
      );
      return {
        name: spec.name,
        datatype: spec.datatype,
        shape: [each.batch, ...item],
        chunks: isRow ? [chunk] : Array.from({ length: each.batch }, () => chunk),
      };
    }),
  };
  for (let warmUp = 0; warmUp < Math.min(200, each.runs); warmUp += 1) await executor.run(request);
  return request;
}

async function measure(executor: Executor, request: RunRequest, each: Case): Promise<Measured> {
  const latencies: number[] = [];
  let started = 0;
  const loop: EventLoopUtilization = performance.eventLoopUtilization();
  const beganMs = performance.now();
  await Promise.all(
    Array.from({ length: each.inFlight }, async () => {
      while (started < each.runs) {
        started += 1;
        const sentMs = performance.now();
        await executor.run(request);
        latencies.push(performance.now() - sentMs);
      }
    }),
  );
  const seconds = (performance.now() - beganMs) / 1000;
  return {
    runsPerSecond: each.runs / seconds,
    p50Us: median(latencies) * 1000,
    hostUs: (performance.eventLoopUtilization(loop).active * 1000) / each.runs,
  };
}

function identityModel(): Uint8Array {
  const graph = new GraphBuilder('identity');
  const x = graph.input('x', 'FP32', ['n']);
  graph.output(graph.node('Identity', [x]), 'FP32', ['n'], 'y');
  return encodeModelBytes(graph.model({ opset: 17 }));
}
