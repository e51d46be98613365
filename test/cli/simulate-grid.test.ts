import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
  requests: { sent: 100, answered: 98, failed: { UNAVAILABLE: 2 }, gatewayAttempts: 110 },
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
      for (let index = 0; index < request.seeds; index += 1) onReport({ ...report, seed: request.seed + index });
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

  it.each([
    ['--hosts', '1'],
    ['--seeds', '0'],
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
    const request = { hosts: 2, seed: 1, seeds: 1, faults: [], requests: 20, jobs: 1, scenario: undefined };
    const reports: GridSimulationReport[] = [];
    await simulateGrids(request, (report) => reports.push(report));
    await simulateGrids(request, (report) => reports.push(report));
    expect(reports[0]?.violations).toEqual([]);
    expect(reports[0]?.traceHash).toBe(reports[1]?.traceHash);
    await expect(simulateGrids({ ...request, faults: ['rain'] }, () => {})).rejects.toThrow(/no fault "rain"/);
    await expect(simulateGrids({ ...request, scenario: {} }, () => {})).rejects.toThrow(/the scenario has format/);
  });
});
