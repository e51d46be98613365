/**
 * What the decision log costs a host: two hosts that differ in it alone, driven in turns by the same load in the same run, every
 * request with a deadline so that every one is decided about and logged. Throughput says what a user sees; processor time for
 * each request says the same on a machine that others use too.
 */
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '#compose/package-root.js';
import { startChild, type BenchChild } from './child.js';
import { load } from './load.js';
import { processMs } from '#adapters/hardware/processor-times.js';
import { benchRow, median, type BenchRow } from './report.js';

/** Share of throughput that the log may cost. */
const costMax = 0.02;

interface Round {
  readonly requestsPerSecond: number;
  readonly cpuUsPerRequest: number;
}

export async function decisionLogCost({ quick }: { readonly quick: boolean }): Promise<readonly BenchRow[]> {
  const { rounds, seconds } = quick ? { rounds: 1, seconds: 1 } : { rounds: 9, seconds: 3 };
  const folder = await mkdtemp(join(tmpdir(), 'intarsia-bench-'));
  const children: BenchChild[] = [];
  try {
    await cp(join(packageRoot, 'examples/models/digits'), join(folder, 'models/digits'), { recursive: true });
    const args = ['--repository', join(folder, 'models'), '--device', 'cpu:0', '--device', 'wasm:0'];
    const without = await startChild('bench/serve-host-main.js', args);
    children.push(without);
    const withLog = await startChild('bench/serve-host-main.js', [...args, '--decision-log', join(folder, 'log')]);
    children.push(withLog);
    for (const host of children) await round(host, 1);
    const speed: number[] = [];
    const cpu: number[] = [];
    const rates: number[] = [];
    for (let index = 0; index < rounds; index += 1) {
      // Who goes first changes, so that a machine that warms up favours nobody.
      const order = index % 2 === 0 ? [without, withLog] : [withLog, without];
      const told = new Map<BenchChild, Round>();
      for (const host of order) told.set(host, await round(host, seconds));
      const plain = told.get(without);
      const logged = told.get(withLog);
      if (plain === undefined || logged === undefined) continue;
      speed.push(logged.requestsPerSecond / plain.requestsPerSecond);
      cpu.push(logged.cpuUsPerRequest / plain.cpuUsPerRequest);
      rates.push(logged.requestsPerSecond);
    }
    return [
      benchRow({
        key: 'policy.log.rate',
        label: 'requests with the decision log',
        value: median(rates),
        unit: 'requests/s',
      }),
      benchRow({
        key: 'policy.log.throughput',
        label: 'throughput, with the decision log ÷ without',
        value: median(speed),
        unit: 'x',
        target: { kind: 'at-least', value: 1 - costMax },
      }),
      benchRow({
        key: 'policy.log.cpu',
        label: 'processor time a request, with ÷ without',
        value: median(cpu),
        unit: 'x',
      }),
    ];
  } finally {
    await Promise.all(children.map((child) => child.stop()));
    await rm(folder, { recursive: true, force: true });
  }
}

async function round(host: BenchChild, seconds: number): Promise<Round> {
  const beforeMs = processMs(host.pid) ?? Number.NaN;
  const report = await load({
    protocol: 'grpc',
    port: Number(host.ready['grpc']),
    model: 'digits',
    input: { name: 'image', datatype: 'FP32', shape: [1, 1, 28, 28], data: new Uint8Array(28 * 28 * 4) },
    arrivals: { kind: 'closed', concurrency: 64 },
    timeoutMs: 30_000,
    seconds,
    warmUpSeconds: 0,
  });
  return {
    requestsPerSecond: report.requestsPerSecond,
    cpuUsPerRequest: (1000 * ((processMs(host.pid) ?? Number.NaN) - beforeMs)) / report.succeeded,
  };
}
