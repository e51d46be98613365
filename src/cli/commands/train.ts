/** `intarsia train`: a dispatch policy from fleets and traces, in a folder from which it can be continued. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { intarsiaError } from '#core/errors.js';
import { shippedPolicy } from '#core/scheduling/shipped-policy.js';
import { wholeNumber } from '../connection-flags.js';
import { exitCodes } from '../failure-line.js';
import { startProgress } from '../progress.js';
import type { Output } from '../terminal.js';
import { printTuned } from '../print-log-evaluation.js';
import type { LogTrainReport, TrainProgress, TrainReport } from '../train-report.js';
import { act, examples, type CommandContext } from './command-context.js';

interface TrainFlags {
  readonly config?: string;
  readonly fleets: readonly string[];
  readonly traces: readonly string[];
  readonly seed?: number;
  readonly workers: number;
  readonly minutes?: number;
  readonly resume?: string;
  readonly quick?: boolean;
  readonly out: string;
  readonly backend?: 'tensorflow' | 'wasm' | 'cpu';
  readonly from?: string;
  readonly fromLog?: string;
  readonly policy?: string;
}

const workersMax = 64;

export function addTrainCommand(parent: Command, context: CommandContext): void {
  const command = parent
    .command('train')
    .description('train a policy: begin with a rule, search, optimise; judged on scenarios never trained on')
    .option('--config <file>', 'YAML file with parts of the training plan')
    .option('--fleets <files...>', 'fleet files; default: those that come with the product', [])
    .option('--traces <files...>', 'traces of requests; default: generated arrivals only', [])
    .option('--seed <number>', 'seed of everything that is drawn; default: that of the plan, 1', wholeNumber)
    .option('--workers <count>', 'threads that play episodes, 0 to 64; 0 plays on the main thread', workerCount, 2)
    .option(
      '--minutes <minutes>',
      'stop after this time, above 0 and at most 10000; the run can be continued; default: at the end of the plan',
      minutes,
    )
    .option('--resume <dir>', 'continue a run that was stopped or killed')
    .option('--quick', 'one to three minutes: to see that it works, not to be good')
    .option('--out <dir>', 'folder of the run; must be empty', 'training-run')
    .option('--from <policy>', 'begin with the networks of a learned policy, a file or the name of one of the product')
    .option('--from-log <dir>', 'tune a learned policy on the decisions of a log instead; needs --policy')
    .option(
      '--policy <file>',
      'with --from-log: the policy to tune, a file or the name of one that comes with the product',
    )
    .addOption(
      new Option('--backend <name>', 'backend of TensorFlow.js; default: the fastest that loads').choices([
        'tensorflow',
        'wasm',
        'cpu',
      ]),
    )
    .addHelpText(
      'after',
      examples(
        'intarsia train --quick --out run',
        'intarsia train --fleets policies/fleets/*.yaml --traces trace.csv --seed 7 --out run',
        'intarsia train --resume run',
        `intarsia train --from-log log --policy ${shippedPolicy} --out tuned`,
      ),
    )
    .addHelpText(
      'after',
      'An interrupt finishes the step under way, saves, and says how to go on. See docs/policies.md.',
    );
  command.action((flags: TrainFlags) =>
    act(context, command, async (output) => {
      const { program } = context;
      if (flags.fromLog !== undefined || flags.policy !== undefined) {
        printTuned(await tune(command, flags, context, output), output);
        return exitCodes.ok;
      }
      const progress = startProgress(output, 'train');
      let interrupted: string | undefined;
      void program.untilInterrupted().then((signal) => {
        interrupted = signal;
        output.note(`${signal}: finishing the step under way, then saving`);
      });
      let report: TrainReport;
      try {
        const { config = '', resume = '', quick = false, seed, minutes: limit, backend, from = '', ...rest } = flags;
        const request = { ...rest, configPath: config, resume, quick, seed, minutes: limit, backend, from };
        report = await program.train(request, {
          onStep: (step) => {
            progress.update(step.share, wordsOf(step));
            if (output.verbose) output.note(`${step.stage} ${step.step}/${step.steps} ${wordsOf(step)}`);
          },
          isStopWanted: () => interrupted !== undefined,
        });
      } finally {
        progress.stop();
      }
      print(report, output);
      return exitCodes.ok;
    }),
  );
}

/** Options that mean nothing to a log. */
const simulationOptions = ['fleets', 'traces', 'workers', 'minutes', 'resume', 'quick', 'from'] as const;

async function tune(
  command: Command,
  { fromLog = '', policy = '', config = '', seed, out, backend }: TrainFlags,
  { program }: CommandContext,
  output: Output,
): Promise<LogTrainReport> {
  if (fromLog === '' || policy === '') throw wrongFlags('--from-log and --policy go together: a log tunes a policy');
  const other = simulationOptions.find((name) => command.getOptionValueSource(name) === 'cli');
  if (other !== undefined) throw wrongFlags(`--${other} means nothing with --from-log: nothing is simulated`);
  const progress = startProgress(output, 'train');
  try {
    const request = { folder: fromLog, policy, configPath: config, seed, out, backend };
    return await program.trainFromLog(request, (epoch, epochs, loss) => {
      progress.update((epoch + 1) / epochs, `epoch ${epoch + 1}/${epochs}, loss ${loss.toFixed(4)}`);
    });
  } finally {
    progress.stop();
  }
}

function wrongFlags(message: string): Error {
  return intarsiaError('CONFIG_INVALID', message);
}

function wordsOf({ stage, step, steps, leftMs, gain }: TrainProgress): string {
  const parts = [stage === 'done' ? stage : `${stage} ${step}/${steps}`];
  if (gain !== undefined) parts.push(`best ${percent(gain)} against the best rule`);
  if (leftMs !== undefined && Number.isFinite(leftMs) && leftMs > 0) parts.push(`${duration(leftMs)} left`);
  return parts.join(', ');
}

function print(report: TrainReport, output: Output): void {
  const { folder, isDone, policyPath, policySha256, teacher, fallback, gain, bestStage, backend } = report;
  output.result(report);
  if (policyPath === '') output.line(`stopped before there was a network`);
  else {
    output.line(`${policyPath}: from ${bestStage}, ${percent(gain)} objective against the best rule in hindsight`);
    output.line(`teacher ${teacher}, fallback ${fallback}; backend ${backend}; SHA-256 ${policySha256}`);
    output.line(`curves: ${folder}/curves.html`);
  }
  if (!isDone) output.line(`not finished; continue with: intarsia train --resume ${folder}`);
}

function percent(share: number): string {
  return `${share > 0 ? '+' : ''}${(100 * share).toFixed(2)} %`;
}

function duration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const whole = Math.round(seconds / 60);
  return whole < 60 ? `${whole} min` : `${Math.floor(whole / 60)} h ${whole % 60} min`;
}

function workerCount(text: string): number {
  const count = wholeNumber(text);
  if (count > workersMax) throw new InvalidArgumentError(`It must be 0 to ${workersMax}.`);
  return count;
}

function minutes(text: string): number {
  const value = Number(text);
  if (!(value > 0 && value <= 10_000)) throw new InvalidArgumentError('It must be above 0 and at most 10000.');
  return value;
}
