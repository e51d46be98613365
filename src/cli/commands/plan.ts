/** `intarsia plan`: where a model should be cut and what runs where, with the numbers of each choice. */
import { writeFileSync } from 'node:fs';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { intarsiaError, messageOf } from '#core/errors.js';
import { executionProviders } from '#core/provider.js';
import { planGoals, type PlanGoal } from '#core/split/plan-problem.js';
import { formatBytes, formatMs, GiB, KiB, MiB } from '#core/units.js';
import { tierNames } from '#core/grid/file-place.js';
import { addConnectionFlags, clientOptionsOf, countBetween, type ConnectionFlags } from '../connection-flags.js';
import { exitCodes } from '../failure-line.js';
import type { PlanNumber, PlanReport, PlanRequest, PlanRow, PlanStage } from '../plan-report.js';
import { startProgress } from '../progress.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';

interface PlanFlags extends ConnectionFlags {
  readonly grid?: boolean;
  readonly tiers: readonly string[];
  readonly zones: readonly string[];
  readonly hosts: readonly string[];
  readonly out?: string;
  readonly devices: readonly string[];
  readonly goal: PlanGoal;
  readonly sloMs?: number;
  readonly maxStages?: number;
  readonly batch: number;
  readonly strategy: PlanRequest['strategy'];
  readonly providers: readonly string[];
  readonly memory: ReadonlyMap<string, number>;
  readonly measure: boolean;
  readonly measureSeconds: number;
  readonly contention?: boolean;
  readonly rows: number;
  readonly vectors?: string;
  readonly profiles?: string;
  readonly svg?: string;
  readonly annotate?: string;
  readonly explain?: boolean;
}

/** Nothing fits, or nothing is fast enough: neither done nor failed. */
const noPlan = 2;

export function addPlanCommand(parent: Command, context: CommandContext): void {
  const command = addConnectionFlags(parent.command('plan'))
    .description(
      'where to cut a model and what runs where: latency, throughput, memory, cost and energy of each choice',
    )
    .argument('<model>', 'ONNX file')
    .option(
      '--devices <list>',
      'such as cpu,wasm,cpu*2,emulated:nvidia-l4; without it every device of this machine',
      list,
      [],
    )
    .option('--grid', 'plan for the devices of the grid at --endpoint: of all its hosts that are up')
    .option('--tiers <list>', `with --grid: only hosts of these tiers (${tierNames.join(', ')})`, tierList, [])
    .option('--zones <list>', 'with --grid: only hosts of these zones', list, [])
    .option('--hosts <list>', 'with --grid: only these hosts', list, [])
    .addOption(new Option('--goal <goal>', 'what the choice is best for').choices(planGoals).default('throughput'))
    .option('--slo-ms <ms>', 'longest latency of a request', positive)
    .option('--max-stages <count>', 'stages at most, 1 to 64', countBetween(1, 64))
    .option('--batch <items>', 'items of a request, 1 to 4096', countBetween(1, 4096), 1)
    .addOption(
      new Option('--strategy <strategy>', 'cut it, share whole models among devices, or what is better')
        .choices(['auto', 'pipeline', 'data'])
        .default('auto'),
    )
    .option('--providers <list>', 'execution providers that may be used', providerList, [])
    .option('--memory <limits>', 'memory limits by device, such as cpu:0=64MiB,wasm:0=1GiB', memoryLimits, new Map())
    .option('--no-measure', 'measure nothing: what the profile database does not know is estimated')
    .option('--measure-seconds <seconds>', 'longest time for measuring, 1 to 3600', countBetween(1, 3600), 30)
    .option('--contention', 'count what devices of one processor leave each other even beside other programs at work')
    .option('--no-contention', 'measure devices one at a time only')
    .option('--rows <count>', 'rows of the frontier at most, 1 to 1000', countBetween(1, 1000), 10)
    .option('--vectors <dir>', "folder with test_data_set_N; without it the model's folder, or made-up inputs")
    .option('--profiles <file>', 'YAML file with more hardware profiles')
    .option('--svg <file>', 'write a picture of the choice')
    .option('--annotate <file>', "write the model with the choice's stages as ONNX's own annotations")
    .option('--out <file>', 'write the plan as JSON: a file that `intarsia deploy -f` takes')
    .option('--explain', 'say in sentences what bounds the choice')
    .addHelpText(
      'after',
      examples(
        'intarsia plan model.onnx --devices cpu,wasm,emulated:nvidia-l4 --explain',
        'intarsia plan model.onnx --devices cpu,wasm --goal latency --svg plan.svg',
        'intarsia plan model.onnx --memory cpu:0=64MiB,wasm:0=64MiB --json > plan.json',
        'intarsia plan model.onnx --grid --tiers core --slo-ms 50 --out plan.json && intarsia deploy -f plan.json',
      ),
    )
    .addHelpText('after', 'Exit codes: 0 there is a plan, 1 it failed, 2 nothing fits or nothing is fast enough.');
  command.action((model: string, flags: PlanFlags) =>
    act(context, command, async (output) => {
      const progress = startProgress(output, 'plan');
      let report: PlanReport;
      try {
        report = await context.program.planModel(requestOf(model, flags), (share, words) =>
          progress.update(share, words),
        );
      } finally {
        progress.stop();
      }
      const { picture, ...rest } = report;
      output.result(rest);
      if (picture !== undefined && flags.svg !== undefined) write('--svg', flags.svg, picture);
      if (flags.out !== undefined && report.verdict === 'plan') {
        write('--out', flags.out, `${JSON.stringify(rest, undefined, 2)}\n`);
      }
      print(report, output, flags);
      return report.verdict === 'plan' ? exitCodes.ok : noPlan;
    }),
  );
}

