import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { FleetSimulationReport, FleetSimulationRequest } from '#cli/fleet-simulation-report.js';
import { NodeClock } from '#adapters/node/clock.js';
import { packageRoot } from '#compose/package-root.js';
import { simulateFleet } from '#compose/simulate-fleet.js';
import { pretendProgram, run } from '../cli/pretend-program.js';

const request: FleetSimulationRequest = {
  fleet: 'four',
  trace: '',
  arrivals: 'poisson',
  load: 0.5,
  policies: ['cheapest-feasible', 'sed'],
  batching: 'deadline-cap+shed',
  residency: 'everywhere',
  seed: 3,
  requests: 1500,
  bounds: true,
};

/** No device is in time, far from what any training has seen. */
const strangeFleet = [
  'models: [{ name: m, tables: { d: { 1: 900 }, e: { 1: 950 } }, sloMs: { interactive: 10, standard: 10, batch: 10 } }]',
  'devices: [{ name: d, usdPerHour: 1, watts: 1 }, { name: e, usdPerHour: 2, watts: 2 }]',
].join('\n');

function simulate(changes: Partial<FleetSimulationRequest> = {}): Promise<FleetSimulationReport> {
  return simulateFleet({ ...request, ...changes }, () => undefined, new NodeClock());
}

/** What follows from the seed alone. */
function timeless(report: FleetSimulationReport): unknown {
  return { ...report, runs: report.runs.map(({ decisionsPerSecond: _, ...rest }) => rest) };
}

