/** `intarsia plan` below the command line: real executor processes where something is measured. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NodeClock } from '#adapters/node/clock.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import type { PlanReport, PlanRequest } from '#cli/plan-report.js';
import { planModel, type PlanParts } from '#compose/split/plan-model.js';
import type { DiscoveryReport } from '#core/device-discovery.js';
import type { DeviceDescriptor } from '#core/device.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { deviceId } from '#core/ids.js';
import type { ContentionRecord, ProfileRecord } from '#core/profile/profile-record.js';
import { int } from '#core/onnx/attribute.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { splitIdOf } from '#core/split/split-spec.js';
import { MiB } from '#core/units.js';
import { perceptron } from './perceptron.js';
import { aloneMs, SteadyDevices } from './steady-devices.js';

let folder: string;
let model: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'intarsia-plan-test-'));
  model = join(folder, 'perceptron.onnx');
  await writeFile(model, perceptron(6, 128));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

function descriptor(id: string, provider: 'cpu' | 'wasm'): DeviceDescriptor {
  return {
    id: deviceId(id),
    kind: provider,
    name: `a ${provider}`,
    vendor: '',
    provider,
    fallbackProviders: [],
    emulated: false,
    memoryBytes: 1024 * MiB,
    threads: 2,
    permits: 2,
    busyWatts: { watts: 10, source: 'estimated' },
    price: { usdPerHour: 0.1, source: 'estimated', origin: 'a test' },
    facts: {},
  };
}

const discovery = {
  host: { usableCores: 2 },
  devices: [descriptor('cpu:0', 'cpu'), { ...descriptor('wasm:0', 'wasm'), threads: 1 }],
  unusable: [],
  accelerators: [],
} as unknown as DiscoveryReport;

const parts: PlanParts = {
  startExecutor: ({ provider }) => startProcessExecutor({ provider, lanes: 1 }),
  ...{ discovery, profiles: builtInProfiles, clock: new NodeClock(), records: [] },
  progress: () => undefined,
};

function plan(more: Partial<PlanRequest> = {}, change: Partial<PlanParts> = {}): Promise<PlanReport> {
  const request: PlanRequest = {
    model,
    devices: ['cpu', 'wasm', 'emulated:nvidia-l4'],
    goal: 'throughput',
    items: 1,
    strategy: 'auto',
    providers: [],
    memoryBytes: new Map(),
    measureSeconds: 0,
    frontierMax: 10,
    vectors: '',
    profilesPath: '',
    picture: false,
    ...more,
  };
  return planModel(request, { ...parts, ...change });
}

describe('a plan of a model', () => {
  it('without measuring estimates every time, says so, and names emulated devices', async () => {
    const report = await plan();
    expect(report).toMatchObject({ verdict: 'plan', nodes: 13, reason: '', isExact: true, gap: 0 });
    expect(report.devices.map(({ id, emulated, measurements }) => [id, emulated, measurements])).toEqual([
      ['cpu:0', false, 0],
      ['wasm:0', false, 0],
      ['emulated:nvidia-l4', true, 0],
    ]);
    const numbers = report.frontier.flatMap(({ stages }) => stages.map(({ ms }) => ms));
    expect(new Set(numbers.map(({ source }) => source))).toEqual(new Set(['estimated']));
    expect(Math.min(...numbers.map(({ plusMinus }) => plusMinus))).toBeGreaterThan(0.5);
    expect(report.notes).toContain('nothing was measured: every time is an estimate');
    expect(report.notes.join()).toContain('emulated:nvidia-l4 is emulated');
    // Whole on each device, and on the cpu with the thread that wasm does not take.
    expect(report.wholes.map(({ stages }) => [stages[0]?.devices[0], stages[0]?.threads])).toEqual([
      ['cpu:0', 1],
      ['wasm:0', 1],
      ['emulated:nvidia-l4', 0],
      ['cpu:0', 2],
    ]);
  });

  it('measures what is missing on real devices, and knows measured figures better', { timeout: 90_000 }, async () => {
    const report = await plan({ devices: ['cpu', 'wasm'], measureSeconds: 20, picture: true });
    expect(report.verdict).toBe('plan');
    for (const { measurements } of report.devices) expect(measurements).toBeGreaterThan(3);
    const [cpu, wasm] = report.wholes;
    expect(cpu?.latencyMs).toMatchObject({ source: 'measured' });
    expect(wasm?.latencyMs).toMatchObject({ source: 'measured' });
    expect(report.picture).toContain('<svg');
    expect(report.choice?.stages.map(({ ms }) => ms.source)).not.toContain('estimated');
  });

  describe('of devices that share a processor', () => {
    const request: Partial<PlanRequest> = { devices: ['cpu:0', 'wasm:0'], measureSeconds: 30 };
    const planOn = async (
      steady: SteadyDevices,
      more: Partial<PlanRequest> = {},
      records: readonly ProfileRecord[] = [],
    ): Promise<{ readonly report: PlanReport; readonly together: readonly ContentionRecord[] }> => {
      const kept: ProfileRecord[] = [];
      const report = await steady.during(
        plan(
          { ...request, ...more },
          {
            ...{ clock: steady.clock, records, processorTimes: () => steady.processorTimes() },
            // The reference is real.
            startExecutor: (device) =>
              device.descriptor === undefined
                ? parts.startExecutor(device)
                : Promise.resolve(steady.executor(device.provider as 'cpu' | 'wasm')),
            keep: (measured) => Promise.resolve(void kept.push(...measured)),
          },
        ),
      );
      return { report, together: kept.filter((record) => record.type === 'contention') };
    };
    const dataRate = ({ frontier }: PlanReport): number =>
      Math.max(
        ...frontier.flatMap(({ strategy, requestsPerSecond: { value } }) => (strategy === 'data' ? [value] : [])),
      );

    it('measures them at work together, counts their pace, keeps it and does not measure it again', async () => {
      const steady = new SteadyDevices(1.5);
      const { report, together } = await planOn(steady, { strategy: 'data' });
      expect(report.notes.join()).toContain('what they leave each other was measured');
      const found = together.map(({ provider, beside, from, to, times }) => ({
        ...{ provider, beside, from, to },
        paceMs: times.sumMs / times.count,
      }));
      const whole = { from: 0, to: 13, paceMs: aloneMs * 1.5 };
      expect(found).toEqual([
        { provider: 'cpu', beside: ['wasm 1'], ...whole },
        { provider: 'wasm', beside: ['cpu 1'], ...whole },
      ]);
      expect(together.map((record) => record.aloneMs)).toEqual([aloneMs, aloneMs]);
      // Two devices, each a run every 15 ms; a batch takes no longer than an item, and the largest has 8.
      expect(dataRate(report)).toBeCloseTo((2 * 8000) / (aloneMs * 1.5), 6);
      const again = await planOn(new SteadyDevices(1.5), { strategy: 'data' }, together);
      expect(again.together).toEqual([]);
    });

    it('measures a pipeline as a whole: what a stage takes is its share of the time from answer to answer', async () => {
      // Neither takes the whole model.
      const memoryBytes = new Map(['cpu:0', 'wasm:0'].map((id): [string, number] => [id, 0.3 * MiB]));
      const { report, together } = await planOn(new SteadyDevices(1.5), { strategy: 'pipeline', memoryBytes });
      const { choice } = report;
      expect(choice?.stages).toHaveLength(2);
      const mine = together.filter(({ from, to }) =>
        choice?.stages.some((stage) => stage.from === from && stage.to === to),
      );
      expect(mine.map(({ times }) => times.sumMs / times.count)).toEqual([aloneMs * 1.5, aloneMs * 1.5]);
      expect(choice?.requestsPerSecond.value).toBeCloseTo((1000 * choice!.batch) / (aloneMs * 1.5), 6);
    });

    it('counts and keeps nothing that was measured beside other programs, unless that is asked for', async () => {
      const steady = new SteadyDevices(1.5);
      steady.othersShare = 0.4;
      const { report, together } = await planOn(steady, { strategy: 'data' });
      expect(together).toEqual([]);
      expect(report.notes.join()).toContain('other programs took 40 % of the processors meanwhile, more than 5 %');
      expect(dataRate(report)).toBeCloseTo((2 * 8000) / aloneMs, 6);
      const asked = await planOn(steady, { strategy: 'data', contention: true });
      expect(asked.together).toEqual([]);
      expect(dataRate(asked.report)).toBeCloseTo((2 * 8000) / (aloneMs * 1.5), 6);
    });

    it('says so where the machine itself became slower while it was measured', async () => {
      const steady = new SteadyDevices(1);
      // Three measure one at a time: each device, and the cpu with all threads. Those that run together are started after.
      steady.slower = { fromExecutors: 4, times: 1.6 };
      const { report } = await planOn(steady, { strategy: 'data' });
      expect(report.notes.join()).toMatch(
        /took 10 ms for nodes 0 to 12, and 16 ms moments later: this machine changes/,
      );
      const even = await planOn(new SteadyDevices(1), { strategy: 'data' });
      expect(even.report.notes.join()).not.toContain('changes its speed');
    });

    it('counts nothing where that is not wanted, measured before or not', async () => {
      const { together } = await planOn(new SteadyDevices(1.5), { strategy: 'data' });
      const steady = new SteadyDevices(1.5);
      const { report, together: none } = await planOn(steady, { strategy: 'data', contention: false }, together);
      expect(none).toEqual([]);
      expect(report.notes.join()).toContain('which no figure here counts');
      expect(dataRate(report)).toBeCloseTo((2 * 8000) / aloneMs, 6);
    });
  });

  it('takes measurements of the profile database instead of measuring again', async () => {
    const { digest } = await plan();
    const times = { count: 100, sumMs: 4200, squaresMs2: 100, minMs: 41, maxMs: 43, classes: [] };
    const report = await plan(
      { devices: ['cpu'], goal: 'latency' },
      {
        records: [
          {
            ...{
              type: 'shard',
              schema: 1,
              model: digest,
              nodes: 13,
              from: 0,
              to: 13,
              batch: 1,
              source: 'profiled',
              times,
            },
            ...{
              host: 'h',
              device: 'cpu:0',
              silicon: 'a cpu',
              provider: 'cpu',
              engine: 'e',
              threads: 2,
              emulated: false,
            },
            ...{ precision: 'fp32', optimization: 'all', atMs: 0 },
            ...{ weightBytes: 0, peakActivationBytes: 0, loadedBytes: 0, inputBytes: 0, outputBytes: 0 },
          },
        ],
      },
    );
    const [whole] = report.wholes;
    expect(report.devices[0]?.measurements).toBe(1);
    expect(whole?.stages[0]?.ms.source).toBe('measured');
    expect(whole?.stages[0]?.ms.value).toBeGreaterThanOrEqual(41);
    expect(report.notes).toContain('nothing was measured now: times are those of the profile database, or estimates');
  });

  it('splits a model that no device takes whole, says by how much, and gives what deploy takes', async () => {
    const limit = 0.3 * MiB;
    const memoryBytes = new Map([
      ['cpu:0', limit],
      ['wasm:0', limit],
    ]);
    const report = await plan({ devices: ['cpu', 'wasm'], memoryBytes });
    expect(report).toMatchObject({ verdict: 'plan', wholes: [] });
    expect(report.devices[0]?.refusal).toMatch(/the whole model does not fit: \d+(\.\d+)? KiB are missing/);
    const { split, choice, digest } = report;
    expect(choice?.strategy).toBe('pipeline');
    expect(split?.cuts).toEqual(choice?.cuts);
    expect(split).toMatchObject({ format: 1, digest, compression: 'none' });
    expect(split?.id).toBe(splitIdOf(split!));
    for (const [index, { memoryBytes: bytes, constraints }] of split!.shards.entries()) {
      expect(bytes).toBeLessThanOrEqual(limit);
      expect(constraints).toEqual({ devices: choice?.stages[index]?.devices });
    }
  });

  it('answers that nothing fits, by how many bytes, where a piece or the whole is too large', async () => {
    const tiny = await plan({ devices: ['cpu'], memoryBytes: new Map([['cpu:0', 1000]]) });
    expect(tiny).toMatchObject({ verdict: 'no-plan', frontier: [] });
    expect(tiny.reason).toMatch(/cannot be cut further and take .*the largest device has 1000 B: .* are missing/);
    const few = await plan({
      devices: ['cpu', 'wasm'],
      memoryBytes: new Map([
        ['cpu:0', 0.15 * MiB],
        ['wasm:0', 0.15 * MiB],
      ]),
    });
    expect(few.reason).toMatch(/the model takes .*, all devices together have .* are missing/);
  });

  it('answers that nothing is fast enough, with the fastest', async () => {
    const report = await plan({ sloMs: 1e-6 });
    expect(report.verdict).toBe('no-plan');
    expect(report.reason).toMatch(/^no plan answers within 0 µs; the fastest takes /);
  });

  it('keeps to the latency allowed, the stages allowed, the providers allowed and the strategy', async () => {
    const data = await plan({ strategy: 'data', items: 8 });
    expect(new Set(data.frontier.map(({ strategy }) => strategy)).has('pipeline')).toBe(false);
    const single = await plan({ stagesMax: 1 });
    expect(single.frontier.every(({ strategy, stages }) => strategy !== 'pipeline' || stages.length === 1)).toBe(true);
    const cpuOnly = await plan({ providers: ['cpu'] });
    expect(cpuOnly.devices.map(({ id }) => id)).toEqual(['cpu:0']);
  });

  it('goes on without a device that fails while it is measured, and fails where there is no other', async () => {
    const broken: PlanParts['startExecutor'] = async ({ provider, descriptor: device }) => {
      if (provider === 'wasm') throw new Error('wasm is broken today');
      const executor = await startProcessExecutor({ provider: 'cpu', lanes: 1 });
      // The reference runs on an executor without a device.
      if (device !== undefined) process.kill(executor.description.pid ?? 0, 'SIGKILL');
      return executor;
    };
    const report = await plan(
      { devices: ['cpu', 'wasm'], measureSeconds: 5 },
      { startExecutor: (device) => (device.provider === 'wasm' ? broken(device) : parts.startExecutor(device)) },
    );
    expect(report.verdict).toBe('plan');
    expect(report.devices[1]?.refusal).toContain('wasm is broken today');
    expect(report.frontier.every(({ stages }) => stages.every(({ devices }) => devices[0] === 'cpu:0'))).toBe(true);
    await expect(
      plan({ devices: ['cpu', 'wasm'], measureSeconds: 5 }, { startExecutor: broken }),
    ).rejects.toMatchObject({
      code: 'DEVICE_UNAVAILABLE',
    });
  });

  it('refuses names that are no devices, and files that are no models', async () => {
    for (const [devices, says] of [
      [['gpu 7'], "device 'gpu 7' is none"],
      [['cuda'], 'this machine has no device cuda:0; it has cpu:0, wasm:0'],
      [['emulated:abacus'], "no hardware profile is called 'abacus'"],
      [['cpu', 'cpu:0'], 'device cpu:0 is named twice'],
      [['cpu*99'], "device 'cpu*99' is none"],
    ] as const) {
      await expect(plan({ devices })).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
        message: expect.stringContaining(says) as string,
      });
    }
    await expect(plan({ memoryBytes: new Map([['tpu:0', 1]]) })).rejects.toThrow('--memory names tpu:0');
    await expect(plan({ model: join(folder, 'nowhere.onnx') })).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('plans a model that cannot be cut: whole or shared, never split', async () => {
    const builder = new GraphBuilder('sequence');
    const x = builder.input('x', 'FP32', [2]);
    const list = builder.node('SequenceConstruct', [x, x], { output: 'list' });
    builder.output(
      builder.node('ConcatFromSequence', [list], { output: 'y', attributes: { axis: int(0) } }),
      'FP32',
      [4],
    );
    const path = join(folder, 'sequence.onnx');
    await writeFile(path, encodeModelBytes(builder.model({ opset: 17 })));
    const report = await plan({ model: path, devices: ['cpu*2'] });
    expect(report).toMatchObject({ verdict: 'plan', legalCuts: 0, impossibleCuts: 1 });
    expect(report.impossibleReason).toBe('"list" is a sequence');
    expect(report.split).toBeUndefined();
  });
});
