import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { loadHighsSolver } from '#adapters/highs/highs-solver.js';
import { parseYaml } from '#adapters/yaml/read-yaml.js';
import type { EvaluationReport, EvaluationRequest } from '#cli/evaluation-report.js';
import { evaluatePolicies } from '#compose/learning/evaluate-policies.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { RandomStream } from '#core/random.js';
import { featureCount } from '#core/scheduling/features.js';
import { encodePolicy } from '#core/scheduling/policy-file.js';
import { gridCells } from '#policies/learning/judge-cells.js';
import { initialLayers } from '#policies/learning/layers.js';
import { stressSuite } from '#policies/learning/stress.js';
import { readFleet } from '#sim/fleet/read-fleet.js';

const folder = mkdtempSync(join(tmpdir(), 'intarsia-evaluate-'));
const at = (name: string): string => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true }));

const example = fileURLToPath(new URL('../../examples/policies/cheapest-with-headroom.mjs', import.meta.url));
const small: EvaluationRequest = {
  ...{ policies: ['sed'], rules: ['cheapest-feasible:0.8', 'rr'], batching: ['deadline-cap+shed'], fleets: ['four'] },
  ...{
    traces: [],
    arrivals: ['poisson'],
    loads: [0.5],
    seeds: 2,
    requests: 150,
    seconds: 0,
    stress: false,
    bounds: false,
  },
  ...{ seed: 1, workers: 0, htmlPath: '' },
};
const judge = (change: Partial<EvaluationRequest>, stopAfter = Infinity): Promise<EvaluationReport> => {
  let runs = 0;
  return evaluatePolicies(
    { ...small, ...change },
    { onProgress: () => (runs += 1), isStopWanted: () => runs >= stopAfter },
  );
};

/** A policy file whose network is not trained, with ranges so wide that the shield lets it decide. */
function writePolicy(name: string, width: number): void {
  const edge = (value: number): number[] => Array.from({ length: featureCount }, () => value);
  const policy = encodePolicy({
    ...{ name: 'untrained', decides: 'dispatch', fallback: 'cheapest-feasible:0.8', notes: {} },
    network: { layers: initialLayers(new RandomStream(5), [featureCount, 4, 1]), activation: 'tanh' },
    ranges: { least: edge(-width), low: edge(-width), high: edge(width), greatest: edge(width) },
  });
  writeFileSync(at(name), policy);
}

