/**
 * What a host costs in memory: idle with a processor as its device, above bare Node with ONNX Runtime and the same model;
 * and what is left after 100,000 requests of a load process. Proportional set size of the whole process tree, Linux only.
 *
 * A heap grows until somebody collects it, so one look says little: growth is told as the slope of a line through the
 * looks after each round of requests.
 */
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { packageRoot } from '#compose/package-root.js';
import type { Tensor } from '#core/tensor.js';
import { MiB } from '#core/units.js';
import { startChild, type BenchChild } from './child.js';
import { load } from './load.js';
import { treePssBytes } from './memory.js';
import { benchReport, benchRow, type BenchOptions, type BenchReport, type BenchRow } from './report.js';

/** MB of the process tree above Node with ONNX Runtime. */
const idleMbMax = 120;
/** MB that 100,000 requests may leave: what a heap that breathes shows from one look to the next. */
const growthMbMax = 20;
const concurrency = 64;

export async function run(options: BenchOptions): Promise<BenchReport> {
  const sizes = options.quick
    ? { rounds: 3, requests: 1_000, settleMs: 200 }
    : { rounds: 11, requests: 10_000, settleMs: 2_000 };
  const repository = await mkdtemp(join(tmpdir(), 'intarsia-bench-'));
  try {
    const model = join(packageRoot, 'examples/models/digits');
    await cp(model, join(repository, 'digits'), { recursive: true });
    const bare = await startChild('bench/baselines/ort-idle-main.js', [
      '--model',
      join(model, '1/model.onnx'),
      '--shape',
      '1,1,28,28',
    ]);
    const host = await startChild('bench/serve-host-main.js', ['--repository', repository]);
    try {
      await delay(sizes.settleMs);
      const rows = idle(host, bare);
      rows.push(...(await growth(host, sizes)));
      return benchReport('memory', options, rows, [
        'Proportional set size of the host, its executor process and their threads; the model is the digit classifier.',
        `The first of ${sizes.rounds} rounds of ${sizes.requests} requests (${concurrency} in flight, gRPC) warms up and is not counted.`,
      ]);
    } finally {
      await Promise.all([host.stop(), bare.stop()]);
    }
  } finally {
    await rm(repository, { recursive: true, force: true });
  }
}

function idle(host: BenchChild, bare: BenchChild): BenchRow[] {
  const hostMb = treePssBytes(host.pid) / MiB;
  const bareMb = treePssBytes(bare.pid) / MiB;
  return [
    benchRow({ key: 'memory.idle.host', label: 'idle host, processor only', value: hostMb, unit: 'MiB' }),
    benchRow({ key: 'memory.idle.bare', label: 'Node with ONNX Runtime and the model', value: bareMb, unit: 'MiB' }),
    benchRow({
      key: 'memory.idle.above',
      label: 'the host above that',
      value: hostMb - bareMb,
      unit: 'MiB',
      target: { kind: 'at-most', value: idleMbMax },
    }),
  ];
}

async function growth(
  host: BenchChild,
  sizes: { readonly rounds: number; readonly requests: number; readonly settleMs: number },
): Promise<BenchRow[]> {
  const looks: number[] = [];
  for (let round = 0; round < sizes.rounds; round += 1) {
    await load({
      protocol: 'grpc',
      port: Number(host.ready['grpc']),
      model: 'digits',
      input: digit(),
      arrivals: { kind: 'closed', concurrency },
      seconds: 600,
      warmUpSeconds: 0,
      requests: sizes.requests,
    });
    await delay(sizes.settleMs);
    looks.push(treePssBytes(host.pid) / MiB);
  }
  const counted = looks.slice(1);
  const perRound = slope(counted);
  const rounds = counted.length;
  return [
    benchRow({ key: 'memory.loaded.first', label: 'after the warm-up round', value: counted[0] ?? 0, unit: 'MiB' }),
    benchRow({
      key: 'memory.loaded.last',
      label: `after ${sizes.rounds * sizes.requests} requests`,
      value: counted.at(-1) ?? 0,
      unit: 'MiB',
    }),
    benchRow({
      key: 'memory.growth',
      label: `growth over ${rounds * sizes.requests} requests (slope of ${rounds} looks)`,
      value: perRound * rounds,
      unit: 'MiB',
      target: { kind: 'at-most', value: growthMbMax },
    }),
  ];
}

/** Slope of the line of least squares through values at 0, 1, 2 … */
function slope(values: readonly number[]): number {
  const meanX = (values.length - 1) / 2;
  const meanY = values.reduce((sum, value) => sum + value, 0) / values.length;
  let upper = 0;
  let lower = 0;
  values.forEach((value, index) => {
    upper += (index - meanX) * (value - meanY);
    lower += (index - meanX) ** 2;
  });
  return lower === 0 ? 0 : upper / lower;
}

function digit(): Tensor {
  const pixels = new Float32Array(28 * 28).map((_, index) => (index % 7) / 7);
  return { name: 'image', datatype: 'FP32', shape: [1, 1, 28, 28], data: new Uint8Array(pixels.buffer) };
}
