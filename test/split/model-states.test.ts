/** Plans and checks of models whose configuration declares states: they are read where repositories have them. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NodeClock } from '#adapters/node/clock.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import type { PlanReport, PlanRequest } from '#cli/plan-report.js';
import type { SplitRequest } from '#cli/split-report.js';
import { planModel } from '#compose/split/plan-model.js';
import { verifySplit } from '#compose/split/verify-split.js';
import type { DiscoveryReport } from '#core/device-discovery.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { encodeModelBytes } from '#core/onnx/writer.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'intarsia-states-test-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** s' = s + x; y = s' × 2; z = y + 1 with t' = t + z, and z × 3: two states, and places beside them. */
function states(): Uint8Array {
  const graph = new GraphBuilder('states');
  const x = graph.input('x', 'FP32', ['batch', 4]);
  const s = graph.input('s', 'FP32', ['batch', 4]);
  const t = graph.input('t', 'FP32', ['batch', 4]);
  const next = graph.node('Add', [s, x], { output: 's_next' });
  const doubled = graph.node('Mul', [next, graph.constant('two', [1], Float32Array.of(2))]);
  const z = graph.node('Add', [doubled, graph.constant('one', [1], Float32Array.of(1))]);
  const both = graph.node('Mul', [t, z]);
  const kept = graph.node('Add', [both, t], { output: 't_next' });
  const y = graph.node('Mul', [kept, graph.constant('three', [1], Float32Array.of(3))], { output: 'y' });
  for (const name of [next, kept, y]) graph.output(name, 'FP32', ['batch', 4]);
  return encodeModelBytes(graph.model({ opset: 17 }));
}

const state = (input: string, output: string): string =>
  `state { input_name: "${input}" output_name: "${output}" data_type: TYPE_FP32 dims: [ 4 ] }`;
const sequences = `max_batch_size: 8\nsequence_batching { ${state('s', 's_next')} ${state('t', 't_next')} }`;

async function model(name: string, config: string | undefined): Promise<string> {
  const version = join(folder, name, '1');
  await mkdir(version, { recursive: true });
  if (config !== undefined) await writeFile(join(folder, name, 'config.pbtxt'), config);
  await writeFile(join(version, 'model.onnx'), states());
  return join(version, 'model.onnx');
}

const start = ({ provider }: { readonly provider: PlanProvider }) => startProcessExecutor({ provider, lanes: 1 });
type PlanProvider = Parameters<typeof startProcessExecutor>[0]['provider'];

function plan(path: string, more: Partial<PlanRequest> = {}): Promise<PlanReport> {
  const request: PlanRequest = {
    ...{ model: path, devices: ['emulated:nvidia-l4', 'emulated:nvidia-t4'], goal: 'throughput', items: 1 },
    ...{ strategy: 'auto', providers: [], memoryBytes: new Map(), measureSeconds: 0, frontierMax: 10, vectors: '' },
    ...{ profilesPath: '', picture: false, ...more },
  };
  const discovery = { host: { usableCores: 2 }, devices: [], unusable: [], accelerators: [] };
  return planModel(request, {
    ...{ startExecutor: start, discovery: discovery as unknown as DiscoveryReport, profiles: builtInProfiles },
    ...{ clock: new NodeClock(), records: [], progress: () => undefined },
  });
}

const reasonOfT = '"t" is a state, which must be read and made ("t_next") in one shard: nodes 3 to 4 cannot be parted';

describe('a plan of a model that keeps states', () => {
  it('cuts between no state and what makes it, says why, and spreads no requests of sequences', async () => {
    const report = await plan(await model('kept', sequences));
    expect([report.impossibleCuts, report.impossibleReason]).toEqual([1, reasonOfT]);
    expect(report.notes).toContain('config.pbtxt has the state "t": nodes 3 to 4 stay in one shard');
    expect(new Set(report.frontier.map(({ strategy }) => strategy)).has('data')).toBe(false);
    for (const { cuts } of report.frontier) expect(cuts).not.toContain(4);
    await expect(plan(await model('kept', sequences), { strategy: 'data' })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining('takes sequences (sequence_batching in its config.pbtxt)') as string,
    });
  });

  it('looks at the configuration of a model folder alone, and names one that is none', async () => {
    const free = await plan(await model('free', undefined));
    expect([free.impossibleCuts, free.legalCuts]).toEqual([0, 5]);
    await expect(plan(await model('broken', 'sequence_batching { state { ]'))).rejects.toMatchObject({
      message: expect.stringContaining(join('broken', 'config.pbtxt')) as string,
    });
  });
});

describe('a check of a model that keeps states', () => {
  const check = (path: string, more: Partial<SplitRequest> = {}) =>
    verifySplit(
      {
        ...{ model: path, stages: 2, devices: ['cpu'], cuts: 'all', optimization: 'disabled', vectors: '', seed: 1 },
        ...more,
      },
      (provider) => start({ provider }),
    );

  it('tries no cut through a state, and has no legal one where states bind all nodes', async () => {
    const path = await model('checked', sequences);
    const all = await check(path);
    expect(all).toMatchObject({
      verdict: 'equal',
      cutsTried: 4,
      wrong: 0,
      impossible: [{ cut: [4], reason: reasonOfT }],
    });
    const some = await check(path, { cuts: 3 });
    expect(some).toMatchObject({ verdict: 'equal', cutsTried: 3, impossible: [{ cut: [4], reason: reasonOfT }] });
    const bound = `max_batch_size: 8\nsequence_batching { ${state('s', 'y')} }`;
    const none = await check(await model('bound', bound));
    expect(none).toMatchObject({ verdict: 'no-legal-cut', cutsTried: 0 });
    expect(none.reason).toContain('"s" is a state, which must be read and made ("y") in one shard');
  });
});
