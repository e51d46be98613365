/** `intarsia evaluate`: policies against the best rule, in pairs, on fleets, arrivals and loads; and under stress. */
import { InvalidArgumentError, type Command } from 'commander';
import { intarsiaError } from '#core/errors.js';
import { wholeNumber } from '../connection-flags.js';
import type { EvaluationCellReport, EvaluationReport } from '../evaluation-report.js';
import { exitCodes } from '../failure-line.js';
import { printCalibration, printEstimates } from '../print-log-evaluation.js';
import type { Program } from '../program.js';
import { startProgress } from '../progress.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';

interface EvaluateFlags {
  readonly policies: readonly string[];
  readonly rules: readonly string[];
  readonly batching: readonly string[];
  readonly fleets: readonly string[];
  readonly traces: readonly string[];
  readonly arrivals?: readonly string[];
  readonly loads: readonly number[];
  readonly seeds: number;
  readonly requests: number;
  readonly seconds: number;
  readonly stress?: boolean;
  readonly bounds: boolean;
  readonly seed: number;
  readonly workers: number;
  readonly html?: string;
  readonly log?: string;
  readonly calibrate?: boolean;
}

const loadsDefault: readonly number[] = [0.5, 0.7, 0.9];
/** What policies are held against, the best of each cell in hindsight. */
export const rulesDefault: string[] = [
  ...['cheapest-feasible:0.4', 'cheapest-feasible:0.6', 'cheapest-feasible:0.8', 'cheapest-feasible:1'],
  ...['cf-risk', 'sed', 'milp-rate', 'milp-rate:1'],
];

export function addEvaluateCommand(parent: Command, context: CommandContext): void {
  const command = parent
    .command('evaluate')
    .description('judge policies against the best rule in hindsight, in pairs on the same requests, and under stress')
    .option(
      '--policies <names...>',
      'rules, learned policies (.onnx, or by the name of one that comes with the product), modules of your own (.js, .mjs), each also as NAME@BATCHING',
      [],
    )
    .option(
      '--rules <names...>',
      'rules of which the best of each cell is what policies are compared with',
      rulesDefault,
    )
    .option('--batching <names...>', 'batching policies: rules are tried with each, policies with the first', [
      'deadline-cap+shed',
    ])
    .option('--fleets <files...>', 'fleet files, or names of those that come with the product', [
      ...['stadium', 'exchange', 'observatory'],
    ])
    .option(
      '--traces <files...>',
      'traces, or folders of decision logs; of each the last fifth, which training leaves out',
      [],
    )
    .option('--arrivals <streams...>', 'streams to draw requests from; default: poisson without traces, else none')
    .option('--loads <shares...>', 'shares of what each fleet can serve in time, each at most 10', shares, loadsDefault)
    .option('--seeds <count>', 'runs of each cell, 1 to 10000', count(10_000), 20)
    .option('--requests <count>', 'requests of a run, 1 to 10000000', count(10_000_000), 4_000)
    .option(
      '--seconds <seconds>',
      'length of a run in virtual seconds, 1 to 3600, in the place of --requests; several times the longest target',
      seconds,
      0,
    )
    .option('--stress', 'the stress suite, too, on each fleet')
    .option('--no-bounds', 'do not compute the bound on J of each run')
    .option('--seed <number>', 'seed of everything that is drawn', wholeNumber, 1)
    .option('--workers <count>', 'threads that play, 0 to 64; 0 plays on the main thread', workerCount, 2)
    .option('--html <file>', 'write a page with all figures')
    .option('--log <dir>', 'estimate learned policies from a decision log instead of simulating')
    .option(
      '--calibrate',
      'with --log: compare the simulation of the log’s requests on one fleet with what was measured',
    )
    .addHelpText(
      'after',
      examples(
        'intarsia evaluate --policies run/policy.onnx --stress --html judged.html',
        'intarsia evaluate --policies cf-risk:0.02 --fleets four --loads 0.7 --seeds 5 --requests 1000',
        'intarsia evaluate --policies ./my-policy.mjs run/policy.onnx --traces trace.csv --json',
        'intarsia evaluate --log decisions --policies run/policy.onnx',
        'intarsia evaluate --log decisions --calibrate --fleets my-fleet.yaml',
      ),
    )
    .addHelpText('after', 'An interrupt ends with what is done. See docs/policies.md.');
  command.action((flags: EvaluateFlags) =>
    act(context, command, async (output) => {
      const { program } = context;
      if (flags.log !== undefined || flags.calibrate === true) {
        await judgeLog(flags, program, output);
        return exitCodes.ok;
      }
      const progress = startProgress(output, 'evaluate');
      let interrupted: string | undefined;
      void program.untilInterrupted().then((signal) => {
        interrupted = signal;
        output.note(`${signal}: finishing the runs under way`);
      });
      const { html = '', stress = false, arrivals, log: _log, calibrate: _calibrate, ...rest } = flags;
      const streams = arrivals ?? (flags.traces.length > 0 ? [] : ['poisson']);
      const names = { policies: split(flags.policies), rules: split(flags.rules), batching: split(flags.batching) };
      let report: EvaluationReport;
      try {
        report = await program.evaluate(
          { ...rest, ...names, arrivals: streams, stress, htmlPath: html },
          {
            onProgress: (share, words) => {
              progress.update(share, words);
            },
            isStopWanted: () => interrupted !== undefined,
          },
        );
      } finally {
        progress.stop();
      }
      output.result(report);
      print(report, output);
      return exitCodes.ok;
    }),
  );
}