function requestOf(model: string, flags: PlanFlags): PlanRequest {
  const { sloMs, maxStages, tiers, zones, hosts, grid = false } = flags;
  if (!grid) {
    for (const [flag, given] of Object.entries({ tiers, zones, hosts })) {
      if (given.length === 0) continue;
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `--${flag} ${given.join(',')} means hosts of a grid: it goes with --grid`,
      );
    }
  }
  return {
    ...(grid ? { grid: clientOptionsOf(flags), tiers, zones, hosts } : {}),
    model,
    devices: flags.devices,
    goal: flags.goal,
    ...(sloMs === undefined ? {} : { sloMs }),
    ...(maxStages === undefined ? {} : { stagesMax: maxStages }),
    items: flags.batch,
    strategy: flags.strategy,
    providers: flags.providers,
    memoryBytes: flags.memory,
    measureSeconds: flags.measure ? flags.measureSeconds : 0,
    ...(flags.contention === undefined ? {} : { contention: flags.contention }),
    frontierMax: flags.rows,
    vectors: flags.vectors ?? '',
    profilesPath: flags.profiles ?? '',
    picture: flags.svg !== undefined,
    ...(flags.annotate === undefined ? {} : { annotatedPath: flags.annotate }),
  };
}

function print(report: PlanReport, output: Output, { svg, out, explain = false }: PlanFlags): void {
  const { choice, frontier, wholes, devices, goal } = report;
  const isGrid = devices.some(({ host }) => host !== undefined);
  output.table(
    ['device', ...(isGrid ? ['tier', 'zone'] : []), 'what', 'memory', '$/h', 'W', 'measured'],
    devices.map((device) => [
      device.emulated ? `${device.id} (emulated)` : device.id,
      ...(isGrid ? [device.tier ?? '', device.zone ?? ''] : []),
      device.threads > 0
        ? `${device.name}, ${device.threads} ${device.threads === 1 ? 'thread' : 'threads'}`
        : device.name,
      formatBytes(device.memoryBytes),
      device.usdPerHour === 0 ? '' : short(device.usdPerHour),
      device.busyWatts === 0 ? '' : short(device.busyWatts),
      device.measurements === 0 ? 'nothing' : `${device.measurements} shards`,
    ]),
  );
  output.line();
  output.table(columns, frontierRows(report), 2);
  if (frontier.length > 0 || wholes.length > 0) {
    output.line(`± is one standard deviation; ~ is estimated, the others are measured. Best first for ${goal}.`);
  }
  output.line();
  if (explain) {
    for (const sentence of report.explanation) output.line(sentence);
    output.line();
  }
  for (const note of report.notes) output.line(`note: ${note}`);
  if (choice === undefined) output.line(output.style('yellow', `no plan: ${report.reason}`));
  else output.line(output.style('green', `choice: ${describe(choice)}`));
  if (svg !== undefined && choice !== undefined) output.line(`picture written to ${svg}`);
  if (out !== undefined && choice !== undefined)
    output.line(`written to ${out}; intarsia deploy -f ${out} makes it so`);
}

const columns = ['', 'plan', 'batch', 'latency', 'requests/s', 'memory', '$/1,000', 'J/request'];

