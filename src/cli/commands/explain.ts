/** `intarsia explain`: why a request went where it went. */
import type { Command } from 'commander';
import { formatMs } from '#core/units.js';
import type { DamagedLogFile, ExplainedDecision, ExplainReport } from '../decision-log-report.js';
import { exitCodes } from '../failure-line.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';

interface ExplainFlags {
  readonly log?: string;
  readonly free?: string;
  readonly policy?: string;
}

const folderDefault = 'decision-log';

export function addExplainCommand(parent: Command, context: CommandContext): void {
  const command = parent
    .command('explain')
    .description('why a request went where it went: candidates, masks, predictions, scores, choice and what came of it')
    .argument('<request>', "number of the request (intarsia_request of its answer), RUN/NUMBER, or 'last'")
    .option('--log <dir>', 'folder of the log; without it INTARSIA_DECISION_LOG, else decision-log')
    .option('--free <device>', 'also what would have been chosen had this device been free, such as cpu:0')
    .option('--policy <file>', 'file of the learned policy that decided (.onnx), to ask it again')
    .addHelpText('after', examples('intarsia explain 4711 --log log', 'intarsia explain last --free cuda:0 --json'));
  command.action((request: string, { log, free = '', policy: policyPath = '' }: ExplainFlags) =>
    act(context, command, async (output) => {
      const folder = logFolderOf(log, context);
      const report = await context.program.explainRequest({ folder, request, free, policyPath });
      output.result(report);
      print(report, output);
      noteDamaged(report.damaged, output);
      return exitCodes.ok;
    }),
  );
}

/** The log that is meant: the one named, else the one that a host here would write. */
export function logFolderOf(flag: string | undefined, { terminal }: CommandContext): string {
  const named = flag ?? terminal.env['INTARSIA_DECISION_LOG'] ?? '';
  return named === '' ? folderDefault : named;
}

export function noteDamaged(damaged: readonly DamagedLogFile[], output: Output): void {
  for (const { file, reason } of damaged) output.note(`passed over ${file}, which is damaged: ${reason}`);
}

function print(report: ExplainReport, output: Output): void {
  const { run, request, model, items, sloMs, decisions, outcome } = report;
  output.line(
    `request ${run}/${request}: model ${model}, class ${report.class}, ${items} items, target ${formatMs(sloMs)}`,
  );
  for (const [index, decision] of decisions.entries()) printDecision(decision, index, output);
  output.line();
  if (outcome === undefined) {
    output.line('no outcome is logged: it is under way, or the host ended before it did');
    return;
  }
  const { device, durationMs, missed, queueMs, computeMs, batchItems, costUsd, joules, emulated } = outcome;
  const verdict = outcome.shed ? 'refused' : outcome.outcome === 'ok' ? 'answered' : outcome.outcome;
  output.line(`${verdict} after ${formatMs(durationMs)}: ${missed ? 'missed its target' : 'in time'}`);
  if (device !== '') {
    const parts = [
      `ran on ${device}${emulated ? ' (emulated)' : ''} in a batch of ${batchItems} items`,
      queueMs === undefined ? '' : `waited ${formatMs(queueMs)}`,
      computeMs === undefined ? '' : `computed ${formatMs(computeMs)}`,
      costUsd === undefined ? '' : `${costUsd.toPrecision(3)} USD`,
      joules === undefined ? '' : `${joules.toPrecision(3)} J`,
    ];
    output.line(parts.filter((part) => part !== '').join(', '));
  }
}

function printDecision(decision: ExplainedDecision, index: number, output: Output): void {
  const { time, waitedMs, policy, fallback, propensity, candidates, choice, refusalScore, again, whenFree } = decision;
  output.line();
  output.line(
    output.style('bold', `decision ${index + 1} by ${policy} at ${time}, ${formatMs(waitedMs)} after arrival`),
  );
  if (fallback !== '') output.line(`left to its rule: ${fallback}`);
  output.table(
    ['', 'device', 'answer in', 'net', 'running', 'ahead', 'service', 'slack', 'waiting', 'USD', 'score', 'masked'],
    candidates.map((candidate) => [
      candidate.isChosen ? '→' : '',
      candidate.device,
      formatMs(candidate.expectedMs),
      formatMs(candidate.netMs),
      formatMs(candidate.runningMs),
      formatMs(candidate.aheadMs),
      formatMs(candidate.serviceMs),
      `${candidate.slackMs < 0 ? '-' : ''}${formatMs(Math.abs(candidate.slackMs))}`,
      candidate.queueItems,
      candidate.costUsd.toPrecision(3),
      candidate.score?.toFixed(3) ?? '',
      candidate.masked,
    ]),
  );
  if (refusalScore !== undefined) output.line(`score of refusing: ${refusalScore.toFixed(3)}`);
  output.line(`chosen: ${choice}${propensity === 1 ? '' : `, with a chance of ${propensity.toPrecision(3)}`}`);
  if (again === undefined) output.line('the policy is a learned one: name its file with --policy to ask it again');
  else if (again !== choice) {
    output.line(`asked again it chooses ${again}: it draws, or remembers what was before`);
  }
  if (whenFree === undefined) return;
  const { device, expectedMs, masked } = whenFree;
  output.line(
    `had ${device} been free: ${whenFree.choice}${expectedMs === undefined ? '' : `; ${device} would have answered in ${formatMs(expectedMs)}`}${masked === '' ? '' : `; ${device}: ${masked}`}`,
  );
}
