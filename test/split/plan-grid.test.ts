/** `intarsia plan --grid` below the command line: a grid's devices, records and names; real executors where it measures. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NodeClock } from '#adapters/node/clock.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import type { PlanReport, PlanRequest } from '#cli/plan-report.js';
import { readDeployments } from '#cli/deploy-file.js';
import type { GridHost } from '#client/index.js';
import { gridDevices, type GridFacts } from '#compose/split/plan-grid.js';
import { planModel } from '#compose/split/plan-model.js';
import type { DiscoveryReport } from '#core/device-discovery.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { deploymentsOfFile } from '#core/grid/deployment-file.js';
import type { LinkRecord, ProfileRecord } from '#core/profile/profile-record.js';
import { timesOfMean } from '#core/profile/time-stats.js';
import { KiB, MiB } from '#core/units.js';
import { pretendProgram } from '../cli/pretend-program.js';
import { perceptron } from './perceptron.js';

const discovery = {
  host: { usableCores: 2, hostname: 'here' },
  devices: [
    {
      ...{ id: 'cpu:0', kind: 'cpu', name: 'a cpu', vendor: '', provider: 'cpu', fallbackProviders: [], facts: {} },
      ...{ emulated: false, memoryBytes: 1024 * MiB, threads: 2, permits: 2 },
    },
  ],
  unusable: [],
  accelerators: [],
} as unknown as DiscoveryReport;

function host(name: string, more: Partial<GridHost> = {}, device: Partial<GridHost['devices'][number]> = {}): GridHost {
  return {
    ...{ host: name, role: 'host', state: 'up', cordoned: false, generation: 1, tier: 'core', zone: 'a', spot: false },
    ...{ labels: {}, softwareVersion: '', linkAddress: '', grpcEndpoint: '', httpEndpoint: '', roundTripMs: 0 },
    degraded: '',
    devices: [
      {
        ...{ id: 'cpu:0', provider: 'cpu', profile: '', emulated: false, memoryBytes: 1024 * MiB, memoryUsedBytes: 0 },
        ...{ pricePerHour: 0, queued: 0, inFlight: 0, degraded: '', name: 'a cpu', threads: 2, ...device },
      },
    ],
    ...more,
  };
}

function link(from: string, to: string, bytes: number, ms: number): LinkRecord {
  const [a, b] = [
    { host: from, device: '' },
    { host: to, device: '' },
  ];
  return { type: 'link', schema: 1, from: a, to: b, bytes, times: timesOfMean(ms, 20), atMs: 0 };
}

let folder: string;
let model: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'intarsia-plan-grid-test-'));
  model = join(folder, 'perceptron', '3', 'model.onnx');
  await mkdir(join(folder, 'perceptron', '3'), { recursive: true });
  await writeFile(model, perceptron(6, 128));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const base: PlanRequest = {
  ...{ model: '', devices: [], goal: 'throughput', items: 1, strategy: 'auto', providers: [], memoryBytes: new Map() },
  ...{ measureSeconds: 0, frontierMax: 10, vectors: '', profilesPath: '', picture: false },
  grid: { endpoints: 'somewhere:1' },
};

function plan(
  facts: GridFacts,
  more: Partial<PlanRequest> = {},
  records: { readonly known: readonly ProfileRecord[]; readonly kept?: ProfileRecord[] } = { known: [] },
): Promise<PlanReport> {
  return planModel(
    { ...base, model, ...more },
    {
      startExecutor: ({ provider }) => startProcessExecutor({ provider, lanes: 1 }),
      ...{ discovery, profiles: builtInProfiles, clock: new NodeClock(), progress: () => undefined },
      records: records.known,
      keep: (measured) => {
        records.kept?.push(...measured);
        return Promise.resolve();
      },
      askGrid: () => Promise.resolve(facts),
    },
  );
}

/** A piece as a CPU of a host has served it. */
function served(
  digest: string,
  host: string,
  range: { readonly from: number; readonly to: number },
  ms: number,
): ProfileRecord {
  return {
    ...{ type: 'shard', schema: 1, model: digest, nodes: 13, ...range, batch: 1, source: 'served' },
    ...{ times: timesOfMean(ms, 100), host, device: 'cpu:0', silicon: 'a cpu', provider: 'cpu' },
    ...{ engine: 'e', threads: 2, emulated: false, precision: 'fp32', optimization: 'all', atMs: 0 },
    ...{ weightBytes: 0, peakActivationBytes: 0, loadedBytes: 0, inputBytes: 0, outputBytes: 0 },
  };
}

