/**
 * One model in pieces, and one batch over several devices: what the stages cost beside the whole model, what two devices
 * give beside bare ONNX Runtime loops that run at the same time, how near the planner's prediction comes, what a hop
 * costs, what memory executors take, and what the loss of a host costs a pipeline over hosts.
 *
 * Latencies are compared request by request in turns, rates in rounds. Every part has its own time limit; one that fails
 * is named in the notes and the others go on. What a late part has started is ended, so that it does not disturb the next.
 */
import { readFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { NodeClock } from '#adapters/node/clock.js';
import { othersShare, processorTimes } from '#adapters/hardware/processor-times.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { discoverHere } from '#compose/discover-here.js';
import { packageRoot } from '#compose/package-root.js';
import { planModel } from '#compose/split/plan-model.js';
import { IntarsiaError, messageOf } from '#core/errors.js';
import type { Tensor } from '#core/tensor.js';
import { MiB } from '#core/units.js';
import { treePids } from './memory.js';
import { ensureModel } from './models/ensure-model.js';
import {
  benchReport,
  benchRow,
  chosenParts,
  median,
  type BenchOptions,
  type BenchReport,
  type BenchRow,
} from './report.js';
import { SplitHost, type BenchDevice } from './split-host.js';
import { acrossHosts } from './split-grid.js';
import { floats, hopStages, images, tokens, writeHops, writeLarge } from './split-models.js';
import { rawLoops } from './split-raw.js';

const modelsFolder = join(packageRoot, '.cache/bench-models');
const cpu = (index: number, threads: number): BenchDevice => ({ id: `cpu:${index}`, provider: 'cpu', threads });

interface Part {
  readonly name: string;
  /** Seconds it may take. */
  readonly secondsMax: number;
  readonly run: (scene: Scene) => Promise<readonly BenchRow[]>;
}

interface Scene {
  readonly quick: boolean;
  /** A repository of models that are made here. */
  readonly repository: string;
  readonly notes: string[];
  /** Aborted when the part is late. */
  readonly late: AbortSignal;
}

const parts: readonly Part[] = [
  { name: 'resnet', secondsMax: 60, run: (scene) => overhead(scene, resnetOverhead) },
  { name: 'bert', secondsMax: 90, run: (scene) => overhead(scene, bertOverhead) },
  { name: 'pipeline', secondsMax: 90, run: pipelineGain },
  { name: 'data', secondsMax: 90, run: dataGain },
  { name: 'hops', secondsMax: 40, run: hops },
  { name: 'reach', secondsMax: 60, run: reach },
  { name: 'hosts', secondsMax: 120, run: acrossHosts },
];

export async function run(options: BenchOptions): Promise<BenchReport> {
  const repository = await mkdtemp(join(tmpdir(), 'intarsia-split-models-'));
  const notes: string[] = [];
  const rows: BenchRow[] = [];
  try {
    const took: string[] = [];
    for (const { name, secondsMax, run: measure } of chosenParts(parts, options)) {
      const startMs = performance.now();
      try {
        const scene = { quick: options.quick, repository, notes };
        rows.push(...(await within(secondsMax, name, (late) => measure({ ...scene, late }))));
      } catch (error) {
        notes.push(`${name}: not measured: ${messageOf(error)}`);
      }
      took.push(`${name} ${Math.round((performance.now() - startMs) / 1000)} s`);
    }
    notes.push(`took: ${took.join(', ')}`);
    return benchReport('split', options, rows, notes);
  } finally {
    await rm(repository, { recursive: true, force: true });
  }
}

/** Time that late work has to end what it started. */
const endMsMax = 15_000;

async function within<T>(seconds: number, name: string, begin: (late: AbortSignal) => Promise<T>): Promise<T> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Error(`${name} was not done within ${seconds} s`)), seconds * 1000);
  const aborted = new Promise<never>((_, reject) => {
    late.signal.addEventListener('abort', () => reject(late.signal.reason as Error), { once: true });
  });
  const work = begin(late.signal);
  try {
    return await Promise.race([work, aborted]);
  } finally {
    clearTimeout(timer);
    if (late.signal.aborted)
      await Promise.race([work.catch(() => undefined), delay(endMsMax, undefined, { ref: false })]);
  }
}

async function withHost<T>(
  { repository, late }: Pick<Scene, 'repository' | 'late'>,
  devices: readonly BenchDevice[],
  use: (host: SplitHost) => Promise<T>,
): Promise<T> {
  late.throwIfAborted();
  const host = await SplitHost.start(repository, devices);
  const end = (): void => void host.close();
  late.addEventListener('abort', end, { once: true });
  try {
    return await use(host);
  } finally {
    late.removeEventListener('abort', end);
    await host.close();
  }
}