/** The frontier, then the whole model on each device where it is not among it. */
function frontierRows({ choice, frontier, wholes }: PlanReport): (string | number)[][] {
  const shown = new Set<string>();
  const keyOf = (row: PlanRow): string =>
    JSON.stringify([row.strategy, row.batch, row.stages.map(({ devices, threads, to }) => [devices, threads, to])]);
  const chosen = choice === undefined ? '' : keyOf(choice);
  const rowOf = (row: PlanRow): (string | number)[] => {
    shown.add(keyOf(row));
    return [
      keyOf(row) === chosen ? '>' : '',
      row.stages.map((stage) => stageWords(row, stage)).join('\n'),
      row.runsPerRequest > 1 ? `${row.batch} × ${row.runsPerRequest}` : row.batch,
      figure(row.latencyMs, formatMs),
      figure(row.requestsPerSecond, short),
      row.stages.map(({ memoryBytes }) => formatBytes(memoryBytes)).join('\n'),
      row.usdPer1000.value === 0
        ? ''
        : `${row.usdPer1000.source === 'measured' ? '' : '~'}${short(row.usdPer1000.value)}`,
      row.joulesPerRequest.value === 0 ? '' : `~${short(row.joulesPerRequest.value)}`,
    ];
  };
  const rows = frontier.map(rowOf);
  if (choice !== undefined && !shown.has(chosen)) rows.unshift(rowOf(choice));
  for (const whole of wholes) if (!shown.has(keyOf(whole))) rows.push(rowOf(whole));
  return rows;
}

function stageWords(
  { strategy }: PlanRow,
  { devices, emulated, threads, from, to, share, sendsBytes }: PlanStage,
): string {
  const names = devices.length > 2 ? `${devices[0] ?? ''} and ${devices.length - 1} like it` : devices.join('+');
  const device = emulated && !names.includes('emulated') ? `${names} (emulated)` : names;
  if (strategy === 'whole') return `whole on ${device}${threads > 1 ? `, ${threads} threads` : ''}`;
  if (strategy === 'data') return `${Math.round(share * 100)} % of the items: ${device}`;
  return `nodes ${from}-${to - 1}: ${device}${sendsBytes > 0 ? `, sends ${formatBytes(sendsBytes)}` : ''}`;
}

function describe(row: PlanRow): string {
  const words = {
    whole: 'do not split',
    pipeline: `split in ${row.stages.length}`,
    data: 'share whole models',
  } as const;
  const cuts = row.cuts.length > 0 ? ` at ${row.cuts.join(', ')}` : '';
  const stages = row.stages.map(({ devices }) => devices.join('+')).join(row.strategy === 'data' ? ' beside ' : ' → ');
  const figures = `${figure(row.latencyMs, formatMs)}, ${figure(row.requestsPerSecond, short)} requests/s`;
  return `${words[row.strategy]}${cuts}: ${stages}; ${figures}`;
}

function figure({ value, plusMinus, source }: PlanNumber, format: (value: number) => string): string {
  return `${source === 'measured' ? '' : '~'}${format(value)} ±${Math.round(plusMinus * 100)}%`;
}

function short(value: number): string {
  return value >= 1000 ? Math.round(value).toLocaleString('en-US') : String(Number(value.toPrecision(3)));
}

function write(flag: string, path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw intarsiaError('INVALID_ARGUMENT', `${flag} ${path} cannot be written: ${messageOf(error)}`, { path }, error);
  }
}

function list(text: string): readonly string[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
}

function tierList(text: string): readonly string[] {
  const names = list(text);
  const unknown = names.find((name) => !tierNames.some((tier) => tier === name));
  if (unknown !== undefined) throw new InvalidArgumentError(`'${unknown}' is not one of ${tierNames.join(', ')}.`);
  return names;
}

function providerList(text: string): readonly string[] {
  const names = list(text);
  const unknown = names.find((name) => !executionProviders.some((provider) => provider === name));
  if (unknown !== undefined)
    throw new InvalidArgumentError(`'${unknown}' is not one of ${executionProviders.join(', ')}.`);
  return names;
}

const units: Readonly<Record<string, number>> = { '': 1, B: 1, KiB, MiB, GiB };

function memoryLimits(text: string): ReadonlyMap<string, number> {
  return new Map(
    list(text).map((part) => {
      const match = /^([^=]+)=(\d+(?:\.\d+)?)(B|KiB|MiB|GiB)?$/.exec(part);
      if (match === null) throw new InvalidArgumentError(`'${part}' is not like cpu:0=64MiB.`);
      const [, device = '', amount = '0', unit = ''] = match;
      return [device, Math.floor(Number(amount) * (units[unit] ?? 1))] as const;
    }),
  );
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0) || !Number.isFinite(value)) throw new InvalidArgumentError('It must be a number above 0.');
  return value;
}
