/** `intarsia simulate-grid`: whole grids of the production code on virtual time, with faults, one a seed. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { InvalidArgumentError, type Command } from 'commander';
import { intarsiaError, messageOf } from '#core/errors.js';
import { wholeNumber } from '../connection-flags.js';
import { exitCodes } from '../failure-line.js';
import { startProgress } from '../progress.js';
import type { GridSimulationReport } from '../simulation-report.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';

interface SimulateFlags {
  readonly hosts: number;
  readonly seed: number;
  readonly seeds: number;
  readonly faults: readonly string[] | 'all';
  readonly requests: number;
  readonly jobs: number;
  readonly scenario?: string;
  readonly save?: string;
}

interface Summary {
  readonly seeds: number;
  readonly failedSeeds: number[];
  requests: number;
  failedRequests: number;
  faults: number;
  unfired: number;
  virtualMs: number;
  wallMs: number;
}

const shownMax = 5;

export function addSimulateGridCommand(parent: Command, context: CommandContext): void {
  const command = parent
    .command('simulate-grid')
    .description('run whole grids of the production code on virtual time, with faults drawn from a seed')
    .option('--hosts <count>', 'hosts of each grid, 2 to 1000', countBetween(2, 1_000), 20)
    .option('--seed <number>', 'first seed', wholeNumber, 1)
    .option('--seeds <count>', 'how many seeds, one after the other', countBetween(1, 1_000_000), 1)
    .option('--faults <kinds>', 'all, none, or a list such as loss,crash', faultList, 'all' as const)
    .option('--requests <count>', 'requests that clients send while faults strike', countBetween(0, 1_000_000), 1_000)
    .option('--jobs <count>', 'processes that run seeds side by side', countBetween(1, 64), 1)
    .option('--scenario <file>', 'run a scenario that was saved, instead of drawing one')
    .option('--save <dir>', 'folder to write the scenarios of seeds that failed to')
    .addHelpText(
      'after',
      examples(
        'intarsia simulate-grid --hosts 50 --seed 7 --faults all',
        'intarsia simulate-grid --hosts 20 --seeds 10000 --jobs 2 --save failed',
        'intarsia simulate-grid --scenario failed/seed-132.json',
      ),
    )
    .addHelpText('after', 'Exit codes: 0 nothing violated, 1 a checker found something wrong.');
  command.action((flags: SimulateFlags) =>
    act(context, command, async (output) => {
      const { clock } = context.program;
      const startMs = clock.nowMs();
      const progress = startProgress(output, 'simulate');
      const seeds = flags.scenario === undefined ? flags.seeds : 1;
      const summary: Summary = {
        ...{ seeds, failedSeeds: [], requests: 0, failedRequests: 0, faults: 0, unfired: 0, virtualMs: 0, wallMs: 0 },
      };
      let done = 0;
      try {
        const { scenario, save, ...rest } = flags;
        const request = {
          ...rest,
          seeds,
          faults: flags.faults === 'all' ? undefined : flags.faults,
          scenario: scenario === undefined ? undefined : readJson(scenario),
        };
        await context.program.simulateGrids(request, (report) => {
          done += 1;
          add(summary, report);
          progress.update(done / seeds, `seed ${report.seed}`);
          output.resultLine(report);
          if (report.violationCount > 0) show(report, output, save);
          else if (seeds === 1) describe(report, output);
        });
      } finally {
        progress.stop();
      }
      summary.wallMs = clock.nowMs() - startMs;
      print(summary, output);
      return summary.failedSeeds.length === 0 ? exitCodes.ok : exitCodes.failed;
    }),
  );
}

function add(summary: Summary, { seed, violationCount, requests, faults, virtualMs }: GridSimulationReport): void {
  if (violationCount > 0) summary.failedSeeds.push(seed);
  summary.requests += requests.sent;
  summary.failedRequests += requests.sent - requests.answered;
  summary.faults += faults.length;
  summary.unfired += faults.filter(({ fired }) => fired === 0).length;
  summary.virtualMs += virtualMs;
}

function show(report: GridSimulationReport, output: Output, save: string | undefined): void {
  output.note(`seed ${report.seed}: ${report.violationCount} violations`);
  for (const { checker, atMs, text } of report.violations.slice(0, shownMax)) {
    output.note(`  at ${(atMs / 1000).toFixed(3)} s, ${checker}: ${text}`);
  }
  if (save === undefined || report.scenario === undefined) return;
  mkdirSync(save, { recursive: true });
  const path = join(save, `seed-${report.seed}.json`);
  writeFileSync(path, `${JSON.stringify(report.scenario, undefined, 2)}\n`);
  output.note(`  written to ${path}`);
}

/** One seed in detail. */
function describe({ faults, requests, traceHash, leaders, steps }: GridSimulationReport, output: Output): void {
  output.table(
    ['fault', 'at', 'hosts', 'fired'],
    [...faults]
      .sort((left, right) => left.atMs - right.atMs)
      .map(({ kind, atMs, hosts, fired }) => [kind, `${(atMs / 1000).toFixed(1)} s`, hosts.join(', '), fired]),
    3,
  );
  const failed = Object.entries(requests.failed).map(([code, count]) => `, ${count} ${code}`);
  output.line(`${requests.sent} requests: ${requests.answered} answered${failed.join('')}; ${leaders} leaders`);
  output.line(`${steps} steps, trace ${traceHash}`);
}

function print(summary: Summary, output: Output): void {
  const { seeds, failedSeeds, requests, failedRequests, faults, unfired, virtualMs, wallMs } = summary;
  const seconds = wallMs / 1000;
  output.line(
    `${seeds} ${seeds === 1 ? 'grid' : 'grids'}, ${(virtualMs / 1000).toFixed(0)} virtual s in ${seconds.toFixed(1)} s, ${(seeds / seconds).toFixed(2)} a second; ` +
      `${requests} requests, ${failedRequests} failed with a known code; ${faults} faults, ${unfired} of them met nobody`,
  );
  output.line(
    failedSeeds.length === 0
      ? 'nothing was violated'
      : `violated in ${failedSeeds.length}: ${failedSeeds.slice(0, 20).join(', ')}`,
  );
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as unknown;
  } catch (error) {
    throw intarsiaError('INVALID_ARGUMENT', `--scenario ${path} cannot be read: ${messageOf(error)}`, { path });
  }
}

function faultList(text: string): readonly string[] | 'all' {
  if (text === 'all') return text;
  return text === 'none' ? [] : text.split(',').map((kind) => kind.trim());
}

function countBetween(min: number, max: number): (text: string) => number {
  return (text) => {
    const count = wholeNumber(text);
    if (count < min || count > max) throw new InvalidArgumentError(`It must be ${min} to ${max}.`);
    return count;
  };
}
