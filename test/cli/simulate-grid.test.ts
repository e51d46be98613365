import { execFile } from 'node:child_process';
import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import type { GridSimulationReport, GridSimulationRequest } from '#cli/simulation-report.js';
import { simulateGrids } from '#compose/simulate-grids.js';
import { pretendProgram, run } from './pretend-program.js';

const calm: GridSimulationReport = {
  seed: 7,
  hosts: 3,
  traceHash: '0123456789abcdef',
  violations: [],
  violationCount: 0,
  virtualMs: 120_000,
  steps: 1_000,
  requests: { sent: 100, answered: 98, failed: { UNAVAILABLE: 2 }, gatewayAttempts: 110, hedges: 4 },
  sequences: { begun: 5, ended: 4, steps: 20, broken: { UNAVAILABLE: 1 } },
  faults: [{ kind: 'crash', atMs: 21_500, hosts: ['host-2'], fired: 1 }],
  leaders: 2,
  viewsConvergedMs: 0,
  servedConvergedMs: 0,
};

const wrong: GridSimulationReport = {
  ...calm,
  violations: [{ checker: 'one-owner', atMs: 30_250, text: 'copy d1#1 belongs to two' }],
  violationCount: 1,
  scenario: { format: 1, seed: 7 },
};

function answering(report: GridSimulationReport) {
  const asked: GridSimulationRequest[] = [];
  const { program } = pretendProgram({
    simulateGrids: (request, onReport) => {
      asked.push(request);
      for (let seed = request.seed; seed < request.seed + request.seeds; seed += 1)
        if (!request.done.has(seed)) onReport({ ...report, seed });
      return Promise.resolve();
    },
  });
  return { asked, program };
}

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'intarsia-simulate-'));
  try {
    await work(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe('intarsia simulate-grid', () => {
  it('hands over what was asked, and shows one seed with its faults', async () => {
    const { asked, program } = answering(calm);
    const flags = '--hosts 50 --seed 7 --faults loss,crash --requests 2000 --jobs 2';
    const { code, out, err } = await run(['simulate-grid', ...flags.split(' ')], program);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(asked).toMatchObject([
      { hosts: 50, seed: 7, seeds: 1, faults: ['loss', 'crash'], requests: 2000, jobs: 2, scenario: undefined },
    ]);
    expect(out).toMatch(/crash +21\.5 s +host-2 +1/);
    expect(out).toContain('100 requests: 98 answered, 2 UNAVAILABLE; 2 leaders');
    expect(out).toContain('nothing was violated');
  });

  it('prints one JSON document a seed, and nothing else', async () => {
    const { asked, program } = answering(calm);
    const { code, out } = await run(
      ['simulate-grid', '--seed', '1', '--seeds', '3', '--faults', 'all', '--json'],
      program,
    );
    expect(code).toBe(0);
    const lines = out.trim().split('\n');
    expect(lines.map((line) => (JSON.parse(line) as { seed: number }).seed)).toEqual([1, 2, 3]);
    expect(asked[0]?.faults).toBeUndefined();
    await run(['simulate-grid', '--faults', 'none'], program);
    expect(asked[1]?.faults).toEqual([]);
  });

  it('ends with 1 when a checker found something, says what, and writes the scenario to be run again', async () => {
    await inFolder(async (folder) => {
      const { code, out, err } = await run(
        ['simulate-grid', '--seed', '7', '--save', join(folder, 'failed')],
        answering(wrong).program,
      );
      expect(code).toBe(1);
      expect(err).toContain('at 30.250 s, one-owner: copy d1#1 belongs to two');
      expect(out).toContain('violated in 1: 7');
      const path = join(folder, 'failed', 'seed-7.json');
      expect(JSON.parse(await readFile(path, 'utf8'))).toEqual(wrong.scenario);
      const { asked, program } = answering(calm);
      await run(['simulate-grid', '--scenario', path, '--seeds', '9'], program);
      expect(asked).toMatchObject([{ seeds: 1, scenario: wrong.scenario }]);
    });
  });

  it('takes a run up again where it was stopped: what the file has is not run, what failed or was cut off is', async () => {
    await inFolder(async (folder) => {
      const done = join(folder, 'seeds.jsonl');
      const flags = ['simulate-grid', '--seeds', '5..7', '--done', done];
      const failing = answering(wrong);
      expect((await run([...flags.slice(0, 2), '5..5', '--done', done], failing.program)).code).toBe(1);
      await run([...flags.slice(0, 2), '6..6', '--done', done], answering(calm).program);
      await appendFile(done, '{"seed":7,"viol');
      const { asked, program } = answering(calm);
      const { code, out, err } = await run(flags, program);
      expect(asked).toMatchObject([{ seed: 5, seeds: 3, done: new Set([6]) }]);
      expect(err).toContain(`1 of 3 seeds are done already, by ${done}`);
      expect(code).toBe(0);
      expect(out).toMatch(/crash +3 +3 +3/);
      expect(out).toContain('3 grids, 360 virtual s; 2 ran now');
      expect(out).toContain(
        '300 requests, 6 failed with a known code, 12 hedged; 15 sequences, 3 ended by a failure; 3 faults, 0 of them met nobody',
      );
      await run(flags, program);
      expect(asked[1]?.done).toEqual(new Set([5, 6, 7]));
    });
  });

  it('refuses a file of other simulations', async () => {
    await inFolder(async (folder) => {
      const done = join(folder, 'seeds.jsonl');
      await run(['simulate-grid', '--done', done], answering(calm).program);
      const { code, err } = await run(['simulate-grid', '--hosts', '9', '--done', done], answering(calm).program);
      expect(code).not.toBe(0);
      expect(err).toContain('is of other simulations: {"format":1,"hosts":20');
    });
  });

  it('deals seeds out to processes, each once', async () => {
    await inFolder(async (folder) => {
      const done = join(folder, 'seeds.jsonl');
      await run(
        ['simulate-grid', '--hosts', '2', '--seed', '4', '--requests', '5', '--done', done],
        answering(calm).program,
      );
      // Processes run built output.
      const launcher = join(import.meta.dirname, '../../bin/intarsia.mjs');
      const flags = ['--hosts', '2', '--seeds', '3..7', '--requests', '5', '--jobs', '2', '--done', done, '--json'];
      const { stdout } = await promisify(execFile)(process.execPath, [launcher, 'simulate-grid', ...flags]);
      const seeds = stdout
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as GridSimulationReport).seed);
      expect(seeds.sort()).toEqual([3, 5, 6, 7]);
    });
  });

  it.each([
    ['--hosts', '1'],
    ['--seeds', '0'],
    ['--seeds', '9..5'],
    ['--jobs', '65'],
    ['--requests', 'many'],
  ])('refuses %s %s', async (flag, value) => {
    const { code, err } = await run(['simulate-grid', flag, value]);
    expect(code).toBe(2);
    expect(err).toContain(flag);
  });

  it('says which file is no scenario', async () => {
    await inFolder(async (folder) => {
      const path = join(folder, 'broken.json');
      await writeFile(path, '{');
      const { code, err } = await run(['simulate-grid', '--scenario', path]);
      expect(code).not.toBe(0);
      expect(err).toContain(path);
    });
  });

  it('runs real simulations: the same seed and its scenario give the same trace', async () => {
    const request = {
      ...{ hosts: 2, seed: 1, seeds: 1, done: new Set<number>(), faults: [], requests: 20, jobs: 1 },
      scenario: undefined,
    };
    const reports: GridSimulationReport[] = [];
    await simulateGrids(request, (report) => reports.push(report));
    await simulateGrids(request, (report) => reports.push(report));
    expect(reports[0]?.violations).toEqual([]);
    expect(reports[0]?.traceHash).toBe(reports[1]?.traceHash);
    await expect(simulateGrids({ ...request, faults: ['rain'] }, () => {})).rejects.toThrow(/no fault "rain"/);
    await expect(simulateGrids({ ...request, scenario: {} }, () => {})).rejects.toThrow(/the scenario has format/);
  });
});