const half = (name: string): GridHost => host(name, {}, { memoryBytes: 230 * KiB });

describe('a plan over a grid', () => {
  it('names hosts in its stages, and its file is a deployment as it is', async () => {
    const facts = { hosts: [half('host-1'), half('host-2')], records: [], models: [] };
    const report = await plan(facts);
    expect(report.choice?.stages.flatMap(({ devices }) => devices).sort()).toEqual(['host-1/cpu:0', 'host-2/cpu:0']);
    expect(report.devices[0]).toMatchObject({ host: 'host-1', tier: 'core', zone: 'a', threads: 2 });
    const path = join(folder, 'plan.json');
    await writeFile(path, JSON.stringify(report));
    const { program } = pretendProgram({ readYamlFile: () => Promise.resolve(JSON.parse(JSON.stringify(report))) });
    const [deployment] = await readDeployments(path, program);
    expect(deployment).toMatchObject({ name: 'perceptron', model: 'perceptron', version: '3', strategy: 'pipeline' });
    expect(deployment?.splitWish).toMatchObject({ cuts: report.choice?.cuts, digest: report.digest });
    // What the plan says of each stage is what is expected of it when it serves.
    expect(deployment?.splitWish?.shards.map(({ plannedMs }) => plannedMs)).toEqual(
      report.choice?.stages.map(({ ms }) => ms.value / (report.choice?.batch ?? 0)),
    );
    const places = deployment?.splitWish?.shards.map(({ constraints }) => constraints);
    expect(places).toEqual(
      report.choice?.stages.map(({ devices }) => ({ hosts: [devices[0]?.split('/')[0]], devices: ['cpu:0'] })),
    );
  });

  it('puts a stage on several hosts that take turns where few stages are allowed, as a deployment that names them', async () => {
    // A copy of a stage for each of three hosts: two stages alone would leave one of them idle.
    const hosts = ['host-1', 'host-2', 'host-3'].map((name) => host(name, {}, { memoryBytes: 300 * KiB }));
    const { digest } = await plan({ hosts, records: [], models: [] });
    // Two nodes a layer, 30 ms a layer: what is sent between hosts is nothing beside it.
    const layers = [0, 2, 4, 6, 8, 10].flatMap((from) =>
      hosts.map(({ host: name }) => served(digest, name, { from, to: from === 10 ? 13 : from + 2 }, 30)),
    );
    const facts = { hosts, records: layers, models: [] };
    const report = await plan(facts, { strategy: 'pipeline', stagesMax: 2 });
    const teams = report.choice?.stages.map(({ devices }) => devices) ?? [];
    expect(teams.map(({ length }) => length).sort()).toEqual([1, 2]);
    expect(teams.flat().sort()).toEqual(['host-1/cpu:0', 'host-2/cpu:0', 'host-3/cpu:0']);
    const one = await plan({ ...facts, hosts: hosts.slice(0, 2) }, { strategy: 'pipeline', stagesMax: 2 });
    const pace = ({ choice }: PlanReport): number => choice?.requestsPerSecond.value ?? 0;
    expect(pace(report)).toBeGreaterThan(1.2 * pace(one));
    const wish = deploymentsOfFile(JSON.parse(JSON.stringify(report.deployment)), 'plan')[0]?.splitWish;
    expect(wish?.shards.map(({ constraints, standby }) => [constraints, standby])).toEqual(
      teams.map((devices) => [
        { hosts: devices.map((device) => device.split('/')[0]), devices: ['cpu:0'] },
        devices.length - 1,
      ]),
    );
  });

  it('calls the model what the grid calls it', async () => {
    const { deployment } = await plan({
      hosts: [host('host-1')],
      records: [],
      models: [{ model: 'other', version: '7' }],
    });
    expect(deployment).toMatchObject({ model: 'other', version: '7', replicas: 1 });
    expect(deployment?.constraints).toEqual({ hosts: ['host-1'], devices: ['cpu:0'] });
  });

  it('takes links between hosts as they were measured, and sends little over a slow one', async () => {
    const hosts = [half('host-1'), half('host-2')];
    const links = [link('host-1', 'host-2', 64, 3), link('host-1', 'host-2', MiB, 103)];
    const fast = await plan({ hosts, records: [], models: [] });
    const slow = await plan({ hosts, records: links, models: [] });
    const sent = ({ choice }: PlanReport): number => choice?.stages[0]?.sendsMs.value ?? 0;
    // 512 bytes: three milliseconds of the link, and the ways into and out of executors.
    expect(sent(slow)).toBeGreaterThan(3);
    expect(sent(slow)).toBeLessThan(4);
    expect(sent(fast)).toBeLessThan(1);
    // Where no record says it, what the host that was asked sees of the others does.
    const seen = await plan({
      hosts: [half('host-1'), { ...half('host-2'), roundTripMs: 10 }],
      records: [],
      models: [],
    });
    expect(sent(seen)).toBeGreaterThan(5);
  });

  it(
    'takes what hosts measured of the model, and measures only what has its like here',
    { timeout: 90_000 },
    async () => {
      const { digest } = await plan({ hosts: [host('host-1')], records: [], models: [] });
      const whole: ProfileRecord = {
        ...{ type: 'shard', schema: 1, model: digest, nodes: 13, from: 0, to: 13, batch: 1, source: 'served' },
        ...{ times: timesOfMean(7, 100), host: 'host-2', device: 'cuda:0', silicon: 'a gpu', provider: 'cuda' },
        ...{ engine: 'e', threads: 0, emulated: false, precision: 'fp32', optimization: 'all', atMs: 0 },
        ...{ weightBytes: 0, peakActivationBytes: 0, loadedBytes: 0, inputBytes: 0, outputBytes: 0 },
      };
      const gpu = host('host-2', {}, { id: 'cuda:0', provider: 'cuda', name: 'a gpu', threads: 0 });
      const report = await plan({ hosts: [host('host-1'), gpu], records: [whole], models: [] }, { measureSeconds: 10 });
      const [here, away] = report.wholes;
      expect(here?.stages[0]?.ms.source).toBe('measured');
      expect(away?.stages[0]).toMatchObject({ devices: ['host-2/cuda:0'], ms: { source: 'measured' } });
      expect(away?.stages[0]?.ms.value).toBeGreaterThan(6.5);
      expect(report.notes.join()).toContain('host-2/cuda:0: this machine has no such silicon');
    },
  );

  it('a second plan measures only what the first one did not', { timeout: 90_000 }, async () => {
    const facts = { hosts: [host('host-1')], records: [], models: [] };
    const kept: ProfileRecord[] = [];
    await plan(facts, { measureSeconds: 20 }, { known: [], kept });
    const shards = kept.filter(({ type }) => type === 'shard');
    expect(shards.length).toBeGreaterThan(5);
    expect(kept.filter(({ type }) => type === 'link').length).toBeGreaterThan(3);
    expect(new Set(shards.map((record) => ('host' in record ? record.host : '')))).toEqual(new Set(['here']));
    const again: ProfileRecord[] = [];
    const second = await plan(facts, { measureSeconds: 20 }, { known: kept, kept: again });
    expect(again.filter(({ type }) => type === 'link')).toEqual([]);
    expect(again.length).toBeLessThan(shards.length / 3);
    expect(second.choice?.latencyMs.source).toBe('measured');
  });
});

