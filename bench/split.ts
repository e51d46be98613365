/**
 * One model in pieces, and one batch over several devices: what the stages cost beside the whole model, what two devices
 * give beside bare ONNX Runtime loops that run at the same time, how near the planner's prediction comes, what a hop
 * costs, what memory executors take, and what the loss of a host costs a pipeline over hosts.
 *
 * Latencies are compared request by request in turns, rates in rounds. Every part has its own time limit; one that fails
 * is named in the notes and the others go on. What a late part has started is ended, so that it does not disturb the next.
 */
import { setMaxListeners } from 'node:events';
import { readFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { IntarsiaError, messageOf } from '#core/errors.js';
import type { Tensor } from '#core/tensor.js';
import { MiB } from '#core/units.js';
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
import { dataGain, pipelineGain } from './split-gain.js';
import { acrossHosts } from './split-grid.js';
import { cpu, modelsFolder, timed, withHost, type Scene } from './split-scene.js';
import { floats, hopStages, images, tokens, writeHops, writeLarge } from './split-models.js';

interface Part {
  readonly name: string;
  /** Seconds it may take. */
  readonly secondsMax: number;
  readonly run: (scene: Scene) => Promise<readonly BenchRow[]>;
}

const parts: readonly Part[] = [
  { name: 'resnet', secondsMax: 60, run: (scene) => overhead(scene, resnetOverhead) },
  { name: 'bert', secondsMax: 90, run: (scene) => overhead(scene, bertOverhead) },
  { name: 'pipeline', secondsMax: 150, run: pipelineGain },
  { name: 'data', secondsMax: 120, run: dataGain },
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
  // Whatever is started listens.
  setMaxListeners(0, late.signal);
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
