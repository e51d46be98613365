/** `intarsia verify`: whether a model cut in pieces answers what it answers whole. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { executionProviders, type ExecutionProvider } from '#core/provider.js';
import { countBetween, wholeNumber } from '../connection-flags.js';
import { exitCodes } from '../failure-line.js';
import { startProgress } from '../progress.js';
import type { SplitReport, SplitRequest } from '../split-report.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';

interface VerifyFlags {
  readonly stages: number;
  readonly devices: readonly ExecutionProvider[];
  readonly cuts: SplitRequest['cuts'];
  readonly optimization: 'all' | 'basic' | 'disabled';
  readonly vectors?: string;
  readonly seed: number;
}

/** No legal cut is neither equal nor different. */
const noLegalCut = 2;
const rowsMax = 10;

export function addVerifyCommand(parent: Command, context: CommandContext): void {
  const command = parent
    .command('verify')
    .description('cut a model in pieces, run them on unlike devices, and compare with the whole model')
    .argument('<model>', 'ONNX file')
    .option('--stages <count>', 'pieces the model is cut into, 1 to 64', countBetween(1, 64), 2)
    .option('--devices <list>', 'execution providers, one a stage, beginning again after the last', providerList, [
      'cpu' as const,
    ])
    .option(
      '--cuts <all|count|annotated>',
      'all cuts, so many spread over the legal ones, or the one that the file is annotated with',
      cutCount,
      20,
    )
    .addOption(
      new Option('--optimization <level>', "ONNX Runtime's optimiser on the pieces")
        .choices(['all', 'basic', 'disabled'])
        .default('all'),
    )
    .option('--vectors <dir>', "folder with test_data_set_N; without it the model's folder, or made-up inputs")
    .option('--seed <number>', 'for made-up inputs and the choice of cuts', wholeNumber, 1)
    .addHelpText(
      'after',
      examples(
        'intarsia verify model.onnx --stages 3 --devices cpu,wasm',
        'intarsia verify model.onnx --cuts all --optimization disabled --json',
      ),
    )
    .addHelpText('after', 'Exit codes: 0 equal within tolerance, 1 not equal, 2 no legal cut.');
  command.action((model: string, flags: VerifyFlags) =>
    act(context, command, async (output) => {
      const progress = startProgress(output, 'verify');
      let report: SplitReport;
      try {
        const { vectors = '', ...rest } = flags;
        report = await context.program.verifySplit({ model, vectors, ...rest }, (share, words) =>
          progress.update(share, words),
        );
      } finally {
        progress.stop();
      }
      output.result(report);
      print(report, output);
      if (report.verdict === 'equal') return exitCodes.ok;
      return report.verdict === 'no-legal-cut' ? noLegalCut : exitCodes.failed;
    }),
  );
}

function print(report: SplitReport, output: Output): void {
  const { impossible, problems, notes } = report;
  output.table(
    ['model', 'nodes', 'stages', 'devices', 'cuts', 'bit-exact', 'close', 'wrong', 'impossible', 'largest error'],
    [
      [
        report.model,
        report.nodes,
        report.stages,
        report.devices.join(', '),
        report.cutsTried,
        report.bitExact,
        report.close,
        report.wrong,
        impossible.length,
        `${report.maxRelativeError.toPrecision(2)} relative`,
      ],
    ],
  );
  const list = (title: string, lines: readonly string[]): void => {
    if (lines.length === 0) return;
    output.line();
    output.line(output.style('bold', title));
    for (const line of lines.slice(0, rowsMax)) output.line(`  ${line}`);
    if (lines.length > rowsMax) output.line(`  … and ${lines.length - rowsMax} more; see --json`);
  };
  list(
    'Wrong',
    problems.map(({ problem }) => problem),
  );
  list(
    'Impossible',
    impossible.map(({ cut, reason }) => `cut [${cut.join(',')}]: ${reason}`),
  );
  list('Notes', notes);
  output.line();
  const verdicts = {
    equal: output.style(
      'green',
      `equal within tolerance (${report.toleranceRelative === 0 ? 'every bit' : `${report.toleranceRelative} relative`})`,
    ),
    different: output.style('red', `not equal: ${report.reason}`),
    'no-legal-cut': output.style('yellow', `no legal cut: ${report.reason}`),
    'not-repeatable': output.style('red', `cannot be compared: ${report.reason}`),
  } as const;
  output.line(verdicts[report.verdict]);
}

function cutCount(text: string): SplitRequest['cuts'] {
  if (text === 'all' || text === 'annotated') return text;
  const value = wholeNumber(text);
  if (value < 1) throw new InvalidArgumentError('It must be all, annotated or at least 1.');
  return value;
}

/** Execution providers that compute here, by name. */
export function providerList(text: string): readonly ExecutionProvider[] {
  return text.split(',').map((name) => {
    const provider = executionProviders.find((known) => known === name.trim());
    if (provider === undefined || provider === 'remote' || provider === 'none') {
      const offered = executionProviders.filter((known) => known !== 'remote' && known !== 'none');
      throw new InvalidArgumentError(`'${name.trim()}' is not one of ${offered.join(', ')}.`);
    }
    return provider;
  });
}
