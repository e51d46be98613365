/** `intarsia profile` below the command line, on real executor processes. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parquetReadObjects } from 'hyparquet';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { emulateExecutor } from '#adapters/emulated/emulated-executor.js';
import { NodeClock } from '#adapters/node/clock.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { ProfileFolder } from '#adapters/profile-files/profile-folder.js';
import type { ProfileReport, ProfileRequest } from '#cli/profile-report.js';
import { emulationOf } from '#compose/executors.js';
import { profileModel, type ProfileParts } from '#compose/profile/profile-model.js';
import type { DiscoveryReport } from '#core/device-discovery.js';
import type { DeviceDescriptor } from '#core/device.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import type { HardwareProfile } from '#core/hardware-profile.js';
import { deviceId } from '#core/ids.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { LinkTable, ServiceTable } from '#core/profile/service-table.js';
import { RandomStream } from '#core/random.js';
import { MiB } from '#core/units.js';
import type { Executor } from '#ports/executor.js';

const layers = 6;
const width = 128;
const nodes = 2 * layers;
let folder: string;
let model: string;
let store: ProfileFolder;
let number = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'intarsia-profile-test-'));
  model = join(folder, 'perceptron.onnx');
  const random = new RandomStream('weights');
  const builder = new GraphBuilder('perceptron');
  let value = builder.input('x', 'FP32', ['batch', width]);
  for (let layer = 0; layer < layers; layer += 1) {
    const weights = Float32Array.from({ length: width * width }, () => random.next() - 0.5);
    value = builder.node('MatMul', [value, builder.constant(`w${layer}`, [width, width], weights)]);
    value = builder.node('Tanh', [value], layer === layers - 1 ? { output: 'y' } : {});
  }
  builder.output('y', 'FP32', ['batch', width]);
  await writeFile(model, encodeModelBytes(builder.model({ opset: 17 })));
});
beforeEach(async () => {
  number += 1;
  store = await ProfileFolder.open({ path: join(folder, `store-${number}`), clock: new NodeClock() });
});
afterEach(() => store.close());
afterAll(() => rm(folder, { recursive: true, force: true }));

function descriptor(provider: 'cpu' | 'wasm'): DeviceDescriptor {
  return {
    ...{ id: deviceId(`${provider}:0`), kind: provider, name: `a ${provider}`, vendor: '', provider },
    ...{ fallbackProviders: [], emulated: false, memoryBytes: 1024 * MiB, threads: 1, permits: 2, facts: {} },
  };
}

const discovery = {
  host: { usableCores: 2, hostname: 'tester' },
  ...{ devices: [descriptor('cpu'), descriptor('wasm')], unusable: [], accelerators: [] },
} as unknown as DiscoveryReport;

function profile(change: Partial<ProfileRequest> = {}, start?: ProfileParts['startExecutor']): Promise<ProfileReport> {
  const clock = new NodeClock();
  const request: ProfileRequest = {
    ...{ model, devices: ['cpu', 'wasm'], batches: [1, 3], cuts: 2, repeat: 5, shardMs: 50, seconds: 60 },
    ...{ store: '', host: '', exportPath: '', vectors: '', profilesPath: '', ...change },
  };
  return profileModel(request, {
    startExecutor: start ?? (({ provider }) => startProcessExecutor({ provider, lanes: 1 })),
    ...{ discovery, profiles: builtInProfiles, clock, store, storePath: store.path, progress: () => undefined },
  });
}

describe('a profile of a model', () => {
  it(
    'has the whole model, pieces, nodes and links on two providers, each kept in the store',
    { timeout: 90_000 },
    async () => {
      const exportPath = join(folder, 'profile.parquet');
      const report = await profile({ exportPath });
      expect(report).toMatchObject({ nodes, precision: 'fp32', missing: [], lostDevices: [], notes: [] });
      const { records, problems } = await store.read({ model: report.digest });
      expect(problems).toEqual([]);
      expect(records).toHaveLength(report.records);
      const table = new ServiceTable(records, { model: report.digest });
      const bounds = [0, ...report.cuts, nodes];
      for (const device of ['cpu:0', 'wasm:0']) {
        for (const batch of [1, 3]) {
          const whole = table.cell({ device }, { from: 0, to: nodes }, batch);
          expect(whole).toMatchObject({ emulated: false, source: 'profiled' });
          expect(whole?.count).toBeGreaterThanOrEqual(3);
          expect(whole?.weightBytes).toBe(layers * width * width * 4);
          // One input and one output of a node at a time.
          expect(whole?.peakActivationBytes).toBe(2 * width * 4 * batch);
          for (const [index, to] of bounds.slice(1).entries()) {
            expect(table.ms({ device }, { from: bounds[index] as number, to }, batch)).toBeGreaterThan(0);
          }
        }
        const times = table.nodeMs({ device }, 1);
        expect(times?.method).toBe(device === 'cpu:0' ? 'engine' : 'prefixes');
        expect(times?.nodeMs).toHaveLength(nodes);
        const link = new LinkTable(records).figures({ host: 'tester', device: '' }, { host: 'tester', device });
        expect(link?.roundTripMs).toBeGreaterThan(0);
      }
      const rows = await parquetReadObjects({ file: new Uint8Array(await readFile(exportPath)).buffer });
      expect(rows).toHaveLength(report.exported);
      expect(rows.filter(({ type }) => type === 'shard')).toHaveLength(report.shards.length);
    },
  );

  it("gives every node of the CPU its own time by the engine's own profile", async () => {
    const report = await profile({ devices: ['cpu'], batches: [8], cuts: 0, repeat: 10 });
    const { records } = await store.read({ model: report.digest });
    const nodeMs = new ServiceTable(records, { model: report.digest }).nodeMs({ device: 'cpu:0' }, 8)?.nodeMs ?? [];
    expect(nodeMs.filter((ms) => ms > 0)).toHaveLength(nodes);
  });

  it('keeps what was measured when a device disappears, and names the rest', { timeout: 60_000 }, async () => {
    const report = await profile({ devices: ['wasm', 'cpu'], batches: [1] }, async ({ provider }) => {
      const executor = await startProcessExecutor({ provider, lanes: 1 });
      return provider === 'wasm' ? killedAtLoad(executor, 7) : executor;
    });
    // Four loads for sizes of the link, one to warm up, the whole model, and in the first piece the process is killed.
    expect(report.lostDevices).toEqual(['wasm:0']);
    expect(report.shards.filter(({ device }) => device === 'wasm:0')).toMatchObject([{ from: 0, to: nodes }]);
    const missing = report.missing.filter(({ device }) => device === 'wasm:0');
    expect(missing.slice(1).map(({ reason }) => reason)).toEqual(missing.slice(1).map(() => 'the device was gone'));
    expect(missing.map(({ what }) => what)).toContain('nodes');
    expect(report.shards.filter(({ device }) => device === 'cpu:0').length).toBeGreaterThan(3);
    const { records } = await store.read({ model: report.digest });
    expect(records.filter((record) => record.type === 'shard' && record.device === 'wasm:0')).toHaveLength(1);
  });

  it('names a device that does not start, and measures the others', async () => {
    const report = await profile({ batches: [1], cuts: 0 }, ({ provider }) =>
      provider === 'wasm' ? Promise.reject(new Error('no such driver')) : startProcessExecutor({ provider, lanes: 1 }),
    );
    expect(report.missing).toEqual([{ device: 'wasm:0', what: 'everything', reason: 'no such driver' }]);
    expect(report.shards).toMatchObject([{ device: 'cpu:0' }]);
  });

  it('ends when its time is over and names what is left', async () => {
    const report = await profile({ devices: ['cpu'], seconds: 0 });
    expect(report.shards).toEqual([]);
    expect(report.lostDevices).toEqual([]);
    expect(new Set(report.missing.map(({ reason }) => reason))).toEqual(new Set(['the time for measuring was over']));
  });

  it('labels what was measured on an emulated device', async () => {
    const device = 'emulated:nvidia-l4';
    const report = await profile({ devices: [device], batches: [1] }, ({ id, provider, emulated, memoryBytes }) => {
      if (!emulated) return startProcessExecutor({ provider, lanes: 1 });
      const silicon = builtInProfiles.get('nvidia-l4') as HardwareProfile;
      const emulation = emulationOf(silicon, { id, memoryBytes });
      return Promise.resolve(emulateExecutor({ profile: emulation, clock: new NodeClock(), timeScale: 1 }));
    });
    expect(report.shards.length).toBe(4);
    expect(report.shards.every(({ emulated, engine }) => emulated && engine.startsWith('emulated'))).toBe(true);
    const { records } = await store.read();
    expect(records.every((record) => record.type === 'shard' && record.emulated)).toBe(true);
  });

  it('says which batch sizes a model does not take', async () => {
    const fixed = join(folder, 'fixed.onnx');
    const builder = new GraphBuilder('fixed');
    builder.output(builder.node('Tanh', [builder.input('x', 'FP32', [1, 4])]), 'FP32', [1, 4], 'y');
    await writeFile(fixed, encodeModelBytes(builder.model({ opset: 17 })));
    const report = await profile({ model: fixed, devices: ['cpu'], batches: [1, 2], cuts: 0 });
    expect(report.notes).toEqual(['batch 2: the model has no dimension for it']);
    expect(report.shards.map(({ batch }) => batch)).toEqual([1]);
  });
});

/** Kills the process in earnest at a load. */
function killedAtLoad(executor: Executor, at: number): Executor {
  let loads = 0;
  return {
    description: executor.description,
    load: (request) => {
      loads += 1;
      if (loads === at) process.kill(executor.description.pid as number, 'SIGKILL');
      return executor.load(request);
    },
    run: (request) => executor.run(request),
    unload: (session) => executor.unload(session),
    usage: () => executor.usage(),
    onLost: (listener) => executor.onLost(listener),
    close: (options) => executor.close(options),
  };
}