describe('intarsia evaluate', () => {
  it('judges rules, learned policies and modules of one’s own in every cell, with bounds', async () => {
    writePolicy('policy.onnx', 3);
    const policies = ['sed', at('policy.onnx'), example];
    const report = await judge({ policies, loads: [0.4, 0.8], arrivals: ['poisson', 'onoff'], bounds: true });
    expect(report.isDone).toBe(true);
    expect(report.cells.map(({ cell }) => cell)).toEqual(
      ['poisson / 0.4', 'poisson / 0.8', 'onoff / 0.4', 'onoff / 0.8'].map((name) => `four / ${name}`),
    );
    for (const { figures, comparisons, bound } of report.cells) {
      expect(figures.map(({ contender }) => contender)).toEqual(['cheapest-feasible:0.8', 'rr', ...policies]);
      expect(comparisons.map(({ contender }) => contender)).toEqual(policies);
      const best = Math.min(...figures.slice(0, 3).map(({ objective }) => objective));
      for (const [index, { objective, goodput, usdPerThousand, maskViolations }] of figures.entries()) {
        expect(objective).toBeGreaterThan(bound!);
        expect(Math.min(goodput, usdPerThousand)).toBeGreaterThan(0);
        expect(maskViolations).toBe(0);
        const comparison = comparisons[index - 2];
        if (comparison !== undefined) expect(comparison.change).toBeCloseTo(objective / best - 1, 9);
      }
    }
    expect(report.overall.map(({ contender, cells }) => [contender, cells])).toEqual(policies.map((name) => [name, 4]));
  });

  it('runs last as many virtual seconds as asked for, at every load', async () => {
    const path = 'policies/fleets/four.yaml';
    const fleet = readFleet(parseYaml(readFileSync(path, 'utf8'), path), path, builtInProfiles);
    const plan = { fleets: [fleet], traces: [], streams: ['poisson'], loads: [0.4, 0.8], seeds: 2, seed: 1 };
    const cells = gridCells({ ...plan, requests: 150, seconds: 20 }, await loadHighsSolver());
    expect(cells).toHaveLength(2);
    for (const { ratePerSecond = 0, requests } of cells.flatMap(({ scenarios }) => scenarios)) {
      expect(requests).toBe(Math.round(20 * ratePerSecond));
      expect(requests).toBeGreaterThan(1_000);
    }
    const { cells: judged } = await judge({ loads: [0.4], seconds: 1, seeds: 1 });
    expect(judged[0]?.figures[0]?.objective).toBeGreaterThan(0);
  });

  it('the same seed gives the same report', async () => {
    const request = { policies: [example], bounds: true };
    expect(await judge(request)).toEqual(await judge(request));
  });

  it('threads change no number', async () => {
    const request = { policies: [example], bounds: true };
    expect(await judge({ ...request, workers: 2 })).toEqual(await judge(request));
  });

  it('counts the decisions that the shield leaves to the rule', async () => {
    writePolicy('narrow.onnx', 1e-6);
    const { cells } = await judge({ policies: [at('narrow.onnx')] });
    const [rule, , learned] = cells[0]!.figures;
    expect(learned!.fallbackRate).toBe(1);
    // All went to its fallback, so that it is that rule.
    expect({ ...learned, fallbackRate: 0, objectiveLow: 0, objectiveHigh: 0 }).toEqual({
      ...rule,
      ...{ contender: learned!.contender, objectiveLow: 0, objectiveHigh: 0 },
    });
  });

  it('plays the stress suite against the fallback rules, with a verdict for each case', async () => {
    const { stress, verdicts } = await judge({ policies: [example], stress: true, seeds: 1, requests: 120 });
    expect(stress.map(({ cell }) => cell)).toEqual(stressSuite.map(({ name }) => `four / ${name}`));
    expect(verdicts).toHaveLength(stressSuite.length);
    for (const { change, maskViolations, passed, against } of verdicts) {
      expect(against).toBe('cheapest-feasible');
      expect(passed).toBe(change <= 0.02 && maskViolations === 0);
    }
  });

  it('a policy that chooses what is masked fails the stress suite', async () => {
    writeFileSync(
      at('wild.mjs'),
      `export default () => ({ name: 'wild', choose: (request, candidates) => request.nowMs % 3 < 1 ? candidates.length : 0 });`,
    );
    const { cells, verdicts } = await judge({ policies: [at('wild.mjs')], stress: true, seeds: 1, requests: 60 });
    expect(cells[0]!.figures.at(-1)!.maskViolations).toBeGreaterThan(0);
    expect(verdicts.every(({ passed }) => !passed)).toBe(true);
  });

  it('stopped, it reports what is done', async () => {
    const report = await judge({ loads: [0.4, 0.8], stress: true }, 3);
    expect(report.isDone).toBe(false);
    expect(report.cells.map(({ seeds }) => seeds)).toEqual([2, 1]);
    expect(report.stress).toEqual([]);
  });

  it('writes a page that loads nothing', async () => {
    await judge({ htmlPath: at('page.html') });
    const page = readFileSync(at('page.html'), 'utf8');
    expect(page).toContain('four / poisson / 0.5');
    expect(page).not.toMatch(/<script|<link|src=/);
  });

  it('says that a page cannot be written before anything runs', async () => {
    const runs: string[] = [];
    const judged = evaluatePolicies(
      { ...small, htmlPath: at('nowhere/page.html') },
      { onProgress: (_, cell) => void runs.push(cell), isStopWanted: () => false },
    );
    await expect(judged).rejects.toThrow(/page\.html cannot be written/);
    expect(runs).toEqual([]);
  });

  it('takes the part of a trace that training leaves out', async () => {
    const rows = Array.from({ length: 100 }, (_, index) => `${index * 10},${index < 80 ? 'large' : 'small'}`);
    writeFileSync(at('trace.csv'), `at_ms,model\n${rows.join('\n')}\n`);
    const { cells } = await judge({ traces: [at('trace.csv')], arrivals: [], requests: 1_000, policies: ['sed'] });
    expect(cells.map(({ cell }) => cell)).toEqual(['four / trace.csv / 0.5']);
    // Twenty rows are left, all of the model that takes 4 to 40 ms alone.
    expect(cells[0]!.figures.at(-1)!.latencyMsP50).toBeLessThan(100);
  });

  it('refuses traces that are unsorted, negative or lack a field, by line', async () => {
    for (const [text, words] of [
      ['at_ms\n5\n4\n', /bad.csv, line 3: .*not before/],
      ['at_ms\n-1\n', /bad.csv, line 2: .*0 or more/],
      ['at_ms,model\n1\n', /bad.csv, line 2: .*2 fields/],
    ] as const) {
      writeFileSync(at('bad.csv'), text);
      await expect(judge({ traces: [at('bad.csv')] })).rejects.toThrow(words);
    }
    await expect(judge({ traces: [at('none.csv')] })).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('refuses a fleet that cannot serve the load, and tables with holes', async () => {
    const fleet = (table: string, sloMs: number): string => `name: weak
models: [{ name: m, itemsMax: 4, memoryMiB: 1, sloMs: { interactive: ${sloMs}, standard: 500, batch: 5000 }, tables: { slow: ${table} } }]
devices: [{ name: slow, usdPerHour: 0.1, watts: 10, memoryGiB: 1, netMs: 5 }]
`;
    writeFileSync(at('weak.yaml'), fleet('{ 1: 20, 4: 40 }', 10));
    await expect(judge({ fleets: [at('weak.yaml')] })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringMatching(/weak cannot serve the load/) as string,
    });
    writeFileSync(at('weak.yaml'), fleet('{ 1: 20, 2: .nan, 4: 40 }', 100));
    await expect(judge({ fleets: [at('weak.yaml')] })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringMatching(/model m, tables, slow, field 2/) as string,
    });
    writeFileSync(at('weak.yaml'), fleet('{ 2: 30, 4: 40 }', 100));
    await expect(judge({ fleets: [at('weak.yaml')] })).resolves.toMatchObject({ isDone: true });
  });

  it('refuses names, files and modules that are no policy, before anything runs', async () => {
    for (const [name, code, text] of [
      ['nonsense', 'CONFIG_INVALID'],
      ['sed@nonsense', 'CONFIG_INVALID'],
      ['none.onnx', 'NOT_FOUND'],
      ['broken.onnx', 'MODEL_INVALID', 'no ONNX'],
      ['none.mjs', 'INVALID_ARGUMENT'],
      ['broken.mjs', 'INVALID_ARGUMENT', 'export default ('],
      ['number.mjs', 'INVALID_ARGUMENT', 'export default 3;'],
      ['empty.mjs', 'INVALID_ARGUMENT', 'export default () => ({});'],
    ] as const) {
      if (text !== undefined) writeFileSync(at(name), text);
      const path = /[.](onnx|mjs)$/.test(name) ? at(name) : name;
      await expect(judge({ policies: [path] }), name).rejects.toMatchObject({ code });
    }
  });
});
