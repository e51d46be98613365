/** `intarsia infer`: one request from the command line; file, JSON or picture in, table out. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { intarsiaError } from '#core/errors.js';
import { formatShape, type TensorSpec } from '#core/tensor.js';
import { formatMs } from '#core/units.js';
import type { ClientReceipt, InferInputs, InputValue, ModelMetadata, OutputTensor } from '#client/index.js';
import {
  addConnectionFlags,
  collectPairs,
  connectBy,
  parseShape,
  wholeNumber,
  type ConnectionFlags,
} from '../connection-flags.js';
import { readInputValue } from '../infer-values.js';
import { randomInputs } from '../load/random-inputs.js';
import type { PictureFlags } from '../picture-tensor.js';
import { pictureFits, type PictureFit, type Program } from '../program.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';

interface InferFlags extends ConnectionFlags {
  readonly modelVersion?: string;
  readonly input?: ReadonlyMap<string, string>;
  readonly shape?: ReadonlyMap<string, string>;
  readonly output?: readonly string[];
  readonly classes?: number;
  readonly random?: boolean;
  readonly seed: string;
  readonly fit: PictureFit;
  readonly scale?: number;
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly invert?: boolean;
  readonly bgr?: boolean;
  readonly values: number;
}

export function addInferCommand(parent: Command, context: CommandContext): void {
  const command = addConnectionFlags(
    parent
      .command('infer')
      .description('run a model once')
      .argument('<model>', 'name of the model')
      .option('--model-version <version>', 'version of the model (default: the one that answers)')
      .option(
        '--input <name=value>',
        'an input: a picture (.png .jpg .webp …), a .json, .bin or .txt file, or the value as JSON or text; repeat it',
        collectPairs,
      )
      .option('--shape <name=sizes>', 'shape of an input, such as tokens=1,128; repeat it', collectPairs)
      .option('--random', 'random values for the inputs that are not given')
      .option('--seed <seed>', 'seed of the random values', '1')
      .option('--output <name>', 'output wanted; repeat it (default: all)', collect)
      .option('--classes <k>', 'the k best classes of each output instead of its values', wholeNumber)
      .addOption(
        new Option('--fit <how>', 'how a picture becomes the size wanted').choices([...pictureFits]).default('fill'),
      )
      .option(
        '--scale <factor>',
        'factor of pixel values (default: 1/255 for floating point inputs, else 1)',
        anyNumber,
      )
      .option('--mean <list>', 'mean per channel, taken off after scaling', numbers, [0])
      .option('--std <list>', 'standard deviation per channel, divided by after that', numbers, [1])
      .option('--invert', 'white becomes black: for models that expect light on dark')
      .option('--bgr', 'blue, green, red instead of red, green, blue')
      .option('--values <n>', 'values of each output to print; 0 for all', wholeNumber, 16)
      .addHelpText(
        'after',
        examples(
          'intarsia infer digits --input image=seven.png --classes 3',
          'intarsia infer simple --input "INPUT0=[1,2,3]" --input INPUT1=values.json',
          'intarsia infer resnet50 --input data=cat.jpg --fit cover --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225',
          'intarsia infer digits --random --json',
        ),
      ),
  );
  command.action((model: string, flags: InferFlags) =>
    act(context, command, (output) => infer(model, flags, context.program, output)),
  );
}

async function infer(model: string, flags: InferFlags, program: Program, output: Output): Promise<undefined> {
  const client = connectBy(flags, program);
  try {
    const version = flags.modelVersion === undefined ? {} : { version: flags.modelVersion };
    const metadata = await client.modelMetadata(model, version);
    const inputs = await inputsOf(metadata, flags, program);
    const outputs = outputsOf(metadata, flags);
    const startMs = program.clock.nowMs();
    const result = await client.infer(model, inputs, { ...version, ...(outputs === undefined ? {} : { outputs }) });
    const latencyMs = program.clock.nowMs() - startMs;
    output.result({
      model: result.model,
      version: result.version,
      latencyMs,
      outputs: result.outputs.map((tensor) => jsonOutput(tensor, flags.classes !== undefined)),
      receipt: result.receipt,
    });
    for (const tensor of result.outputs) printOutput(tensor, flags, output);
    output.line(output.style('dim', receiptLine(result.receipt, latencyMs)));
  } finally {
    client.close();
  }
  return undefined;
}

async function inputsOf(metadata: ModelMetadata, flags: InferFlags, program: Program): Promise<InferInputs> {
  const given = flags.input ?? new Map<string, string>();
  const known = new Map(metadata.inputs.map((spec) => [spec.name, spec]));
  for (const name of [...given.keys(), ...(flags.shape?.keys() ?? [])]) {
    if (!known.has(name)) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `model '${metadata.name}' has no input '${name}'; it has ${[...known.keys()].join(', ')}`,
      );
    }
  }
  const shapes = new Map([...(flags.shape ?? [])].map(([name, text]) => [name, parseShape(`--shape ${name}`, text)]));
  const picture: PictureFlags = {
    fit: flags.fit,
    ...(flags.scale === undefined ? {} : { scale: flags.scale }),
    mean: flags.mean,
    std: flags.std,
    invert: flags.invert === true,
    bgr: flags.bgr === true,
  };
  const inputs: Record<string, InputValue> = {};
  const missing: TensorSpec[] = [];
  for (const spec of metadata.inputs) {
    const text = given.get(spec.name);
    if (text === undefined) missing.push(spec);
    else inputs[spec.name] = await readInputValue(spec, text, { program, picture, shape: shapes.get(spec.name) });
  }
  if (flags.random === true) {
    const open = new Map([...shapes].filter(([name]) => !given.has(name)));
    for (const tensor of randomInputs(missing, { seed: flags.seed, batch: 1, shapes: open }))
      inputs[tensor.name] = tensor;
  } else if (given.size === 0 && missing.length > 0) {
    throw intarsiaError(
      'CONFIG_INVALID',
      `no input is given; model '${metadata.name}' takes ${missing.map(describeSpec).join(', ')}: use --input name=value, or --random`,
    );
  }
  return inputs;
}

function outputsOf(
  metadata: ModelMetadata,
  { output, classes }: InferFlags,
): readonly { readonly name: string; readonly classes?: number }[] | undefined {
  if (output === undefined && classes === undefined) return undefined;
  const names = output ?? metadata.outputs.map(({ name }) => name);
  return names.map((name) => ({ name, ...(classes === undefined ? {} : { classes }) }));
}

function printOutput(tensor: OutputTensor, flags: InferFlags, output: Output): void {
  output.line(`${output.style('bold', tensor.name)}  ${tensor.datatype} ${formatShape(tensor.shape)}`);
  if (flags.classes !== undefined) {
    const classes = tensor.asClassifications();
    output.table(
      ['rank', 'class', 'label', 'value'],
      classes.map(({ index, label, value }, rank) => [(rank % (flags.classes ?? 1)) + 1, index, label, value]),
    );
  } else {
    const values = tensor.toArray();
    const shown = flags.values === 0 ? values : values.slice(0, flags.values);
    const more = values.length - shown.length;
    output.line(`  ${shown.map(formatValue).join(' ')}${more > 0 ? ` … ${more} more (--values 0 prints all)` : ''}`);
  }
  output.line();
}

function formatValue(value: number | bigint | boolean | string): string {
  if (typeof value === 'string') return JSON.stringify(value);
  return typeof value === 'number' && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : String(value);
}

function jsonOutput(tensor: OutputTensor, asClasses: boolean): object {
  const { name, datatype, shape } = tensor;
  return asClasses ? { name, classes: tensor.asClassifications() } : { name, datatype, shape, data: tensor.toArray() };
}

function receiptLine(receipt: ClientReceipt | undefined, latencyMs: number): string {
  if (receipt === undefined) return `answered in ${formatMs(latencyMs)}`;
  const cost =
    receipt.costUsd === undefined
      ? ''
      : `, ${receipt.costUsd.toExponential(2)} USD (price ${receipt.priceSource ?? 'unknown'})`;
  return (
    `answered in ${formatMs(latencyMs)} by ${placeOf(receipt)}${receipt.emulated ? ' (emulated)' : ''}: ` +
    `queue ${formatMs(receipt.queueUs / 1000)}, compute ${formatMs(receipt.computeUs / 1000)}, ` +
    `link ${formatMs(receipt.linkUs / 1000)}, batch of ${receipt.batchItems}${cost}`
  );
}

/** The device, with its host where the server is a grid. */
function placeOf({ host, device }: ClientReceipt): string {
  return host === undefined || host === '' ? device : `${host}/${device}`;
}

function describeSpec({ name, datatype, shape }: TensorSpec): string {
  return `${name} (${datatype} ${formatShape(shape)})`;
}

function collect(text: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), text];
}

function anyNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('It must be a number.');
  return value;
}

function numbers(text: string): readonly number[] {
  return text.split(',').map(anyNumber);
}
