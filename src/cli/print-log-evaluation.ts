/** Prints what a decision log says of policies, and of the simulator. */
import type { DamagedLogFile } from './decision-log-report.js';
import type { CalibrationReport, LogEstimateReport, RewardEstimate } from './log-evaluation-report.js';
import type { Output } from './terminal.js';
import type { HeldOutReport, LogTrainReport } from './train-report.js';

export function printEstimates(report: LogEstimateReport, output: Output): void {
  output.result(report);
  output.table(
    ['policy', 'decisions', 'effective', 'cut', 'logged policy', 'SNIPS', 'doubly robust'],
    report.policies.map((row) => [
      row.policy,
      row.decisions,
      Math.round(row.effectiveDecisions),
      percent(row.clipped),
      words(row.logged),
      words(row.snips),
      words(row.doublyRobust),
    ]),
    1,
  );
  output.line(
    'Reward of a request: the objective with its sign changed, higher is better. One step each: simulate, too.',
  );
  noteDamage(report.damaged, output);
}

export function printCalibration(report: CalibrationReport, output: Output): void {
  const { fleet, policy, requests, rows, limits } = report;
  output.result(report);
  output.line(`${requests} requests of the log, simulated on ${fleet} with ${policy}:`);
  output.table(
    ['model', 'answers', 'simulated', 'KS distance', 'p50 ms', 'error', 'p99 ms', 'error', 'verdict'],
    rows.map((row) => [
      row.model === '' ? 'all' : row.model,
      row.measured,
      row.simulated,
      row.ksDistance.toFixed(3),
      row.p50Ms.toFixed(2),
      percent(row.p50Error),
      row.p99Ms.toFixed(2),
      percent(row.p99Error),
      row.passed ? 'passed' : 'FAILED',
    ]),
    1,
  );
  output.line(
    `limits: KS distance below ${limits.ksDistance}, p50 within ${percent(limits.p50Error)}, p99 within ${percent(limits.p99Error)}`,
  );
  noteDamage(report.damaged, output);
}

/** What `intarsia train --from-log` made. */
export function printTuned(report: LogTrainReport, output: Output): void {
  const { policyPath, policySha256, backend, decisions, effectiveDecisions, explained, explored } = report;
  output.result(report);
  output.line(`${policyPath}: tuned on ${decisions} decisions; it rests on ${Math.round(effectiveDecisions)} of them`);
  output.line(`${percent(explored)} of them were drawn; ${percent(explained)} of what came was foretold`);
  output.line(`before: ${heldOut(report.before)}`);
  output.line(`after:  ${heldOut(report.after)}`);
  output.line(`backend ${backend}; SHA-256 ${policySha256}`);
  output.line(
    'One step each, on decisions that nothing was learned from. Simulate before it decides: intarsia evaluate.',
  );
  noteDamage(report.damaged, output);
}

function heldOut(report: HeldOutReport): string {
  if ('reason' in report) return `no estimate: ${report.reason}`;
  const { snips, doublyRobust, effectiveDecisions } = report;
  return `SNIPS ${words(snips)}, doubly robust ${words(doublyRobust)}, by ${Math.round(effectiveDecisions)} decisions`;
}

function words({ value, low, high }: RewardEstimate): string {
  return `${value.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`;
}

function noteDamage(damaged: readonly DamagedLogFile[], output: Output): void {
  for (const { file, reason } of damaged) output.note(`passed over ${file}: ${reason}`);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
