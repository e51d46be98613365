/**
 * Seeds, each a scenario; some of them run twice, since the same seed must give the same trace. What is reported is plain
 * data, so that it can cross processes.
 */
import { intarsiaError } from '#core/errors.js';
import type { ScenarioReport } from './scenario-report.js';
import type { RunOptions } from './simulated-grid.js';
import { runScenario } from './simulated-grid.js';
import { asBytes } from '../pretend-travel.js';
import { drawScenario, faultKinds, type FaultKind, type GridScenario } from './scenario.js';

export interface SeedsRequest {
  readonly hosts: number;
  /** The first one. */
  readonly seed: number;
  /** Undefined: all. */
  readonly faults: readonly string[] | undefined;
  readonly requests: number;
}

export interface SeedReport extends ScenarioReport {
  /** Of a run in which something was violated. */
  readonly scenario?: GridScenario;
}

/** Every so many seeds one runs twice; the first always does. */
const twiceEvery = 25;

/** The kinds by their names. @throws INVALID_ARGUMENT naming those there are. */
export function faultKindsOf(names: readonly string[] | undefined): readonly FaultKind[] {
  if (names === undefined) return faultKinds;
  return names.map((name) => {
    const kind = faultKinds.find((each) => each === name);
    if (kind !== undefined) return kind;
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `there is no fault ${JSON.stringify(name)}; there are ${faultKinds.join(', ')}`,
    );
  });
}

/** One of the request's seeds. */
export function runSeed(request: SeedsRequest, seed: number): Promise<SeedReport> {
  const { hosts, requests, faults } = request;
  const scenario = drawScenario({ seed, hosts, kinds: faultKindsOf(faults), requests });
  return (seed - request.seed) % twiceEvery === 0 ? runTwice(scenario) : runOnce(scenario);
}

async function runOnce(scenario: GridScenario, options?: RunOptions): Promise<SeedReport> {
  const report = await runScenario(scenario, options);
  return report.violationCount === 0 ? report : { ...report, scenario };
}

/** Runs it with messages as bytes, and again with copies, and compares the traces. */
export async function runTwice(scenario: GridScenario, options?: RunOptions): Promise<SeedReport> {
  const first = await runOnce(scenario, { ...options, dispatch: asBytes });
  const second = await runScenario(scenario, options);
  if (first.traceHash === second.traceHash) return first;
  const text = `the same scenario gave the traces ${first.traceHash} and ${second.traceHash}`;
  return {
    ...first,
    violations: [...first.violations, { checker: 'same-trace', atMs: first.virtualMs, text }],
    violationCount: first.violationCount + 1,
    scenario,
  };
}
