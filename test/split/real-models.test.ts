/**
 * Every real model of ../shared/models, cut and run on executor processes, compared with the whole model.
 *
 * With the tests a few cuts each. All of it, 20 cuts a model at 2 to 5 stages, takes minutes:
 * `INTARSIA_SPLIT_CUTS=20 npx vitest run test/split/real-models.test.ts`
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { verifySplit } from '#compose/split/verify-split.js';
import type { SplitReport, SplitRequest } from '#cli/split-report.js';
import type { Executor } from '#ports/executor.js';
import { sharedModels, sharedModelsMissing } from '../conformance/shared-models.js';

const missing = sharedModelsMissing === '' ? '' : ` (skipped: ${sharedModelsMissing})`;
const long = process.env['INTARSIA_SPLIT_CUTS'];
const cuts = Number(long ?? 2);

interface RealModel {
  readonly name: string;
  readonly path: string;
  readonly vectors: string;
  /** Loading it takes seconds: in the long run only. */
  readonly heavy: boolean;
}

const folders = ['mnist', 'squeezenet-fp16', 'ultraface-rfb-320', 'micro-kws', 'gtcrn', 'silero-vad', 'stories260K'];

function realModels(): readonly RealModel[] {
  if (missing !== '') return [];
  const models = [...folders, 'onnx-light'].flatMap((folder) =>
    readdirSync(join(sharedModels, folder))
      .filter((file) => file.endsWith('.onnx'))
      .map((file): RealModel => {
        const vectors = join(sharedModels, folder, 'test_data_set_0');
        return {
          name: `${folder}/${file}`,
          path: join(sharedModels, folder, file),
          vectors: existsSync(vectors) ? vectors : '',
          heavy: /vgg|alexnet|zfnet|inception_v2|densenet|resnet/.test(file),
        };
      }),
  );
  return models.filter(({ heavy }) => long !== undefined || !heavy);
}

const models = realModels();

/** Of all reports with and without the optimiser; the long run prints them. */
const totals = {
  disabled: { reports: 0, cutsTried: 0, bitExact: 0, close: 0, wrong: 0, impossible: 0, maxRelativeError: 0 },
  all: { reports: 0, cutsTried: 0, bitExact: 0, close: 0, wrong: 0, impossible: 0, maxRelativeError: 0 },
};

function count(optimization: keyof typeof totals, report: SplitReport): void {
  const total = totals[optimization];
  total.reports += 1;
  for (const field of ['cutsTried', 'bitExact', 'close', 'wrong'] as const) total[field] += report[field];
  total.impossible += report.impossible.length;
  total.maxRelativeError = Math.max(total.maxRelativeError, report.maxRelativeError);
}

describe.skipIf(missing !== '')(`real models in pieces${missing}`, () => {
  let executor: Executor;
  beforeAll(async () => {
    executor = await startProcessExecutor({ provider: 'cpu', lanes: 1 });
  });
  afterAll(async () => {
    await executor.close({ graceMs: 5_000 });
    // oxlint-disable-next-line no-console
    if (long !== undefined) console.info(JSON.stringify(totals, undefined, 2));
  });

  /** One process for all checks: each would start its own. */
  function check({ path, vectors }: RealModel, more: Partial<SplitRequest>): Promise<SplitReport> {
    const request = {
      model: path,
      stages: 2,
      devices: ['cpu'] as const,
      cuts,
      optimization: 'all' as const,
      vectors,
      seed: 1,
    };
    const shared: Executor = {
      description: executor.description,
      load: (load) => executor.load(load),
      run: (run) => executor.run(run),
      unload: (session) => executor.unload(session),
      usage: () => executor.usage(),
      onLost: (listener) => executor.onLost(listener),
      close: () => Promise.resolve(),
    };
    return verifySplit({ ...request, ...more }, () => Promise.resolve(shared));
  }

  it('there are models of each kind', () => {
    expect(models.length).toBeGreaterThanOrEqual(long === undefined ? 12 : 18);
  });

  it.each(models)('$name: bit-exact without optimisation', { timeout: 600_000 }, async (model) => {
    for (const stages of long === undefined ? [3] : [2, 3, 4, 5]) {
      const report = await check(model, { stages, optimization: 'disabled' });
      count('disabled', report);
      expect(report, report.reason).toMatchObject({ verdict: 'equal', wrong: 0, impossible: [] });
      expect(report.cutsTried).toBeGreaterThan(0);
      if (report.toleranceRelative === 0) expect(report.bitExact).toBe(report.cutsTried);
      else expect(model.name).toContain('fp16');
    }
  });

  it.each(models)('$name: within tolerance with all optimisations', { timeout: 600_000 }, async (model) => {
    for (const stages of long === undefined ? [2] : [2, 3, 4, 5]) {
      const report = await check(model, { stages, optimization: 'all' });
      count('all', report);
      expect(report, report.reason).toMatchObject({ verdict: 'equal', wrong: 0, impossible: [] });
      expect(report.cutsTried).toBeGreaterThan(0);
    }
  });
});
