/** `intarsia simulate-grid`: whole grids of the production code on virtual time, with faults, one a seed. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { InvalidArgumentError, type Command } from 'commander';
import { intarsiaError, messageOf } from '#core/errors.js';
import { countBetween, wholeNumber } from '../connection-flags.js';
import { exitCodes } from '../failure-line.js';
import { startProgress } from '../progress.js';
import { SeedsFile, seedLine, type SeedLine } from '../seeds-file.js';
import type { GridSimulationReport } from '../simulation-report.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';

interface SimulateFlags {
  readonly hosts: number;
  readonly seed: number;
  readonly seeds?: SeedRange;
  readonly faults: readonly string[] | 'all';
  readonly requests: number;
  readonly jobs: number;
  readonly scenario?: string;
  readonly save?: string;
  readonly done?: string;
}

/** So many seeds; from the first on, where it says one. */
interface SeedRange {
  readonly first?: number;
  readonly count: number;
}

interface Summary {
  readonly seeds: number;
  readonly failedSeeds: number[];
  requests: number;
  failedRequests: number;
  hedges: number;
  sequences: number;
  broken: number;
  virtualMs: number;
  /** By kind: struck, met somebody, bit so often. */
  readonly faults: Map<string, [number, number, number]>;
}

const shownMax = 5;
const seedsMax = 1_000_000;

export function addSimulateGridCommand(parent: Command, context: CommandContext): void {
  const command = parent
    .command('simulate-grid')
    .description('run whole grids of the production code on virtual time, with faults drawn from a seed')
    .option('--hosts <count>', 'hosts of each grid, 2 to 1000', countBetween(2, 1_000), 20)
    .option('--seed <number>', 'first seed', wholeNumber, 1)
    .option('--seeds <count|A..B>', 'how many seeds (default: 1), or the first and the last', seedRange)
    .option('--faults <kinds>', 'all, none, or a list such as loss,crash', faultList, 'all' as const)
    .option('--requests <count>', 'requests that clients send while faults strike', countBetween(0, 1_000_000), 1_000)
    .option('--jobs <count>', 'processes that run seeds side by side', countBetween(1, 64), 1)
    .option('--scenario <file>', 'run a scenario that was saved, instead of drawing one')
    .option('--save <dir>', 'folder to write the scenarios of seeds that failed to')
    .option('--done <file>', 'file of what is done: seeds in it without a violation do not run again')
    .addHelpText(
      'after',
      examples(
        'intarsia simulate-grid --hosts 50 --seed 7 --faults all',
        'intarsia simulate-grid --seeds 1..10000 --jobs 2 --save failed --done seeds.jsonl',
        'intarsia simulate-grid --scenario failed/seed-132.json',
      ),
    )
    .addHelpText('after', 'Exit codes: 0 nothing violated, 1 a checker found something wrong.');
  command.action((flags: SimulateFlags) =>
    act(context, command, async (output) => {
      const { clock } = context.program;
      const startMs = clock.nowMs();
      const progress = startProgress(output, 'simulate');
      const seeds = flags.scenario === undefined ? (flags.seeds?.count ?? 1) : 1;
      const summary: Summary = {
        ...{ seeds, failedSeeds: [], requests: 0, failedRequests: 0, hedges: 0 },
        ...{ sequences: 0, broken: 0, virtualMs: 0, faults: new Map() },
      };
      let known: readonly SeedLine[] = [];
      let ran = 0;
      try {
        const { scenario, save, hosts, requests, jobs } = flags;
        const seed = flags.seeds?.first ?? flags.seed;
        const faults = flags.faults === 'all' ? undefined : flags.faults;
        const file =
          flags.done === undefined || scenario !== undefined
            ? undefined
            : new SeedsFile(flags.done, { hosts, requests, faults });
        known = [...(file?.lines.values() ?? [])].filter(
          (line) => line.violations === 0 && line.seed >= seed && line.seed < seed + seeds,
        );
        for (const line of known) add(summary, line);
        if (known.length > 0) output.note(`${known.length} of ${seeds} seeds are done already, by ${flags.done}`);
        const request = {
          ...{ hosts, seed, seeds, faults, requests, jobs, done: new Set(known.map((line) => line.seed)) },
          scenario: scenario === undefined ? undefined : readJson(scenario),
        };
        await context.program.simulateGrids(request, (report) => {
          ran += 1;
          const line = seedLine(report);
          file?.add(line);
          add(summary, line);
          progress.update((known.length + ran) / seeds, wordsOf(summary, report.seed));
          output.resultLine(report);
          if (report.violationCount > 0) show(report, output, save);
          else if (seeds === 1) describe(report, output);
        });
      } finally {
        progress.stop();
      }
      print(summary, ran, clock.nowMs() - startMs, output);
      return summary.failedSeeds.length === 0 ? exitCodes.ok : exitCodes.failed;
    }),
  );
}

function add(summary: Summary, line: SeedLine): void {
  const { seed, violations, faults } = line;
  if (violations > 0) summary.failedSeeds.push(seed);
  summary.requests += line.sent;
  summary.failedRequests += line.failed;
  summary.hedges += line.hedges;
  summary.sequences += line.sequences;
  summary.broken += line.broken;
  summary.virtualMs += line.virtualMs;
  for (const [kind, [struck, fired, bites]] of Object.entries(faults)) {
    const [struckBefore, firedBefore, bitesBefore] = summary.faults.get(kind) ?? [0, 0, 0];
    summary.faults.set(kind, [struckBefore + struck, firedBefore + fired, bitesBefore + bites]);
  }
}

function wordsOf({ failedSeeds }: Summary, seed: number): string {
  return `seed ${seed}, ${failedSeeds.length === 0 ? 'nothing' : `${failedSeeds.length} seeds`} violated`;
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

/** @param ran Seeds that ran now, and took so long; the others were done before. */
function print(summary: Summary, ran: number, wallMs: number, output: Output): void {
  const { seeds, failedSeeds, requests, failedRequests, hedges, sequences, broken, faults, virtualMs } = summary;
  const seconds = wallMs / 1000;
  if (seeds > 1) {
    output.table(
      ['fault', 'struck', 'fired', 'bit'],
      [...faults].sort(([left], [right]) => (left < right ? -1 : 1)).map(([kind, counts]) => [kind, ...counts]),
      1,
    );
  }
  const struck = [...faults.values()].reduce((sum, [count]) => sum + count, 0);
  const fired = [...faults.values()].reduce((sum, [, count]) => sum + count, 0);
  output.line(
    `${seeds} ${seeds === 1 ? 'grid' : 'grids'}, ${(virtualMs / 1000).toFixed(0)} virtual s` +
      `${ran === seeds ? '' : `; ${ran} ran now`} in ${seconds.toFixed(1)} s, ${(ran / seconds).toFixed(2)} a second; ` +
      `${requests} requests, ${failedRequests} failed with a known code, ${hedges} hedged; ` +
      `${sequences} sequences, ${broken} ended by a failure; ${struck} faults, ${struck - fired} of them met nobody`,
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

function seedRange(text: string): SeedRange {
  const [, from, to] = /^(\d+)\.\.(\d+)$/.exec(text) ?? [];
  if (from === undefined || to === undefined) return { count: countBetween(1, seedsMax)(text) };
  const first = wholeNumber(from);
  const count = wholeNumber(to) - first + 1;
  if (count < 1 || count > seedsMax) throw new InvalidArgumentError(`It must hold 1 to ${seedsMax} seeds.`);
  return { first, count };
}
