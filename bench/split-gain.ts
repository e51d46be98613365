/**
 * What two devices give together, a pipeline or one batch over both, beside bare ONNX Runtime loops at the same time, and what
 * the planner foretells of it.
 */
import { NodeClock } from '#adapters/node/clock.js';
import { othersShare, processorTimes } from '#adapters/hardware/processor-times.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { discoverHere } from '#compose/discover-here.js';
import { planModel } from '#compose/split/plan-model.js';
import { MiB } from '#core/units.js';
import { treePids } from './memory.js';
import { ensureModel } from './models/ensure-model.js';
import { benchRow, median, type BenchRow } from './report.js';
import type { BenchDevice } from './split-host.js';
import { images } from './split-models.js';
import { rawLoops } from './split-raw.js';
import { cpu, modelsFolder, timed, withHost, type Scene } from './split-scene.js';

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
  for (const note of report.notes)
    if (/leave each other|by itself/.test(note)) more.notes.push(`${more.strategy}: ${note}`);
  const rows = [...(report.choice === undefined ? [] : [report.choice]), ...report.frontier];
  const row = rows.find(
    (each) =>
      each.strategy === more.strategy && each.stages.flatMap((stage) => stage.devices).length === devices.length,
  );
  if (row === undefined) throw new Error(`the planner has no ${more.strategy} over ${devices.join(' and ')}`);
  return { perSecond: row.requestsPerSecond.value, cuts: row.cuts };
}

/** Two devices of one thread, a stage of ResNet-50 on each. */
export async function pipelineGain({ quick, notes, late }: Scene): Promise<readonly BenchRow[]> {
  const { path } = await ensureModel('resnet50', modelsFolder);
  const [rounds, seconds] = quick ? [1, 3] : [3, 5];
  return withHost({ repository: modelsFolder, late }, [cpu(0, 1), cpu(1, 1)], async (host) => {
    // Made once, as the bare loops do.
    const image = images(1);
    const found = await inRounds(rounds, async () => {
      const { perSecond, cuts } = await predictedRate(path, ['cpu:0', 'cpu:1'], {
        ...{ strategy: 'pipeline', items: 1, seconds: quick ? 6 : 12, notes, late },
        // Less than its weights: two equal devices would take turns with the whole model otherwise.
        memoryBytes: 90 * MiB,
      });
      const split = await host.splitOf('resnet50', cuts, false);
      const files = await host.shardPaths('resnet50', split);
      const model = await host.split('resnet50', split, ['cpu:0', 'cpu:1']);
      const loops = files.map((_, stage) => ({
        ...{ files: files.slice(0, stage + 1), provider: 'cpu' as const, threads: 1, inputs: image },
      }));
      return {
        planned: perSecond,
        ours: () => rateOf(() => host.infer(model, image), 4, seconds),
        raw: async () => Math.min(...(await rawLoops(loops, seconds, late))),
      };
    });
    return gainRows('split.gain.pipeline', 'ResNet-50, pipeline of 2 cpu', found);
  });
}

/** One batch over a CPU of one thread and WebAssembly. */
export async function dataGain({ quick, notes, late }: Scene): Promise<readonly BenchRow[]> {
  const { path } = await ensureModel('resnet50', modelsFolder);
  const [rounds, seconds, items] = quick ? [1, 4, 32] : [2, 5, 64];
  const devices: readonly BenchDevice[] = [cpu(0, 1), { id: 'wasm:0', provider: 'wasm', threads: 1 }];
  return withHost({ repository: modelsFolder, late }, devices, async (host) => {
    await host.place('resnet50', ['cpu:0', 'wasm:0'], { intarsia_strategy: 'data' });
    // Speeds are known from here on.
    await host.infer('resnet50', images(8));
    const batch = 4;
    const loop = { files: [path], threads: 1, inputs: images(batch) };
    const loops = [
      { ...loop, provider: 'cpu' },
      { ...loop, provider: 'wasm' },
    ] as const;
    const found = await inRounds(rounds, async () => {
      const { perSecond } = await predictedRate(path, ['cpu', 'wasm'], {
        ...{ strategy: 'data', items, seconds: quick ? 8 : 20, notes, late },
      });
      return {
        planned: perSecond * items,
        ours: async () => (items * 1000) / (await timed(() => host.infer('resnet50', images(items)))),
        raw: async () => batch * (await rawLoops(loops, seconds, late)).reduce((sum, rate) => sum + rate, 0),
      };
    });
    return gainRows('split.gain.data', `ResNet-50, ${items} items over cpu + wasm`, found);
  });
}

/** Items a second, by round. */
interface Rounds {
  readonly planned: number[];
  readonly ours: number[];
  readonly raw: number[];
  /** Share of the processors that other programs used while ours was measured; NaN where the system does not tell. */
  readonly others: number[];
}

/** What was planned, and what measures it. */
interface Round {
  readonly planned: number;
  readonly ours: () => Promise<number>;
  readonly raw: () => Promise<number>;
}

/** One after the other in each round, so that what else becomes of the machine meets all. */
async function inRounds(count: number, begin: () => Promise<Round>): Promise<Rounds> {
  const found: Rounds = { planned: [], ours: [], raw: [], others: [] };
  for (let round = 0; round < count; round += 1) {
    const { planned, ours, raw } = await begin();
    found.planned.push(planned);
    // Before the loops begin, which end when they are done.
    const pids = treePids(process.pid);
    found.raw.push(await raw());
    const before = processorTimes(pids);
    found.ours.push(await ours());
    const after = processorTimes(pids);
    found.others.push(before === undefined || after === undefined ? Number.NaN : othersShare(before, after));
  }
  return found;
}

function gainRows(key: string, label: string, { planned, ours, raw, others }: Rounds): readonly BenchRow[] {
  const unit = 'items/s';
  const toRaw = ours.map((rate, round) => rate / (raw[round] ?? NaN));
  const off = ours.map((rate, round) => Math.abs((planned[round] ?? NaN) - rate) / rate);
  return [
    benchRow({ key: `${key}.raw`, label: `${label}: bare loops at once`, value: median(raw), unit }),
    benchRow({ key: `${key}.ours`, label: `${label}: Intarsia`, value: median(ours), unit }),
    benchRow({
      ...{ key: `${key}.ratio`, label: `${label}: Intarsia ÷ bare loops`, value: median(toRaw), unit: 'x' },
      target: { kind: 'at-least', value: 0.94 },
    }),
    benchRow({ key: `${key}.predicted`, label: `${label}: as planned`, value: median(planned), unit }),
    benchRow({
      key: `${key}.prediction-error`,
      label: `${label}: |planned − measured| ÷ measured, median of rounds`,
      value: median(off),
      unit: 'x',
      target: { kind: 'at-most', value: 0.1 },
    }),
    benchRow({
      key: `${key}.spread`,
      label: `${label}: fastest round ÷ slowest`,
      value: Math.max(...ours) / Math.min(...ours),
      unit: 'x',
    }),
    benchRow({
      ...{ key: `${key}.others`, label: `${label}: processors used by other programs meanwhile, the most` },
      ...{ value: 100 * Math.max(...others), unit: '%' },
    }),
  ];
}