/** What a log says: of policies, or of the simulator. */
async function judgeLog(flags: EvaluateFlags, program: Program, output: Output): Promise<void> {
  const { log: folder, calibrate = false, fleets, seed } = flags;
  if (folder === undefined) throw intarsiaError('CONFIG_INVALID', '--calibrate needs --log');
  const policies = split(flags.policies);
  if (!calibrate) {
    printEstimates(await program.estimatePolicies({ folder, policies }), output);
    return;
  }
  const [fleet] = fleets;
  if (fleet === undefined || fleets.length > 1 || policies.length > 1) {
    throw intarsiaError('CONFIG_INVALID', '--calibrate needs the one fleet that wrote the log, and at most one policy');
  }
  const [batching = ''] = split(flags.batching);
  printCalibration(
    await program.calibrateWithLog({ folder, fleet, policy: policies[0] ?? '', batching, seed }),
    output,
  );
}

function print(report: EvaluationReport, output: Output): void {
  const { cells, stress, overall, verdicts, classes, isDone, htmlPath } = report;
  for (const cell of [...cells, ...stress]) printCell(cell, classes, output);
  if (overall.length > 0) {
    output.line('Over all cells, against the best rule of each:');
    output.table(
      ['policy', 'change', '95 %', 'worst cell', 'worst', 'miss points', 'gap closed', 'fallback', 'forbidden'],
      overall.map((each) => [
        each.contender,
        signed(each.change),
        `${signed(each.changeLow)} to ${signed(each.changeHigh)}`,
        each.worstCell,
        signed(each.worstChange),
        (each.worstMissChange * 100).toFixed(2),
        each.gapClosed === undefined ? '-' : percent(each.gapClosed),
        percent(each.fallbackRate),
        each.maskViolations,
      ]),
      1,
    );
  }
  printPareto(report, output);
  if (verdicts.length > 0) {
    output.line('Stress suite, against the better of the policy’s fallback and the default rule:');
    output.table(
      ['case', 'policy', 'against', 'change', '95 %', 'fallback', 'forbidden', 'verdict'],
      verdicts.map((each) => [
        each.cell,
        each.contender,
        each.against,
        signed(each.change),
        `${signed(each.changeLow)} to ${signed(each.changeHigh)}`,
        percent(each.fallbackRate),
        each.maskViolations,
        each.passed ? 'passed' : 'FAILED',
      ]),
      3,
    );
  }
  if (htmlPath !== '') output.line(`page: ${htmlPath}`);
  if (!isDone) output.line('stopped before its end: this is what was done');
}

