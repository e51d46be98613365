import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { EvaluationReport, EvaluationRequest } from '#cli/evaluation-report.js';
import type { CalibrationRequest, LogEstimateRequest } from '#cli/log-evaluation-report.js';
import { evaluatePolicies } from '#compose/learning/evaluate-policies.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { pretendProgram, run } from './pretend-program.js';

const real = pretendProgram({ evaluate: evaluatePolicies }).program;
const small = '--fleets four --loads 0.5 --seeds 2 --requests 120 --workers 0 --rules cheapest-feasible,sed'.split(' ');

describe('intarsia evaluate', () => {
  it('prints a cell, the sum over cells, money against misses and the verdicts of the stress suite', async () => {
    const { code, out, err } = await run(['evaluate', ...small, '--policies', 'cf-risk', '--stress'], real);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(out).toMatch(/four \/ poisson \/ 0\.5: 2 seeds; no policy has J below \d/);
    for (const column of ['$ per 1k', 'in time/s', 'interactive missed', 'p99 ms', 'fallback', 'closed', 'forbidden']) {
      expect(out).toContain(column);
    }
    expect(out).toMatch(/Over all cells/);
    expect(out).toMatch(/front.*λ 1 .*λ 100 .*η 1/);
    expect(out).toMatch(/four \/ device-loss +cf-risk .*(passed|FAILED)/);
  });

  it('prints one JSON document with every figure', async () => {
    const { out } = await run(['evaluate', ...small, '--policies', 'cf-risk', '--json'], real);
    const report = JSON.parse(out) as EvaluationReport;
    expect(report.isDone).toBe(true);
    expect(report.contenders).toEqual(['cheapest-feasible', 'sed', 'cf-risk']);
    const [cell] = report.cells;
    expect(cell!.comparisons[0]).toMatchObject({ contender: 'cf-risk', change: expect.any(Number) as number });
  });

  it('hands over what was asked, names with spaces or commas, and takes traces in place of streams', async () => {
    const asked: EvaluationRequest[] = [];
    const { program } = pretendProgram({
      evaluate: (request) => {
        asked.push(request);
        return Promise.reject(new Error('enough'));
      },
    });
    await run(['evaluate', '--policies', 'a.onnx,b.onnx', 'sed', '--loads', '0.5,0.6', '0.8'], program);
    await run(['evaluate', '--traces', 't.csv', '--batching', 'triton', 'aimd', '--seeds', '3'], program);
    expect(asked).toMatchObject([
      { policies: ['a.onnx', 'b.onnx', 'sed'], loads: [0.5, 0.6, 0.8], arrivals: ['poisson'], seeds: 20, bounds: true },
      { traces: ['t.csv'], arrivals: [], batching: ['triton', 'aimd'], seeds: 3, loads: [0.5, 0.7, 0.9] },
    ]);
    expect(asked[0]!.fleets).toHaveLength(3);
    for (const flags of [
      ['--seeds', '0'],
      ['--loads', '0'],
      ['--workers', '65'],
    ]) {
      expect((await run(['evaluate', ...flags], program)).code).toBe(2);
    }
  });

  it('an interrupt prints what is done', async () => {
    let interrupt: (signal: string) => void = () => {};
    const { program } = pretendProgram({
      untilInterrupted: () => new Promise((resolve) => (interrupt = resolve)),
      evaluate: (request, watch) => {
        let runs = 0;
        return evaluatePolicies(request, {
          isStopWanted: watch.isStopWanted,
          onProgress: () => {
            runs += 1;
            if (runs === 3) interrupt('SIGINT');
          },
        });
      },
    });
    const flags = ['--loads', '0.4', '0.5', '0.6', '--policies', 'cf-risk'];
    const { code, out, err } = await run(['evaluate', ...small, ...flags], program);
    expect(code).toBe(0);
    expect(err).toContain('SIGINT: finishing the runs under way');
    expect(out).toContain('stopped before its end: this is what was done');
    expect(out).toMatch(/poisson \/ 0\.4: 2 seeds/);
    expect(out).not.toContain('poisson / 0.6:');
  });

  it('asks a log for estimates or a calibration', async () => {
    const asked: (LogEstimateRequest | CalibrationRequest)[] = [];
    const estimate = { value: -1, low: -1.5, high: -0.5 };
    const { program } = pretendProgram({
      estimatePolicies: (request) => {
        asked.push(request);
        const sums = { decisions: 5_000, effectiveDecisions: 2_000.4, clipped: 0.01 };
        const row = { policy: 'p.onnx', ...sums, logged: estimate, snips: estimate, doublyRobust: estimate };
        return Promise.resolve({ policies: [row], damaged: [{ file: 'x.parquet', reason: 'cut off' }] });
      },
      calibrateWithLog: (request) => {
        asked.push(request);
        const row = {
          measured: 10,
          simulated: 10,
          ksDistance: 0.3,
          p50Ms: 5,
          p99Ms: 9,
          p50Error: 0.04,
          p99Error: -0.3,
        };
        return Promise.resolve({
          ...{ fleet: 'f', policy: 'sed', requests: 10, damaged: [] },
          rows: [{ model: '', ...row, passed: false }],
          limits: { ksDistance: 0.1, p50Error: 0.1, p99Error: 0.2 },
        });
      },
    });
    const estimated = await run(['evaluate', '--log', 'dir', '--policies', 'p.onnx'], program);
    expect(estimated.out).toMatch(/p\.onnx +5000 +2000 +1\.0 % +-1\.000 \(-1\.500 to -0\.500\)/);
    expect(estimated.err).toContain('passed over x.parquet: cut off');
    const calibrated = await run(['evaluate', '--log', 'dir', '--calibrate', '--fleets', 'f.yaml'], program);
    expect(calibrated.out).toMatch(/all +10 +10 +0\.300 +5\.00 +4\.0 % +9\.00 +-30\.0 % +FAILED/);
    expect(asked).toEqual([
      { folder: 'dir', policies: ['p.onnx'] },
      { folder: 'dir', fleet: 'f.yaml', policy: '', batching: 'deadline-cap+shed', seed: 1 },
    ]);
    const alone = await run(['evaluate', '--calibrate'], program);
    expect(alone).toMatchObject({ code: 2, err: expect.stringContaining('--calibrate needs --log') as string });
    expect((await run(['evaluate', '--calibrate', '--log', 'dir'], program)).err).toContain('needs the one fleet');
  });

  it('a module of one’s own is code for simulations: no host loads it', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'intarsia-own-'));
    try {
      const path = join(folder, 'own.mjs');
      await writeFile(path, `throw new Error('it ran');`);
      // What a host makes of its --policy, unless it is a policy file.
      expect(() => dispatchByName(path)).toThrow(/there is no dispatch rule/);
      const { err, code } = await run(['evaluate', ...small, '--policies', path], real);
      expect(code).not.toBe(0);
      expect(err).toContain('it ran');
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