interface OverheadCase {
  readonly kind: 'resnet50' | 'bert_base';
  readonly stages: number;
  readonly atMost: number;
  readonly input: readonly Tensor[];
  readonly pairs: number;
  readonly quickPairs: number;
}

const resnetOverhead: OverheadCase = {
  ...{ kind: 'resnet50', stages: 2, atMost: 1.08, input: images(1), pairs: 40, quickPairs: 10 },
};
const bertOverhead: OverheadCase = {
  ...{ kind: 'bert_base', stages: 4, atMost: 1.1, input: tokens(1), pairs: 20, quickPairs: 4 },
};

/** The whole model and its stages on the same device and threads, a request of each in turns. */
async function overhead({ quick, late }: Scene, each: OverheadCase): Promise<readonly BenchRow[]> {
  const { kind, stages, atMost, input } = each;
  await ensureModel(kind, modelsFolder);
  return withHost({ repository: modelsFolder, late }, [cpu(0, 1)], async (host) => {
    const split = await host.splitOf(kind, stages);
    await host.place(kind, ['cpu:0']);
    const pieces = await host.split(
      kind,
      split,
      split.shards.map(() => 'cpu:0'),
    );
    const times: { readonly whole: number[]; readonly split: number[] } = { whole: [], split: [] };
    for (let pair = -2; pair < (quick ? each.quickPairs : each.pairs); pair += 1) {
      const whole = await timed(() => host.infer(kind, input));
      const piecewise = await timed(() => host.infer(pieces, input));
      if (pair < 0) continue;
      times.whole.push(whole);
      times.split.push(piecewise);
    }
    // Of each pair: what else the machine does meets both.
    const ratio = median(times.split.map((ms, index) => ms / (times.whole[index] ?? NaN)));
    const key = `split.overhead.${kind}`;
    const label = `${kind}, 1 thread`;
    return [
      benchRow({ key: `${key}.whole`, label: `${label}: whole, p50`, value: median(times.whole), unit: 'ms' }),
      benchRow({
        key: `${key}.split`,
        label: `${label}: ${stages} stages, p50`,
        value: median(times.split),
        unit: 'ms',
      }),
      benchRow({
        ...{ key: `${key}.ratio`, label: `${label}: ${stages} stages ÷ whole`, value: ratio, unit: 'x' },
        target: { kind: 'at-most', value: atMost },
      }),
    ];
  });
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}

/** Answers a second, so many requests in flight all the time. */
async function rateOf(infer: () => Promise<unknown>, inFlight: number, seconds: number): Promise<number> {
  const warmUpMs = performance.now() + Math.min(1000, seconds * 200);
  const endMs = warmUpMs + seconds * 1000;
  let first = 0;
  let last = 0;
  let answers = 0;
  const client = async (): Promise<void> => {
    while (performance.now() < endMs) {
      await infer();
      const nowMs = performance.now();
      if (nowMs < warmUpMs || nowMs > endMs) continue;
      // Counted between the first answer and the last: a slow model's window has no part of a request in it.
      if (first === 0) first = nowMs;
      else answers += 1;
      last = nowMs;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, client));
  return (answers * 1000) / (last - first);
}

async function predictedRate(
  model: string,
  devices: readonly string[],
  more: {
    readonly strategy: 'pipeline' | 'data';
    readonly items: number;
    readonly seconds: number;
    readonly notes: string[];
    readonly late: AbortSignal;
    /** Of each device; absent: what the machine has. */
    readonly memoryBytes?: number;
  },
): Promise<{ readonly perSecond: number; readonly cuts: readonly number[] }> {
  const { report: found, profiles } = await discoverHere('');
  // The devices that are measured have one thread each.
  const discovery = { ...found, devices: found.devices.map((device) => ({ ...device, threads: 1 })) };
  const { memoryBytes } = more;
  const limits = memoryBytes === undefined ? [] : devices.map((device): [string, number] => [device, memoryBytes]);
  const report = await planModel(
    {
      ...{ model, devices, goal: 'throughput', items: more.items, strategy: more.strategy, providers: [] },
      ...{ memoryBytes: new Map(limits), measureSeconds: more.seconds, frontierMax: 20 },
      ...{ vectors: '', profilesPath: '', picture: false },
    },
    {
      startExecutor: async ({ provider }) => {
        const executor = await startProcessExecutor({ provider, lanes: 1 });
        more.late.addEventListener('abort', () => void executor.close({ graceMs: 0 }), { once: true });
        return executor;
      },
      ...{ discovery, profiles, clock: new NodeClock(), processorTimes, progress: () => undefined, records: [] },
    },
  );
  for (const note of report.notes) if (note.includes('leave each other')) more.notes.push(`${more.strategy}: ${note}`);
  const rows = [...(report.choice === undefined ? [] : [report.choice]), ...report.frontier];
  const row = rows.find(
    (each) =>
      each.strategy === more.strategy && each.stages.flatMap((stage) => stage.devices).length === devices.length,
  );
  if (row === undefined) throw new Error(`the planner has no ${more.strategy} over ${devices.join(' and ')}`);
  return { perSecond: row.requestsPerSecond.value, cuts: row.cuts };
}

