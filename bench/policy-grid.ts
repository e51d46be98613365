/**
 * The evaluation grid as rows: the policies that come with the product against the best rule of each cell in hindsight, and
 * the stress suite. What decides is `intarsia evaluate`; here its figures meet their targets.
 */
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { rulesDefault } from '#cli/commands/evaluate.js';
import type { EvaluationOverall, EvaluationReport, EvaluationRequest } from '#cli/evaluation-report.js';
import { evaluatePolicies } from '#compose/learning/evaluate-policies.js';
import { packageRoot } from '#compose/package-root.js';
import { benchRow, type BenchOptions, type BenchRow, type BenchTarget } from './report.js';

type Size = Pick<EvaluationRequest, 'fleets' | 'arrivals' | 'loads' | 'seeds' | 'requests' | 'stress' | 'bounds'>;

const threeFleets = ['stadium', 'exchange', 'observatory'];
const sizes: Readonly<Record<'quick' | 'small' | 'full', Size>> = {
  quick: {
    fleets: ['four'],
    arrivals: ['poisson'],
    loads: [0.7],
    seeds: 2,
    requests: 200,
    stress: false,
    bounds: true,
  },
  small: {
    ...{ fleets: threeFleets, arrivals: ['poisson'], loads: [0.5, 0.7, 0.9], seeds: 3, requests: 1_000 },
    ...{ stress: false, bounds: true },
  },
  full: {
    ...{ fleets: threeFleets, arrivals: ['poisson', 'mmpp', 'onoff'], loads: [0.5, 0.7, 0.9] },
    ...{ seeds: 20, requests: 4_000, stress: true, bounds: true },
  },
};

export async function evaluationGrid({ quick, full = false }: BenchOptions): Promise<readonly BenchRow[]> {
  const shipped = await shippedPolicies();
  const report = await evaluatePolicies(
    {
      ...sizes[quick ? 'quick' : full ? 'full' : 'small'],
      // Without a learned policy the grid is that of the default rule, without targets.
      ...{ policies: shipped.length > 0 ? shipped : ['cheapest-feasible'] },
      ...{ rules: rulesDefault, batching: ['deadline-cap+shed'] },
      ...{ traces: [], seconds: 0, seed: 1, workers: 2, htmlPath: '' },
    },
    { onProgress: () => {}, isStopWanted: () => false },
  );
  const isLearned = shipped.length > 0;
  const overall = report.overall.flatMap((each) => [
    ...overallRows(each, isLearned),
    ...worstStressRow(each.contender, report, isLearned),
  ]);
  const cells = report.cells.flatMap(({ cell, comparisons }) =>
    comparisons.map(({ contender, against, change }) =>
      benchRow({
        key: `policy.grid.${keyOf(contender)}.${keyOf(cell)}.change`,
        label: `${contender} on ${cell} against ${against}`,
        value: 100 * change,
        unit: '%',
        ...target(isLearned, { kind: 'at-most', value: 1 }),
      }),
    ),
  );
  const stress = report.verdicts.map(({ cell, contender, against, change }) =>
    benchRow({
      key: `policy.stress.${keyOf(contender)}.${keyOf(cell)}.change`,
      label: `${contender} under ${cell} against ${against}`,
      value: 100 * change,
      unit: '%',
      ...target(isLearned, { kind: 'at-most', value: 2 }),
    }),
  );
  return [...overall, ...cells, ...stress];
}

function overallRows(each: EvaluationOverall, isLearned: boolean): BenchRow[] {
  const { contender, change, changeHigh, worstChange, worstMissChange, gapClosed, fallbackRate, maskViolations } = each;
  const row = (name: string, label: string, value: number, unit: string, wanted: BenchTarget): BenchRow =>
    benchRow({
      key: `policy.grid.${keyOf(contender)}.${name}`,
      label: `${contender}: ${label}`,
      ...{ value, unit },
      ...target(isLearned, wanted),
    });
  return [
    row('change', 'objective against the best rule, mean over cells', 100 * change, '%', most(-5)),
    row('change-high', 'upper end of its 95 % interval', 100 * changeHigh, '%', most(0)),
    row('worst-cell', `objective in the worst cell, ${each.worstCell}`, 100 * worstChange, '%', most(1)),
    row('miss-points', 'largest rise of a class’s misses', 100 * worstMissChange, 'points', most(0.2)),
    ...(gapClosed === undefined
      ? []
      : [row('gap-closed', 'gap to the bound closed', 100 * gapClosed, '%', { kind: 'at-least', value: 15 })]),
    row('fallback', 'decisions left to the rule', 100 * fallbackRate, '%', most(5)),
    row('forbidden', 'answers that the mask forbids', maskViolations, '', most(0)),
  ];
}

/** What holds for every stress case holds for the worst; no row without the suite. */
function worstStressRow(contender: string, { verdicts }: EvaluationReport, isLearned: boolean): BenchRow[] {
  const own = verdicts.filter((each) => each.contender === contender);
  if (own.length === 0) return [];
  return [
    benchRow({
      key: `policy.stress.${keyOf(contender)}.worst`,
      label: `${contender}: objective in the worst of ${own.length} stress cases against the better rule`,
      value: 100 * Math.max(...own.map(({ change }) => change)),
      unit: '%',
      ...target(isLearned, most(2)),
    }),
  ];
}

function most(value: number): BenchTarget {
  return { kind: 'at-most', value };
}

function target(isLearned: boolean, wanted: BenchTarget): { readonly target?: BenchTarget } {
  return isLearned ? { target: wanted } : {};
}

function keyOf(name: string): string {
  return name.replaceAll(/[^A-Za-z0-9.-]+/gu, '-');
}

/** Names of the policies that come with the product. */
async function shippedPolicies(): Promise<readonly string[]> {
  const folder = `${packageRoot}/policies/checkpoints`;
  if (!existsSync(folder)) return [];
  const names: string[] = [];
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (entry.name.endsWith('.onnx')) names.push(entry.name.slice(0, -'.onnx'.length));
    else if (entry.isDirectory() && existsSync(`${folder}/${entry.name}/policy.onnx`)) names.push(entry.name);
  }
  return names.sort();
}