describe('devices of a grid', () => {
  const parts = { discovery, profiles: builtInProfiles };
  const hosts = [
    host('host-1'),
    host('host-2', { tier: 'edge', zone: 'b' }),
    host('host-3', { state: 'draining' }),
    host('host-4', { cordoned: true }),
    host('host-5', {}, { degraded: 'wrong answers' }),
    host('host-6', {}, { provider: 'remote' }),
    host('host-7', {}, { id: 'emu:0', provider: 'none', profile: 'nvidia-l4', emulated: true }),
  ];
  const ids = (more: Partial<PlanRequest>): readonly string[] =>
    gridDevices({ ...base, ...more }, { hosts }, parts).devices.map(({ id }) => id);

  it('are those of hosts that are up, picked by tier, zone, host, device, provider and memory', () => {
    expect(ids({})).toEqual(['host-1/cpu:0', 'host-2/cpu:0', 'host-7/emu:0']);
    expect(ids({ tiers: ['edge'] })).toEqual(['host-2/cpu:0']);
    expect(ids({ zones: ['a'] })).toEqual(['host-1/cpu:0', 'host-7/emu:0']);
    expect(ids({ hosts: ['host-2', 'host-7'] })).toEqual(['host-2/cpu:0', 'host-7/emu:0']);
    expect(ids({ devices: ['host-1/cpu:0', 'emu:0'] })).toEqual(['host-1/cpu:0', 'host-7/emu:0']);
    expect(ids({ providers: ['cpu'] })).toEqual(['host-1/cpu:0', 'host-2/cpu:0']);
    const limited = gridDevices({ ...base, memoryBytes: new Map([['host-2/cpu:0', 5]]) }, { hosts }, parts);
    expect(limited.devices.map(({ memoryBytes }) => memoryBytes)).toContain(5);
    expect(limited.notes).toEqual([
      'host host-3 is left out: draining',
      'host host-4 is left out: cordoned',
      'host-5/cpu:0 is left out: wrong answers',
      'host-6/cpu:0 is left out: no shard can be loaded on provider remote',
    ]);
  });

  it('that are not there are refused with those that are', () => {
    expect(() => ids({ devices: ['host-9'] })).toThrow(
      '--devices names host-9; the grid has host-1/cpu:0, host-2/cpu:0, host-7/emu:0',
    );
    expect(() => ids({ tiers: ['regional'] })).toThrow('no host of the grid has devices for the plan; it has host-1');
    expect(() => ids({ memoryBytes: new Map([['cpu:0', 1]]) })).toThrow('--memory names cpu:0; the devices are');
    const many = Array.from({ length: 65 }, (_, index) => host(`h${index}`));
    expect(() => gridDevices(base, { hosts: many }, parts)).toThrow('at most 64 devices; 65 of the grid are meant');
  });
});

describe('a deployment that leaves it to the plan', () => {
  const shared = {
    name: 'm',
    model: 'm',
    version: '1',
    replicas: 2,
    strategy: 'data',
    constraints: { hosts: ['a', 'b'] },
  };
  const file = { name: 'd', model: 'm', version: '1', replicas: 1, strategy: 'auto' };

  it('shares whole models or takes one where the plan found that better than to split', () => {
    const [deployment] = deploymentsOfFile({ ...file, split: { plan: { deployment: shared } } }, 'f');
    expect(deployment).toMatchObject({ name: 'd', strategy: 'data', replicas: 2, constraints: { hosts: ['a', 'b'] } });
    expect(deployment?.splitWish).toBeUndefined();
    expect(() =>
      deploymentsOfFile({ ...file, strategy: 'data', split: { plan: { deployment: shared } } }, 'f'),
    ).toThrow('f: split.plan: expected a plan that splits the model');
  });
});