/** Two devices of one thread, a stage of ResNet-50 on each. */
async function pipelineGain({ quick, notes, late }: Scene): Promise<readonly BenchRow[]> {
  const { path } = await ensureModel('resnet50', modelsFolder);
  const [rounds, seconds] = quick ? [1, 3] : [3, 5];
  const plan = await predictedRate(path, ['cpu:0', 'cpu:1'], {
    ...{ strategy: 'pipeline', items: 1, seconds: quick ? 6 : 15, notes, late },
    // Less than its weights: two equal devices would take turns with the whole model otherwise.
    memoryBytes: 90 * MiB,
  });
  return withHost({ repository: modelsFolder, late }, [cpu(0, 1), cpu(1, 1)], async (host) => {
    const split = await host.splitOf('resnet50', plan.cuts, false);
    const files = await host.shardPaths('resnet50', split);
    const model = await host.split('resnet50', split, ['cpu:0', 'cpu:1']);
    // Made once, as the bare loops do.
    const image = images(1);
    const loops = files.map((_, stage) => ({
      ...{ files: files.slice(0, stage + 1), provider: 'cpu' as const, threads: 1, inputs: image },
    }));
    const found = await inRounds(rounds, {
      raw: async () => Math.min(...(await rawLoops(loops, seconds, late))),
      ours: () => rateOf(() => host.infer(model, image), 4, seconds),
    });
    return gainRows('split.gain.pipeline', 'ResNet-50, pipeline of 2 cpu', found, plan.perSecond);
  });
}

/** One batch over a CPU of one thread and WebAssembly. */
async function dataGain({ quick, notes, late }: Scene): Promise<readonly BenchRow[]> {
  const { path } = await ensureModel('resnet50', modelsFolder);
  const [rounds, seconds, items] = quick ? [1, 4, 32] : [2, 5, 64];
  const plan = await predictedRate(path, ['cpu', 'wasm'], {
    ...{ strategy: 'data', items, seconds: quick ? 8 : 20, notes, late },
  });
  const devices: readonly BenchDevice[] = [cpu(0, 1), { id: 'wasm:0', provider: 'wasm', threads: 1 }];
  return withHost({ repository: modelsFolder, late }, devices, async (host) => {
    await host.place('resnet50', ['cpu:0', 'wasm:0'], { intarsia_strategy: 'data' });
    // Speeds are known from here on.
    await host.infer('resnet50', images(8));
    const batch = 4;
    const loop = { files: [path], threads: 1, inputs: images(batch) };
    const found = await inRounds(rounds, {
      raw: async () => {
        const rates = await rawLoops(
          [
            { ...loop, provider: 'cpu' },
            { ...loop, provider: 'wasm' },
          ],
          seconds,
          late,
        );
        return batch * rates.reduce((sum, rate) => sum + rate, 0);
      },
      ours: async () => {
        const ms = await timed(() => host.infer('resnet50', images(items)));
        return (items * 1000) / ms;
      },
    });
    return gainRows('split.gain.data', `ResNet-50, ${items} items over cpu + wasm`, found, plan.perSecond * items);
  });
}

interface Rounds {
  readonly raw: readonly number[];
  readonly ours: readonly number[];
  /** Share of the processors that other programs used while ours was measured; NaN where the system does not tell. */
  readonly others: readonly number[];
}

async function inRounds(
  rounds: number,
  work: { readonly raw: () => Promise<number>; readonly ours: () => Promise<number> },
): Promise<Rounds> {
  const found = { raw: [] as number[], ours: [] as number[], others: [] as number[] };
  // Before the first loops begin, which end when they are done.
  const pids = treePids(process.pid);
  for (let round = 0; round < rounds; round += 1) {
    found.raw.push(await work.raw());
    const before = processorTimes(pids);
    found.ours.push(await work.ours());
    const after = processorTimes(pids);
    found.others.push(before === undefined || after === undefined ? Number.NaN : othersShare(before, after));
  }
  return found;
}

