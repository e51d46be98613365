import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ProfileFolder } from '#adapters/profile-files/profile-folder.js';
import { servedIntervalMs, ServedRecorder, type ServedRecorderOptions } from '#compose/profile/served-recorder.js';
import type { Catalog } from '#core/catalog.js';
import type { DeviceDescriptor } from '#core/device.js';
import { gridKeys } from '#core/grid/keys.js';
import { hostId, modelName, modelVersion } from '#core/ids.js';
import { ModelStatisticsRecorder } from '#core/model-statistics.js';
import { LinkTable, ServiceTable } from '#core/profile/service-table.js';
import { silentLog } from '#ports/log.js';
import { PretendStore } from '#sim/pretend-store.js';
import { VirtualClock } from '#sim/virtual-clock.js';
import { modelDigest, newYearMs, shardRecord } from './records.js';

const whole = { from: 0, to: 10 };
const name = modelName('digits');
const version = modelVersion('1');
const catalog = {
  models: new Map([[name, { served: new Map([[version, { digest: modelDigest }]]) }]]),
} as unknown as Catalog;
const descriptor = { id: 'cpu:0', name: 'a cpu', provider: 'cpu', threads: 1, emulated: false, facts: {} };

let folder: string;
let clock: VirtualClock;
const opened: ProfileFolder[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'served-'));
  clock = new VirtualClock({ wallStartMs: newYearMs });
});
afterEach(async () => {
  for (const profiles of opened.splice(0)) await profiles.close().catch(() => undefined);
  await rm(folder, { recursive: true, force: true });
});

interface Recording {
  readonly recorder: ServedRecorder;
  readonly profiles: ProfileFolder;
  /** So many runs of so many items that took `ms` each. */
  serve(runs: number, items: number, ms: number): void;
}

async function recording(host: string, change: Partial<ServedRecorderOptions> = {}): Promise<Recording> {
  const profiles = await ProfileFolder.open({ path: join(folder, host), clock });
  opened.push(profiles);
  const statistics = new ModelStatisticsRecorder();
  const recorder = new ServedRecorder({
    host: hostId(host),
    devices: [
      {
        descriptor: descriptor as unknown as DeviceDescriptor,
        statistics: () =>
          Promise.resolve([{ model: name, version, memoryBytes: 5, statistics: statistics.snapshot() }]),
      },
    ],
    ...{ catalog: () => catalog, profiles, clock, log: silentLog, ...change },
  });
  const serve = (runs: number, items: number, ms: number): void => {
    for (let run = 0; run < runs; run += 1) {
      statistics.recordRun({
        ...{ requests: 1, items, requestUs: 0, queueUs: 0, finishedWallMs: clock.wallMs() },
        ...{ computeInputUs: ms * 100, computeInferUs: ms * 800, computeOutputUs: ms * 100 },
      });
    }
  };
  return { recorder, profiles, serve };
}

async function tableOf(profiles: ProfileFolder): Promise<ServiceTable> {
  const { records } = await profiles.read({ model: modelDigest });
  return new ServiceTable([...records, shardRecord([100])], { model: modelDigest, prefer: 'served' });
}

describe('what a host serves', () => {
  it('is recorded by batch size, each run once', async () => {
    const { recorder, profiles, serve } = await recording('alpha');
    serve(60, 1, 2);
    serve(50, 4, 6);
    await recorder.record();
    serve(20, 1, 10);
    await recorder.record();
    await recorder.record();
    const table = await tableOf(profiles);
    const selector = { host: 'alpha', device: 'cpu:0', threads: 1, provider: 'cpu' };
    expect(table.cell(selector, whole, 1)).toMatchObject({ source: 'served', count: 80, maxMs: 10, minMs: 2 });
    expect(table.ms(selector, whole, 1)).toBeCloseTo(4, 6);
    expect(table.cell(selector, whole, 4)).toMatchObject({ count: 50 });
    expect(table.ms(selector, whole, 4)).toBeCloseTo(6, 6);
  });

  it('waits for the next time where it is too little, and is never lost', async () => {
    const { recorder, profiles, serve } = await recording('alpha');
    serve(2, 1, 3);
    await recorder.record();
    expect((await profiles.read()).records).toEqual([]);
    serve(1, 1, 6);
    await recorder.record();
    expect((await tableOf(profiles)).cell({ host: 'alpha' }, { from: 0, to: 10 }, 1)?.count).toBe(1);
    const [record] = (await profiles.read()).records;
    expect(record).toMatchObject({ type: 'shard', source: 'served', loadedBytes: 5, times: { count: 3 } });
  });

  it('is recorded at intervals, and once more at the end', async () => {
    const { recorder, profiles, serve } = await recording('alpha');
    recorder.start();
    serve(5, 1, 1);
    clock.runUntil(servedIntervalMs - 1);
    expect((await profiles.read()).records).toEqual([]);
    serve(5, 1, 1);
    await recorder.stop();
    const again = await ProfileFolder.open({ path: join(folder, 'alpha'), clock });
    opened.push(again);
    expect((await again.read()).records).toMatchObject([{ times: { count: 10 } }]);
  });

  it('goes on without when a device or the disk does not answer', async () => {
    const warnings: string[] = [];
    const { recorder } = await recording('alpha', {
      devices: [
        {
          descriptor: descriptor as unknown as DeviceDescriptor,
          statistics: () => Promise.reject(new Error('no answer')),
        },
      ],
      log: { ...silentLog, warn: (message, fields) => void warnings.push(`${message}: ${String(fields?.['reason'])}`) },
    });
    await recorder.record();
    expect(warnings).toEqual(['what was served could not be recorded: no answer']);
  });
});

describe('what hosts of a grid measured', () => {
  it('reaches the others, links between hosts included, and is counted once however often it comes', async () => {
    const store = new PretendStore({ clock });
    const exchange = { store: store.client('exchange'), keys: gridKeys('test') };
    const alpha = await recording('alpha', {
      exchange,
      peers: () => [{ host: 'beta', roundTripMs: 3, bytesPerSecond: 2 ** 20 * 1000 }],
    });
    const beta = await recording('beta', { exchange });
    const record = async ({ recorder }: Recording): Promise<void> => {
      const state = { isDone: false };
      void recorder.record().then(() => (state.isDone = true));
      while (!state.isDone) {
        clock.advance(10);
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    alpha.serve(60, 1, 2);
    beta.serve(50, 1, 8);
    await record(alpha);
    await record(beta);
    // Exchanged every fifth time: alpha learns of beta then.
    for (let look = 0; look < 10; look += 1) await record(look % 2 === 0 ? alpha : beta);
    for (const { profiles } of [alpha, beta]) {
      const table = await tableOf(profiles);
      expect(table.cell({ host: 'alpha', device: 'cpu:0' }, { from: 0, to: 10 }, 1)?.count).toBeGreaterThanOrEqual(1);
      expect(table.cell({ provider: 'cpu', host: 'beta' }, { from: 0, to: 10 }, 1)).toMatchObject({
        count: 50,
        source: 'served',
      });
      const { records } = await profiles.read();
      const links = new LinkTable(records);
      const [small, large] = links.rows({ host: 'alpha', device: '' }, { host: 'beta', device: '' });
      expect([small?.meanMs, large?.meanMs]).toEqual([1.5, 2.5]);
    }
    const { records } = await beta.profiles.read({ host: 'alpha' });
    expect(records.filter(({ type }) => type === 'shard')).toMatchObject([{ times: { count: 60 } }]);
  });
});
