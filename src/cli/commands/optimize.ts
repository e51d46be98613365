/** `intarsia optimize`: variants of a model, each compared with it and timed beside it before it is written. */
import { InvalidArgumentError, type Command } from 'commander';
import type { MadeKind } from '#core/variants/variant-tolerance.js';
import { wholeNumber } from '../connection-flags.js';
import { exitCodes } from '../failure-line.js';
import { startProgress } from '../progress.js';
import type { Output } from '../terminal.js';
import type { OptimizeReport, VariantOutcome } from '../variant-report.js';
import { act, examples, type CommandContext } from './command-context.js';
import { providerList } from './verify.js';

interface OptimizeFlags {
  readonly variants: readonly MadeKind[];
  readonly out?: string;
  readonly vectors?: string;
  readonly batch?: number;
  readonly shape?: ReadonlyMap<string, readonly number[]>;
  readonly devices: ReturnType<typeof providerList>;
  readonly keep?: readonly string[];
  readonly tolerance?: number;
  readonly seed: number;
}

const kinds = ['fp16', 'int8', 'fixed', 'ort'] as const;

export function addOptimizeCommand(parent: Command, context: CommandContext): void {
  const command = parent
    .command('optimize')
    .description('make smaller or faster variants of a model, and keep those that answer nearly the same')
    .argument('<model>', 'ONNX file')
    .option('--variants <list>', 'fp16, int8, fixed, ort', kindList, ['fp16', 'int8', 'ort'])
    .option('--out <dir>', 'folder for the variants; default: variants beside the model')
    .option('--vectors <dir>', "folder with test_data_set_N; without it the model's folder, or made-up inputs")
    .option('--batch <count>', 'of fixed: size of the first dimension where it varies', positive)
    .option('--shape <input=sizes>', 'of fixed: all sizes of an input, such as x=1x3x224x224; may repeat', shape)
    .option('--devices <list>', 'execution providers that variants are compared and timed on', providerList, [
      'cpu' as const,
    ])
    .option('--keep <list>', 'of fp16: operators that stay in single precision', texts)
    .option('--tolerance <share>', "largest error that passes, instead of each kind's own", share)
    .option('--seed <number>', 'for made-up inputs', wholeNumber, 1)
    .addHelpText(
      'after',
      examples(
        'intarsia optimize models/resnet50/1/model.onnx',
        'intarsia optimize model.onnx --variants fixed --batch 8 --devices cpu,wasm --json',
      ),
    )
    .addHelpText('after', 'Exit codes: 0 all were written, 1 one at least was refused.');
  command.action((model: string, flags: OptimizeFlags) =>
    act(context, command, async (output) => {
      const progress = startProgress(output, 'optimize');
      let report: OptimizeReport;
      try {
        const { out = '', vectors = '', shape: shapes = new Map(), keep = [], ...rest } = flags;
        report = await context.program.optimizeModel({ model, out, vectors, shapes, keep, ...rest }, (done, words) =>
          progress.update(done, words),
        );
      } finally {
        progress.stop();
      }
      output.result(report);
      print(report, output);
      return report.variants.every(({ state }) => state === 'written') ? exitCodes.ok : exitCodes.failed;
    }),
  );
}

function print(report: OptimizeReport, output: Output): void {
  const rows = report.variants.flatMap(({ kind, state, bytes, rows: compared }) =>
    compared.map((row) => [
      kind,
      state,
      bytes === 0 ? '' : `${((100 * bytes) / report.bytes).toFixed(0)} %`,
      row.provider,
      row.verdict,
      number(row.errorShare),
      number(row.maxRelativeError),
      row.verdict === 'fails' ? '' : `${(100 * row.argMaxAgreement).toFixed(1)} %`,
      row.verdict === 'fails' ? '' : row.cosine.toFixed(6),
      row.runMs === undefined ? '' : row.runMs.toPrecision(3),
      row.exactRunMs === undefined ? '' : row.exactRunMs.toPrecision(3),
    ]),
  );
  if (rows.length > 0) {
    output.table(
      ['variant', 'state', 'size', 'device', 'verdict', 'of peak', 'relative', 'arg-max', 'cosine', 'ms', 'exact ms'],
      rows,
    );
  }
  for (const { kind, state, path, reason, notes } of report.variants) {
    output.line();
    if (state === 'written') output.line(`${output.style('green', kind)} ${path}`);
    else output.line(`${output.style('red', kind)} refused: ${reason}`);
    for (const note of notes) output.line(`  ${note}`);
  }
}

function number(value: VariantOutcome['rows'][number]['errorShare']): string {
  return Number.isFinite(value) ? value.toPrecision(2) : '';
}

function kindList(text: string): readonly MadeKind[] {
  const list = text.split(',').map((name) => {
    const kind = kinds.find((known) => known === name.trim());
    if (kind === undefined) throw new InvalidArgumentError(`'${name.trim()}' is not one of ${kinds.join(', ')}.`);
    return kind;
  });
  return [...new Set(list)];
}

function positive(text: string): number {
  const value = wholeNumber(text);
  if (value < 1) throw new InvalidArgumentError('It must be at least 1.');
  return value;
}

/** `x=1x3x224x224`, added to those before. */
function shape(
  text: string,
  before: ReadonlyMap<string, readonly number[]> = new Map(),
): ReadonlyMap<string, readonly number[]> {
  const at = text.lastIndexOf('=');
  const sizes = text.slice(at + 1).split('x');
  if (at < 1 || !sizes.every((size) => /^[1-9][0-9]{0,14}$/.test(size))) {
    throw new InvalidArgumentError("It must be an input's name and its sizes, such as x=1x3x224x224.");
  }
  return new Map([...before, [text.slice(0, at), sizes.map(Number)]]);
}

function texts(text: string): readonly string[] {
  return text.split(',').map((part) => part.trim());
}

function share(text: string): number {
  const value = Number(text);
  if (!(value >= 0 && value <= 1) || text.trim() === '') throw new InvalidArgumentError('It must be from 0 to 1.');
  return value;
}
