/** A plan written into a model in ONNX's own words, and read from there by checks and other plans. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NodeClock } from '#adapters/node/clock.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import type { PlanReport, PlanRequest } from '#cli/plan-report.js';
import { planModel } from '#compose/split/plan-model.js';
import { verifySplit } from '#compose/split/verify-split.js';
import type { DiscoveryReport } from '#core/device-discovery.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { KiB } from '#core/units.js';
import { perceptron } from './perceptron.js';

let folder: string;
let model: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'intarsia-annotations-test-'));
  model = join(folder, 'perceptron.onnx');
  await writeFile(model, perceptron(6, 128));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const discovery = { host: { usableCores: 2 }, devices: [], unusable: [], accelerators: [] };
const devices = ['emulated:nvidia-l4', 'emulated:nvidia-t4'];

function plan(more: Partial<PlanRequest>): Promise<PlanReport> {
  const request: PlanRequest = {
    ...{ model, devices, goal: 'throughput', items: 1, strategy: 'pipeline', providers: [], measureSeconds: 0 },
    ...{ memoryBytes: new Map(devices.map((id) => [id, 230 * KiB])), frontierMax: 10, vectors: '', profilesPath: '' },
    ...{ picture: false, ...more },
  };
  return planModel(request, {
    ...{ startExecutor: ({ provider }) => startProcessExecutor({ provider, lanes: 1 }), records: [] },
    ...{ discovery: discovery as unknown as DiscoveryReport, profiles: builtInProfiles, clock: new NodeClock() },
    progress: () => undefined,
  });
}

function check(path: string) {
  return verifySplit(
    {
      ...{ model: path, stages: 5, devices: ['cpu'], cuts: 'annotated', optimization: 'disabled', vectors: '' },
      seed: 1,
    },
    (provider) => startProcessExecutor({ provider, lanes: 1 }),
  );
}

describe('a plan as annotations of the model', () => {
  it('is written, checked as it stands in the file, and the only cut that another plan makes', async () => {
    const annotated = join(folder, 'annotated.onnx');
    const report = await plan({ annotatedPath: annotated });
    const cuts = report.choice?.cuts ?? [];
    expect(cuts).toHaveLength(1);
    expect(report.notes.join()).toContain(`annotations was written to ${annotated}`);

    expect(await check(annotated)).toMatchObject({ verdict: 'equal', stages: 2, cutsTried: 1, bitExact: 1 });
    const again = await plan({ model: annotated, memoryBytes: new Map() });
    expect(again.legalCuts).toBe(1);
    expect(again.notes).toContain(
      `the file is annotated with pipeline stages: it is cut before nodes ${cuts.join()} only`,
    );
    expect(again.impossibleReason).toBe('the nodes beside it are annotated with the same pipeline stage');
    for (const row of again.frontier) expect([[], cuts]).toContainEqual(row.cuts);
  });

  it('is not asked of a file that has none, and not written where nothing is cut', async () => {
    await expect(check(model)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: `${model} has no annotations of pipeline stages`,
    });
    const whole = join(folder, 'whole.onnx');
    const report = await plan({ annotatedPath: whole, devices: ['emulated:nvidia-l4'], memoryBytes: new Map() });
    expect(report.notes).toContain(`${whole} is not written: nothing is cut`);
  });
});