async function withFile(name: string, text: string, work: (path: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'intarsia-fleet-'));
  try {
    const path = join(folder, name);
    await writeFile(path, text);
    await work(path);
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe('intarsia simulate', () => {
  it('runs policies on the same arrivals at the load that was asked for, and none is better than the bound', async () => {
    const report = await simulate();
    expect(report).toMatchObject({
      fleet: 'four',
      devices: 4,
      requests: 1500,
      classes: ['interactive', 'standard', 'batch'],
    });
    expect(report.ratePerSecond / report.feasiblePerSecond).toBeCloseTo(0.5, 6);
    expect(report.runs.map(({ policy }) => policy)).toEqual(['cheapest-feasible:0.6+shed', 'sed']);
    for (const { objective, gap, cost, misses, decisions } of report.runs) {
      expect(objective).toBeGreaterThan(report.bound as number);
      expect(gap).toBeCloseTo(objective / (report.bound as number) - 1, 9);
      expect(cost + misses).toBeCloseTo(objective, 6);
      expect(decisions).toBe(1500);
    }
    expect(report.cheapestUsdPerHour).toBeLessThanOrEqual(report.usdPerHour);
  });

  it('reports the same for the same seed, and another for another', async () => {
    const [first, again, other] = [await simulate(), await simulate(), await simulate({ seed: 4 })];
    expect(timeless(again)).toEqual(timeless(first));
    expect(other.runs[0]?.hash).not.toBe(first.runs[0]?.hash);
  });

  it('plays traces, re-timed to a load', async () => {
    const rows = Array.from(
      { length: 400 },
      (_, index) => `${index * 10},${index % 3 === 0 ? 'large' : 'small'},standard,1`,
    );
    await withFile('trace.csv', `at_ms,model,class,items\n${rows.join('\n')}\n`, async (trace) => {
      const asItIs = await simulate({ trace, load: undefined, requests: undefined, bounds: false });
      expect(asItIs).toMatchObject({ requests: 400, bound: undefined });
      expect(asItIs.ratePerSecond).toBeCloseTo(100, 6);
      const slower = await simulate({ trace, load: 0.1, requests: 100 });
      expect(slower.requests).toBe(100);
      expect(slower.ratePerSecond / slower.feasiblePerSecond).toBeCloseTo(0.1, 6);
    });
  });

  it('plans where models live on a fleet that has no room for all of them everywhere', async () => {
    const crowded = { fleet: 'policies/fleets/planned/crowded.yaml', requests: 300, policies: ['sed'], load: 0.3 };
    await expect(simulate(crowded)).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    for (const residency of ['greedy', 'milp'] as const) {
      const report = await simulate({ ...crowded, residency });
      const living = new Set(report.residency?.flatMap(({ models }) => models));
      expect([...living].sort()).toEqual(['chat', 'coder', 'embedder', 'painter', 'reranker']);
      expect(report.runs[0]?.lost).toBe(0);
    }
  });

  it('reports what planning residency again brings beside a plan made once, never behind the LP baseline', async () => {
    const crowded = { fleet: 'policies/fleets/planned/crowded.yaml', requests: 200, policies: ['sed'], load: 0.3 };
    const report = await simulate({ ...crowded, residency: 'greedy', bounds: false, replan: 60 });
    const tracks = report.residencyOverTime ?? [];
    expect(tracks.filter(({ scenario }) => scenario === 'drift').map(({ planner }) => planner)).toEqual([
      ...['once', 'lp', 'greedy', 'milp'],
    ]);
    for (const { scenario, planner, usdPerHour, change } of tracks) {
      const once = tracks.find((other) => other.scenario === scenario && other.planner === 'once')?.usdPerHour ?? 0;
      if (planner === 'once') continue;
      expect(usdPerHour).toBeLessThanOrEqual(once * 1.001);
      if (planner === 'milp') expect(change).toBeLessThanOrEqual(0.01);
    }
    const { program } = pretendProgram({ simulateFleet: () => Promise.resolve(report) });
    const shown = await run(['simulate', '--replan', '60'], program);
    expect(shown.out).toMatch(/popularity drifts +milp/u);
    expect((await run(['simulate', '--replan', '4'], program)).code).not.toBe(0);
  });

  it('refuses fleets, traces, streams and policies that there are not, and a fleet that can never be in time', async () => {
    await expect(simulate({ fleet: 'nope' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(simulate({ trace: 'nope.csv' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(simulate({ arrivals: 'nope' })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await expect(simulate({ policies: ['nope'] })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await expect(simulate({ batching: 'nope' })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    const slow =
      'models: [{ name: m, tables: { d: { 1: 900 } }, sloMs: { interactive: 100 } }]\ndevices: [{ name: d, usdPerHour: 1, watts: 1 }]\n';
    await withFile('slow.yaml', slow, async (fleet) => {
      await expect(simulate({ fleet })).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    });
  });

  it('plays learned policies with the batches they were trained with, or with others, and says what shields left to rules', async () => {
    const few = { bounds: false, requests: 400 };
    const batching = join(packageRoot, 'policies/checkpoints/dispatch-3/batching.onnx');
    const { runs } = await simulate({
      ...few,
      policies: ['sed', 'dispatch-4', 'dispatch-4@triton', `sed@${batching}`],
    });
    expect(runs.map(({ policy, batching: formed }) => [policy, formed])).toEqual([
      ['sed', 'deadline-cap+shed'],
      ['dispatch-4', expect.stringMatching(/^batching/)],
      ['dispatch-4', 'triton'],
      ['sed', expect.stringMatching(/^batching/)],
    ]);
    expect(new Set(runs.map(({ hash }) => hash)).size).toBe(4);
    expect(runs[0]?.fallbackRate).toBe(0);
    for (const { fallbackRate } of runs) expect(fallbackRate).toBeLessThanOrEqual(1);
    await withFile('strange.yaml', strangeFleet, async (fleet) => {
      const strange = await simulate({ ...few, fleet, load: undefined, policies: ['dispatch-1'] });
      expect(strange.runs[0]?.fallbackRate).toBeGreaterThan(0.9);
    });
    await withFile('half.onnx', 'no policy', async (path) => {
      const error: unknown = expect.objectContaining({
        code: 'MODEL_INVALID',
        message: expect.stringContaining(path) as string,
      });
      await expect(simulate({ ...few, policies: ['sed', path] })).rejects.toEqual(error);
    });
  });

  it('hands over what was asked on the command line, and shows it as a table or as JSON', async () => {
    const report = await simulate();
    const asked: FleetSimulationRequest[] = [];
    const { program } = pretendProgram({
      simulateFleet: (given) => {
        asked.push(given);
        return Promise.resolve(report);
      },
    });
    const flags =
      '--fleet four --load 0.5 --policy cheapest-feasible,sed --batching aimd --residency milp --seed 3 --requests 1500';
    const shown = await run(['simulate', ...flags.split(' ')], program);
    expect({ code: shown.code, err: shown.err }).toEqual({ code: 0, err: '' });
    expect(asked).toMatchObject([{ ...request, batching: 'aimd', residency: 'milp' }]);
    expect(shown.out).toContain('cheapest-feasible:0.6+shed');
    expect(shown.out).toContain(report.runs[1]?.hash);
    expect(shown.out).toContain('no policy has J below');
    const json = await run(['simulate', '--json'], program);
    expect(JSON.parse(json.out)).toMatchObject({ fleet: 'four', runs: [{ hash: report.runs[0]?.hash }, {}] });
    expect(asked[1]).toMatchObject({
      fleet: 'edge-and-core',
      load: undefined,
      policies: ['cheapest-feasible'],
      bounds: true,
    });
    for (const wrong of ['--load 0', '--load x', '--requests 0', '--residency nowhere']) {
      expect((await run(['simulate', ...wrong.split(' ')], program)).code).not.toBe(0);
    }
  });
});