function printCell(cell: EvaluationCellReport, classes: readonly string[], output: Output): void {
  const bound = cell.bound === undefined ? '' : `; no policy has J below ${cell.bound.toFixed(3)}`;
  output.line(`${cell.cell}: ${cell.seeds} seeds${bound}`);
  const columns = ['policy', 'J', 'change', '95 %', 'gap', 'closed', '$ per 1k', 'in time/s'];
  output.table(
    [...columns, ...classes.map((name) => `${name} missed`), 'p50 ms', 'p99 ms', 'J/request', 'fallback'],
    cell.figures.map((row) => {
      const own = cell.comparisons.find(({ contender }) => contender === row.contender);
      return [
        row.contender,
        row.objective.toFixed(3),
        own === undefined ? '' : signed(own.change),
        own === undefined ? '' : `${signed(own.changeLow)} to ${signed(own.changeHigh)}`,
        cell.bound === undefined || cell.bound <= 0 ? '-' : percent(row.objective / cell.bound - 1),
        own?.gapClosed === undefined ? '' : percent(own.gapClosed),
        row.usdPerThousand.toPrecision(3),
        row.goodput.toPrecision(3),
        ...row.missRates.map(percent),
        row.latencyMsP50.toFixed(1),
        row.latencyMsP99.toFixed(1),
        row.joulesPerRequest.toPrecision(3),
        percent(row.fallbackRate),
      ];
    }),
    1,
  );
}

function printPareto({ pareto, preferences }: EvaluationReport, output: Output): void {
  if (pareto.length === 0) return;
  output.line(
    'Money against misses against energy, mean over cells (front: nobody is better in all), and J by weight:',
  );
  output.table(
    [
      ...['policy', 'front', 'cost', 'misses', 'energy'],
      ...preferences.map(({ missWeight, energyWeight }) =>
        energyWeight === 0 ? `λ ${missWeight}` : `λ ${missWeight}, η ${energyWeight}`,
      ),
    ],
    pareto.map(({ contender, isFront, cost, misses, energy, objectives }) => [
      contender,
      isFront ? 'front' : '',
      cost.toFixed(3),
      percent(misses),
      energy.toFixed(3),
      ...objectives.map((value, at) => {
        const least = Math.min(...pareto.map((other) => other.objectives[at] ?? Infinity));
        return `${value.toFixed(3)}${value === least ? ' *' : ''}`;
      }),
    ]),
    2,
  );
}

function percent(share: number): string {
  return `${(share * 100).toFixed(Math.abs(share) < 0.1 ? 2 : 1)} %`;
}

function signed(share: number): string {
  return `${share > 0 ? '+' : ''}${percent(share)}`;
}

/** Names may stand apart or with commas. */
function split(names: readonly string[]): readonly string[] {
  return names.flatMap((each) => each.split(',')).filter((name) => name !== '');
}

function shares(text: string, before: readonly number[]): readonly number[] {
  // The first value given takes the place of the default.
  const earlier = before === loadsDefault ? [] : before;
  return [...earlier, ...text.split(',').map(share)];
}

function share(text: string): number {
  const value = text === '' ? Number.NaN : Number(text);
  if (!(value > 0 && value <= 10)) throw new InvalidArgumentError('It must be above 0 and at most 10.');
  return value;
}

function seconds(text: string): number {
  const value = text === '' ? Number.NaN : Number(text);
  if (!(value >= 1 && value <= 3_600)) throw new InvalidArgumentError('It must be 1 to 3600 seconds.');
  return value;
}

function count(most: number): (text: string) => number {
  return (text) => {
    const value = wholeNumber(text);
    if (value < 1 || value > most) throw new InvalidArgumentError(`It must be 1 to ${most}.`);
    return value;
  };
}

function workerCount(text: string): number {
  const value = wholeNumber(text);
  if (value > 64) throw new InvalidArgumentError('It must be 0 to 64.');
  return value;
}
