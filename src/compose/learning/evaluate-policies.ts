/** `intarsia evaluate`: reads contenders, fleets and traces, plays every cell in pairs on threads, and says who is better. */
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import type { EvaluationReport, EvaluationRequest, EvaluationWatch, StressVerdict } from '#cli/evaluation-report.js';
import { readYamlFile } from '#adapters/yaml/read-yaml.js';
import { intarsiaError, messageOf } from '#core/errors.js';
import { RandomStream } from '#core/random.js';
import { objectiveOf } from '#core/scheduling/objective.js';
import { sloClasses } from '#core/scheduling/slo-class.js';
import { rolloutsHere, type Rollouts } from '#policies/learning/environment.js';
import {
  evaluate,
  overallOf,
  type CellReport,
  type Contender,
  type EvaluationCell,
} from '#policies/learning/evaluate.js';
import { fleetEnvironment, type FleetScenario, type FleetWorldData } from '#policies/learning/fleet-environment.js';
import { gridCells, stressCells, type JudgePlan } from '#policies/learning/judge-cells.js';
import { paretoOf, preferences } from '#policies/learning/pareto.js';
import { stressChangeMax } from '#policies/learning/stress.js';
import { readFleet } from '#sim/fleet/read-fleet.js';
import { fleetPath } from '../fleet-path.js';
import { readProfiles } from '../profiles.js';
import { traceRows } from '../trace-rows.js';
import { defaultRule, readContender, type ReadContender } from './contenders.js';
import { evaluationPage } from './evaluation-page.js';
import { fleetTools } from './fleet-tools.js';
import { RolloutThreads } from './rollout-threads.js';

export async function evaluatePolicies(request: EvaluationRequest, watch: EvaluationWatch): Promise<EvaluationReport> {
  const [batching] = request.batching;
  if (batching === undefined || request.policies.length + request.rules.length === 0) {
    throw intarsiaError('INVALID_ARGUMENT', 'an evaluation needs a policy or a rule, and a batching policy');
  }
  const judged = await Promise.all(request.policies.map((name) => readContender(name, batching)));
  const rules = await rulesOf(request);
  const plan = await planOf(request);
  // Before hours of runs, not after them.
  if (request.htmlPath !== '') await writePage(request.htmlPath, '', 'a');
  const solver = await (await import('#adapters/highs/highs-solver.js')).loadHighsSolver();
  const grid = gridCells(plan, solver);
  const stress = request.stress ? stressCells(plan, solver) : { fleets: plan.fleets, cells: [] };
  const world: FleetWorldData = { fleets: stress.fleets, traces: plan.traces, batching };
  const random = new RandomStream(`evaluate ${request.seed}`);
  const gridShare = grid.length / (grid.length + stress.cells.length);
  const threads = request.workers > 0 ? new RolloutThreads(world, request.workers) : undefined;
  const rollouts: Rollouts<FleetScenario> = threads ?? rolloutsHere(fleetEnvironment(world, fleetTools()));
  const played = (
    cells: readonly EvaluationCell<FleetScenario>[],
    contenders: readonly Contender[],
    onProgress: (share: number, cell: string) => void,
  ): Promise<readonly CellReport[]> =>
    evaluate(cells, contenders, {
      ...{ rollouts, classes: sloClasses, random, onProgress },
      objective: (outcomes) => objectiveOf(outcomes),
      withBounds: request.bounds,
      isStopWanted: watch.isStopWanted,
    });
  try {
    const contenders = together(rules, judged, true);
    const cells = await played(grid, contenders, (share, cell) => watch.onProgress(share * gridShare, cell));
    const guards = together(await guardsOf(judged, batching), judged, false);
    const stressed = await played(stress.cells, guards, (share, cell) =>
      watch.onProgress(gridShare + share * (1 - gridShare), cell),
    );
    const report: EvaluationReport = {
      isDone: cells.length === grid.length && stressed.length === stress.cells.length && !watch.isStopWanted(),
      classes: sloClasses,
      contenders: contenders.map(({ name }) => name),
      files: judged.flatMap(({ name, player }) =>
        player.kind === 'policy'
          ? [{ contender: name, sha256: createHash('sha256').update(player.bytes).digest('hex') }]
          : [],
      ),
      cells,
      overall: overallOf(cells, { random }),
      preferences,
      pareto: paretoOf(cells),
      stress: stressed,
      verdicts: stressed.flatMap(verdictsOf),
      htmlPath: request.htmlPath,
    };
    if (request.htmlPath !== '') await writePage(request.htmlPath, evaluationPage(report));
    return report;
  } finally {
    await threads?.close();
  }
}

async function writePage(path: string, page: string, flag: 'a' | 'w' = 'w'): Promise<void> {
  try {
    await writeFile(path, page, { flag });
  } catch (error) {
    throw intarsiaError(
      'FAILED_PRECONDITION',
      `the page ${path} cannot be written: ${messageOf(error)}`,
      { path },
      error,
    );
  }
}

/** Rules and who is judged; a rule that is judged stands once and is both, or counts as a rule only where it is one of them. */
function together(
  rules: readonly Contender[],
  judged: readonly ReadContender[],
  areAllRules: boolean,
): readonly Contender[] {
  const isSame = (left: Contender, right: Contender): boolean =>
    left.player.kind === 'rule' &&
    right.player.kind === 'rule' &&
    left.player.name === right.player.name &&
    left.player.batching === right.player.batching;
  return [
    ...rules.filter((rule) => !judged.some((each) => isSame(rule, each))),
    ...judged.map((each) => ({
      name: each.name,
      player: each.player,
      isRule: (areAllRules && each.player.kind === 'rule') || rules.some((rule) => isSame(rule, each)),
      isJudged: true,
    })),
  ];
}

async function rulesOf({ rules, batching }: EvaluationRequest): Promise<readonly Contender[]> {
  const read: Contender[] = [];
  for (const each of batching) {
    for (const name of rules) {
      const contender = await readContender(batching.length > 1 ? `${name}@${each}` : name, each);
      read.push({ ...contender, isRule: true });
    }
  }
  return read;
}

/** What the stress suite compares with: the rules that decide when a policy must not, and the default rule. */
function guardsOf(judged: readonly ReadContender[], batching: string): Promise<readonly Contender[]> {
  const names = new Set([defaultRule, ...judged.map(({ fallback }) => fallback)]);
  return Promise.all([...names].map(async (name) => ({ ...(await readContender(name, batching)), isRule: true })));
}

function verdictsOf({ cell, comparisons, figures }: CellReport): StressVerdict[] {
  return comparisons.map(({ contender, against, change, changeLow, changeHigh }) => {
    const { fallbackRate = 0, maskViolations = 0 } = figures.find((each) => each.contender === contender) ?? {};
    const passed = change <= stressChangeMax && maskViolations === 0;
    return { cell, contender, against, change, changeLow, changeHigh, fallbackRate, maskViolations, passed };
  });
}

async function planOf(request: EvaluationRequest): Promise<JudgePlan> {
  const { seeds, requests, seconds, seed, loads } = request;
  const profiles = await readProfiles('');
  const fleets = [];
  for (const name of request.fleets) {
    const path = await fleetPath(name);
    fleets.push(readFleet(await readYamlFile(path), basename(path), profiles));
  }
  const traces = [];
  for (const path of request.traces) {
    traces.push({ name: basename(path), rows: await traceRows(path) });
  }
  return { fleets, traces, streams: request.arrivals, loads, seeds, requests, seconds, seed };
}