function gainRows(key: string, label: string, { raw, ours, others }: Rounds, predicted: number): readonly BenchRow[] {
  const ratio = median(ours.map((rate, round) => rate / (raw[round] ?? NaN)));
  const unit = 'items/s';
  return [
    benchRow({ key: `${key}.raw`, label: `${label}: bare loops at once`, value: median(raw), unit }),
    benchRow({ key: `${key}.ours`, label: `${label}: Intarsia`, value: median(ours), unit }),
    benchRow({
      ...{ key: `${key}.ratio`, label: `${label}: Intarsia ÷ bare loops`, value: ratio, unit: 'x' },
      target: { kind: 'at-least', value: 0.94 },
    }),
    benchRow({ key: `${key}.predicted`, label: `${label}: as planned`, value: predicted, unit }),
    benchRow({
      key: `${key}.prediction-error`,
      label: `${label}: |planned − measured| ÷ measured`,
      value: Math.abs(predicted - median(ours)) / median(ours),
      unit: 'x',
      target: { kind: 'at-most', value: 0.1 },
    }),
    benchRow({
      ...{ key: `${key}.others`, label: `${label}: processors used by other programs meanwhile, the most` },
      ...{ value: 100 * Math.max(...others), unit: '%' },
    }),
  ];
}

/** What a stage more costs when there is nothing to compute: on the same executor, and from one executor to another. */
async function hops({ quick, repository, late }: Scene): Promise<readonly BenchRow[]> {
  const rows: BenchRow[] = [];
  const requests = quick ? 100 : 400;
  for (const [size, label] of [
    [1024, '4 KiB'],
    [150_000, '600 KB'],
  ] as const) {
    const name = `hops_${size}`;
    await writeHops(repository, name, size);
    await withHost({ repository, late }, [cpu(0, 1), cpu(1, 1)], async (host) => {
      const split = await host.splitOf(name, [1, 2, 3]);
      const input = [floats('x', [1, size])];
      await host.place(name, ['cpu:0']);
      for (const [where, devices] of [
        ['the same process', ['cpu:0', 'cpu:0', 'cpu:0', 'cpu:0']],
        ['another process', ['cpu:0', 'cpu:1', 'cpu:0', 'cpu:1']],
      ] as const) {
        const pieces = await host.split(name, split, devices);
        const extra: number[] = [];
        for (let index = -20; index < requests; index += 1) {
          const whole = await timed(() => host.infer(name, input));
          const piecewise = await timed(() => host.infer(pieces, input));
          if (index >= 0) extra.push((piecewise - whole) / (hopStages - 1));
        }
        const key = `split.hop.${where === 'the same process' ? 'same' : 'other'}-process.${size}`;
        rows.push(benchRow({ key, label: `a hop of ${label} to ${where}`, value: median(extra), unit: 'ms' }));
      }
    });
  }
  return rows;
}

/** A model that no device takes whole, on two of them. */
async function reach({ quick, repository, notes, late }: Scene): Promise<readonly BenchRow[]> {
  const { weightBytes, width } = await writeLarge(repository, 'large', quick ? 24 : 48, 2048);
  // Too little for all weights, enough for half of them and the executor itself.
  const memoryBytes = Math.floor(weightBytes * 0.9);
  const devices = [0, 1].map((index) => ({ ...cpu(index, 1), memoryBytes }));
  return withHost({ repository, late }, devices, async (host) => {
    const refusal = await host.place('large', ['cpu:0']).then(
      () => '',
      (error: unknown) => (error instanceof IntarsiaError ? error.message : messageOf(error)),
    );
    notes.push(`reach: the whole model on one device: ${refusal === '' ? 'was taken' : refusal}`);
    const split = await host.splitOf('large', 2);
    const model = await host.split('large', split, ['cpu:0', 'cpu:1']);
    for (let index = 0; index < 5; index += 1) await host.infer(model, [floats('x', [8, width])]);
    const peaks = await Promise.all(['cpu:0', 'cpu:1'].map((device) => peakBytes(host.pid(device))));
    const mib = (bytes: number): number => bytes / MiB;
    return [
      benchRow({
        key: 'split.reach.weights',
        label: 'reach: weights of the model',
        value: mib(weightBytes),
        unit: 'MiB',
      }),
      ...peaks.map((bytes, index) =>
        benchRow({
          key: `split.reach.peak.${index}`,
          label: `reach: peak memory of executor ${index + 1} (VmHWM), limit ${Math.round(mib(memoryBytes))} MiB`,
          value: mib(bytes),
          unit: 'MiB',
          target: { kind: 'at-most', value: mib(memoryBytes) },
        }),
      ),
    ];
  });
}

async function peakBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const kib = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
  if (kib === undefined) throw new Error(`/proc/${pid}/status says no peak`);
  return Number(kib) * 1024;
}
