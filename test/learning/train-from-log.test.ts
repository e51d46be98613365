import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { LogTrainReport } from '#cli/train-report.js';
import { estimatePolicies } from '#compose/learning/judge-log.js';
import { trainFromLog } from '#compose/learning/train-from-log.js';
import { RandomStream } from '#core/random.js';
import type { DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { featureCount, featureNames, planFeatureCount, planSchema } from '#core/scheduling/features.js';
import { encodePolicy, readPolicy, schemaOf } from '#core/scheduling/policy-file.js';
import { dispatchFromFile } from '#policies/placement/dispatch-from-file.js';
import { pretendProgram, run } from '../cli/pretend-program.js';
import { LogWorld, temporaryFolder } from '../decision-log/log-world.js';

describe('a policy tuned on a log', () => {
  let folder = '';
  let remove: () => Promise<void>;
  beforeEach(async () => {
    ({ path: folder, remove } = await temporaryFolder());
  });
  afterEach(() => remove());

  /** Three devices, of which the dearest is always late. `explores`: chosen evenly, and said so; else always the second. */
  function writeLog(requests: number, explores = true): string {
    const random = new RandomStream(2);
    const policy: DispatchPolicy = {
      name: 'writer',
      trace: { propensity: explores ? 1 / 3 : 1, fallback: '' },
      choose: (_request, candidates) => (explores ? random.below(candidates.length) : 1),
    };
    const path = join(folder, `log ${requests} ${explores}`);
    const world = new LogWorld({ policy, folder: path });
    for (let number = 0; number < requests; number += 1) {
      world.nowMs += 400;
      const { request, index } = world.ask({ sloMs: 100, sloClass: 'standard' });
      world.answer(request, index, 40 * (index + 1));
    }
    world.close();
    return path;
  }

  /** A network that likes dear devices. */
  function writePolicy(inputs = featureCount): string {
    const weights = new Float32Array(inputs);
    weights[featureNames.indexOf('price_rank')] = 0.5;
    const edge = (value: number): number[] => Array.from({ length: inputs }, () => value);
    const path = join(folder, 'deployed.onnx');
    const layers = [{ in: inputs, out: 1, weights, bias: new Float32Array(1) }];
    const bytes = encodePolicy({
      ...{ name: 'dear', decides: 'dispatch', fallback: 'sed', notes: { origin: 'a test' } },
      network: { layers, activation: 'tanh' },
      ranges: { least: edge(-3), low: edge(-3), high: edge(3), greatest: edge(3) },
    });
    writeFileSync(path, bytes);
    return path;
  }

  function writePlan(): string {
    const path = join(folder, 'plan.yaml');
    writeFileSync(path, 'epochs: 12\nlearningRate: 0.02\ndivergenceWeight: 0.01\nhalfLifeMs: 100\nheldOutShare: 0.5\n');
    return path;
  }

  function tune(log: string, out: string, seed = 3, inputs = featureCount): Promise<LogTrainReport> {
    const request = { folder: log, policy: writePolicy(inputs), configPath: writePlan(), seed, out: join(folder, out) };
    return trainFromLog({ ...request, backend: 'cpu' }, () => undefined);
  }

  it('leaves the device that is always late, and decisions that nothing was learned from say so; the same log gives the same bytes', async () => {
    const log = writeLog(7_000);
    const report = await tune(log, 'tuned');
    expect([report.decisions, report.explored]).toEqual([3_500, 1]);
    expect(report.effectiveDecisions).toBeGreaterThan(500);
    if ('reason' in report.before || 'reason' in report.after) throw new Error('no estimate');
    expect(report.after.effectiveDecisions).toBeGreaterThan(1_000);
    // Before, every answer is late and pays λ; after, hardly any.
    expect(report.after.doublyRobust.low).toBeGreaterThan(report.before.doublyRobust.high + 5);
    expect(report.after.snips.low).toBeGreaterThan(report.before.snips.high + 5);

    const bytes = readFileSync(report.policyPath);
    const tuned = readPolicy(bytes);
    expect([tuned.name, tuned.fallback, tuned.notes['origin']]).toEqual(['dear-log3', 'sed', 'a test']);
    const manifest = JSON.parse(readFileSync(join(report.folder, 'manifest.json'), 'utf8')) as Record<string, unknown>;
    expect(manifest).toMatchObject({
      from: { policy: 'dear' },
      options: { epochs: 12, seed: 3 },
      policySha256: report.policySha256,
    });
    expect(dispatchFromFile(bytes).name).toContain('dear-log3');
    // The whole log, as `evaluate --log` asks it, says the same.
    const [asked] = (await estimatePolicies({ folder: log, policies: [report.policyPath] })).policies;
    expect(asked?.doublyRobust.value).toBeCloseTo(report.after.doublyRobust.value, 0);

    expect((await tune(log, 'again')).policySha256).toBe(report.policySha256);
    expect((await tune(log, 'other seed', 4)).policySha256).not.toBe(report.policySha256);
  });

  it('may see the fluid programme: it is tuned and estimated with what the log holds of it', async () => {
    const log = writeLog(7_000);
    const report = await tune(log, 'planned', 3, planFeatureCount);
    expect(schemaOf(readPolicy(readFileSync(report.policyPath)))).toBe(planSchema);
    expect(JSON.parse(readFileSync(join(report.folder, 'manifest.json'), 'utf8'))).toMatchObject({
      schema: planSchema,
    });
    const [asked] = (await estimatePolicies({ folder: log, policies: [report.policyPath] })).policies;
    if ('reason' in report.after) throw new Error('no estimate');
    expect(asked?.doublyRobust.value).toBeCloseTo(report.after.doublyRobust.value, 0);
  });

  it('says that a log without exploration speaks for no other choice, and refuses one that is too short', async () => {
    const { before, after, explored } = await tune(writeLog(1_000, false), 'certain');
    expect(explored).toBe(0);
    expect(before).toEqual({ reason: expect.stringMatching(/effective sample size/u) as string });
    expect(after).toHaveProperty('reason');
    await expect(tune(writeLog(300), 'short')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  });

  it('comes from a command that refuses what means nothing to a log', async () => {
    const report = await tune(writeLog(600), 'tuned');
    const { program } = pretendProgram({ trainFromLog: () => Promise.resolve(report) });
    const said = await run(['train', '--from-log', 'log', '--policy', 'dispatch-1'], program);
    expect(said.out).toMatch(/tuned on 300 decisions/u);
    expect(said.out).toMatch(/no estimate: .*effective sample size/u);
    for (const [flags, reason] of [
      [['--from-log', 'log'], /go together/u],
      [['--policy', 'dispatch-1'], /go together/u],
      [['--from-log', 'log', '--policy', 'p', '--quick'], /--quick means nothing/u],
    ] as const) {
      const refused = await run(['train', ...flags], program);
      expect(refused.code).toBe(2);
      expect(refused.err).toMatch(reason);
    }
  });
});
