/** `intarsia policy`: which policy dispatches a grid's requests; promote one in steps, look how it does, take it back. */
import { readFile } from 'node:fs/promises';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { intarsiaError } from '#core/errors.js';
import { artifactBytesMax } from '#core/scheduling/policy-records.js';
import { pointerText } from '#core/scheduling/promotion.js';
import { formatBytes } from '#core/units.js';
import type { PolicyBook, PolicyResult } from '#client/index.js';
import { addConnectionFlags, connectBy, wholeNumber, type ConnectionFlags } from '../connection-flags.js';
import { exitCodes } from '../failure-line.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';

interface StepFlags extends ConnectionFlags {
  readonly batching?: string;
  readonly evaluation?: string;
  readonly calibration?: string;
  readonly minDecisions?: number;
  readonly minAnswers?: number;
  readonly minMinutes?: number;
  readonly reason?: string;
  readonly force?: boolean;
  readonly dryRun?: boolean;
  readonly share?: number;
  readonly all?: boolean;
  readonly sliceSeconds?: number;
  readonly seed?: number;
}

export function addPolicyCommands(parent: Command, context: CommandContext): void {
  const policy = parent
    .command('policy')
    .description('which policy dispatches the requests of a grid: promote one, take it back');
  addList(policy, context);
  addShow(policy, context);
  addShadow(policy, context);
  addPromote(policy, context);
  addRollback(policy, context);
}

function addList(parent: Command, context: CommandContext): void {
  const command = addConnectionFlags(
    parent
      .command('list')
      .description('versions that are stored, and what decides')
      .addHelpText('after', examples('intarsia policy list')),
  );
  command.action((flags: ConnectionFlags) =>
    act(context, command, async (output) => {
      const book = await withClient(flags, context, (client) => client.grid.policies());
      output.result(book);
      printPointer(book, output);
      output.line();
      if (book.versions.length === 0) {
        output.line('no version is stored: intarsia policy shadow FILE');
        return undefined;
      }
      output.table(
        ['version', 'stands', 'size', 'batches', 'falls back to', 'evaluated', 'stored'],
        book.versions.map(({ id, bytes, batchingBytes, fallback, evaluated, wallMs }) => [
          id,
          standingOf(id, book),
          formatBytes(bytes),
          batchingBytes === 0 ? '' : formatBytes(batchingBytes),
          fallback,
          evaluated ? 'yes' : 'no',
          new Date(wallMs).toISOString(),
        ]),
      );
      return undefined;
    }),
  );
}

function addShow(parent: Command, context: CommandContext): void {
  const command = addConnectionFlags(
    parent
      .command('show')
      .description('what decides, what the gates said, and what gateways see of the policy on trial')
      .argument('[version]', 'notes of a version')
      .addHelpText('after', examples('intarsia policy show', 'intarsia policy show --json')),
  );
  command.action((id: string | undefined, flags: ConnectionFlags) =>
    act(context, command, async (output) => {
      const book = await withClient(flags, context, (client) => client.grid.policies());
      if (id === undefined) {
        output.result(book);
        printPointer(book, output);
        printGates(book.pointer?.gates ?? [], output);
        printSightings(book, output);
        return undefined;
      }
      const version = book.versions.find((each) => each.id === id || each.name === id);
      if (version === undefined)
        throw intarsiaError('NOT_FOUND', `there is no version ${id}: see intarsia policy list`);
      output.result(version);
      output.line(`${output.style('bold', version.id)}: ${standingOf(version.id, book) || 'stored'}`);
      output.line(`sha256 ${version.sha256}, ${formatBytes(version.bytes)}, falls back to ${version.fallback}`);
      if (version.batchingSha256 !== '') {
        output.line(`forms batches, too: sha256 ${version.batchingSha256}, ${formatBytes(version.batchingBytes)}`);
      }
      for (const [name, value] of Object.entries(version.notes)) output.line(`${name}: ${value}`);
      return undefined;
    }),
  );
}

function addShadow(parent: Command, context: CommandContext): void {
  const command = addConnectionFlags(
    addReports(
      parent
        .command('shadow')
        .description('ask a policy beside the one that decides, and count where it would choose otherwise')
        .argument('<policy>', 'a policy file, or a stored version')
        .option('--reason <text>', 'why, for those who look later')
        .option('--dry-run', 'say what would happen, and change nothing'),
    ),
  ).addHelpText('after', examples('intarsia policy shadow run/policy.onnx --evaluation evaluation.json'));
  command.action((policy: string, flags: StepFlags) =>
    act(context, command, (output) => order('shadow', policy, flags, context, output)),
  );
}

function addPromote(parent: Command, context: CommandContext): void {
  const command = addConnectionFlags(
    addReports(
      parent
        .command('promote')
        .description('take a policy the next step: shadow, 1, 10, 50 percent of the time slices, all requests')
        .argument('[policy]', 'a policy file, a stored version, or a rule; default: the one on trial')
        .addOption(
          new Option(
            '--share <percent>',
            'share of the time slices that it decides in, 1 to 99; default: the next of 1, 10 and 50',
          ).argParser(percentage),
        )
        .addOption(new Option('--all', 'all requests').conflicts('share'))
        .addOption(
          new Option(
            '--slice-seconds <s>',
            'length of a time slice, 10 to 3600; default: as before, at first 60',
          ).argParser(wholeNumber),
        )
        .addOption(
          new Option(
            '--seed <number>',
            'of the choice of slices, 1 to 4294967295; default: as before, at first 1',
          ).argParser(wholeNumber),
        )
        .addOption(
          new Option(
            '--min-minutes <n>',
            'minutes it must have had its share before it gets a larger one, at least 1; default: 60',
          ).argParser(wholeNumber),
        )
        .option('--reason <text>', 'why, for those who look later')
        .option('--force', 'pass over gates that refuse; needs --reason, and is told as an event')
        .option('--dry-run', 'say what would happen, and change nothing'),
    ),
  ).addHelpText(
    'after',
    examples(
      'intarsia policy promote',
      'intarsia policy promote run/policy.onnx --batching run/batching.onnx --all --force --reason drill',
      'intarsia policy promote dispatch-7 --share 10 --slice-seconds 300',
      'intarsia policy promote cheapest-feasible:0.6',
    ),
  );
  command.action((policy: string | undefined, flags: StepFlags) => {
    const step = flags.all === true ? 'all' : flags.share !== undefined ? 'share' : 'next';
    return act(context, command, (output) => order(step, policy ?? '', flags, context, output));
  });
}

function addRollback(parent: Command, context: CommandContext): void {
  const command = addConnectionFlags(
    parent
      .command('rollback')
      .description('end a trial; or, where a policy decides, go back to what decided before')
      .option('--reason <text>', 'why, for those who look later')
      .option('--dry-run', 'say what would happen, and change nothing')
      .addHelpText('after', examples('intarsia policy rollback --reason "late answers since noon"')),
  );
  command.action((flags: StepFlags) =>
    act(context, command, (output) => order('rollback', '', flags, context, output)),
  );
}

function addReports(command: Command): Command {
  return command
    .option('--batching <file>', 'with a policy file: the file that forms batches, promoted and taken back with it')
    .option('--evaluation <file>', 'report of intarsia evaluate --stress --json about this file')
    .option('--calibration <file>', 'report of intarsia evaluate --log --calibrate --json')
    .addOption(
      new Option(
        '--min-decisions <n>',
        'decisions it must have been asked about, at least 1; default: 50000',
      ).argParser(wholeNumber),
    )
    .addOption(
      new Option(
        '--min-answers <n>',
        'answers it must have given before it gets all requests, at least 1; default: 20000',
      ).argParser(wholeNumber),
    );
}

async function order(
  step: string,
  policy: string,
  flags: StepFlags,
  context: CommandContext,
  output: Output,
): Promise<number> {
  const { evaluation = '', calibration = '', reason = '', batching: second = '' } = flags;
  const artifact = policy.endsWith('.onnx') ? await readArtifact(policy) : new Uint8Array();
  const batching = second === '' ? new Uint8Array() : await readArtifact(second);
  const [evaluationJson, calibrationJson] = await Promise.all([readReport(evaluation), readReport(calibration)]);
  const outcome = await withClient(flags, context, async (client) => {
    // What somebody else does between here and there is not undone: the order is refused then.
    const { revision } = await client.grid.policies();
    return client.grid.orderPolicy({
      step,
      policy: artifact.byteLength > 0 ? '' : policy,
      artifact,
      batching,
      evaluationJson,
      calibrationJson,
      reason,
      expectedRevision: revision,
      percent: flags.share ?? 0,
      sliceSeconds: flags.sliceSeconds ?? 0,
      seed: flags.seed ?? 0,
      decisionsMin: flags.minDecisions ?? 0,
      answersMin: flags.minAnswers ?? 0,
      shareMinutesMin: flags.minMinutes ?? 0,
      force: flags.force === true,
      dryRun: flags.dryRun === true,
    });
  });
  output.result(outcome);
  return printOutcome(outcome, flags.dryRun === true, output);
}

function printOutcome({ applied, gates, text }: PolicyResult, isDryRun: boolean, output: Output): number {
  printGates(gates, output);
  const isRefused = !applied && gates.some(({ passed }) => !passed);
  if (applied) output.line(text);
  else if (isDryRun) output.line(`${isRefused ? 'would be refused' : 'would be applied'}: ${text}`);
  else output.line(`${output.style('yellow', 'refused')}: not every gate is passed, nothing is changed`);
  return isRefused && !isDryRun ? exitCodes.failed : exitCodes.ok;
}

function printPointer({ pointer }: PolicyBook, output: Output): void {
  if (pointer === undefined) return;
  const { previous, reason, forced, host, wallMs } = pointer;
  output.line(output.style('bold', pointerText(pointer)));
  if (previous.length > 0) output.line(`before: ${previous.join(', ')}`);
  if (host !== '') output.line(`since ${new Date(wallMs).toISOString()}, through host ${host}`);
  if (reason !== '') output.line(`reason: ${reason}`);
  if (forced !== '') output.line(output.style('yellow', `gates were passed over: ${forced}`));
}

function printGates(gates: PolicyResult['gates'], output: Output): void {
  if (gates.length === 0) return;
  output.table(
    ['gate', '', 'found'],
    gates.map(({ gate, passed, text }) => [gate, passed ? 'passed' : output.style('yellow', 'refused'), text]),
  );
}

function printSightings({ sightings, pointer }: PolicyBook, output: Output): void {
  if (sightings.length === 0 || pointer === undefined) return;
  output.line();
  output.table(
    ['gateway', 'asked', 'left to its rule', 'p99', 'answers', 'late', 'base answers', 'late', 'refused'],
    sightings.map((each) => [
      each.host,
      each.decisions,
      each.fallbacks,
      each.latencyUsP99 === 0 ? '' : `${each.latencyUsP99.toFixed(0)} µs`,
      each.answers,
      each.late,
      each.baseAnswers,
      each.baseLate,
      each.refused,
    ]),
    1,
  );
  const groups = new Map<
    string,
    { readonly model: string; readonly class: string; decisions: number; otherwise: number }
  >();
  for (const { model, class: sloClass, decisions, disagreements } of sightings.flatMap(({ groups: own }) => own)) {
    const key = `${model} ${sloClass}`;
    const group = groups.get(key) ?? { model, class: sloClass, decisions: 0, otherwise: 0 };
    groups.set(key, group);
    group.decisions += decisions;
    group.otherwise += disagreements;
  }
  if (groups.size === 0) return;
  output.line();
  output.table(
    ['model', 'class', 'asked', 'would choose otherwise'],
    [...groups.values()].map(({ model, class: sloClass, decisions, otherwise }) => [
      model,
      sloClass,
      decisions,
      `${((100 * otherwise) / decisions).toFixed(1)} %`,
    ]),
    2,
  );
}

function standingOf(id: string, { pointer }: PolicyBook): string {
  if (pointer === undefined) return '';
  if (id === pointer.policy)
    return pointer.mode === 'all' ? 'decides' : pointer.mode === 'share' ? 'on trial' : 'shadow';
  if (id === pointer.base) return 'decides';
  return pointer.previous.includes(id) ? 'before' : '';
}

async function withClient<Result>(
  flags: ConnectionFlags,
  { program }: CommandContext,
  work: (client: ReturnType<typeof connectBy>) => Promise<Result>,
): Promise<Result> {
  const client = connectBy(flags, program);
  try {
    return await work(client);
  } finally {
    client.close();
  }
}

async function readArtifact(path: string): Promise<Uint8Array> {
  const bytes = await readOrSay(path);
  if (bytes.byteLength === 0 || bytes.byteLength > artifactBytesMax) {
    const most = formatBytes(artifactBytesMax);
    throw intarsiaError('INVALID_ARGUMENT', `${path} has ${bytes.byteLength} bytes; a policy has 1 byte to ${most}`);
  }
  return bytes;
}

async function readReport(path: string): Promise<string> {
  return path === '' ? '' : new TextDecoder().decode(await readOrSay(path));
}

async function readOrSay(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    throw intarsiaError('NOT_FOUND', `cannot read ${path}`, { path }, error);
  }
}

function percentage(text: string): number {
  const value = wholeNumber(text);
  if (value < 1 || value > 99) throw new InvalidArgumentError('a whole number from 1 to 99; all requests: --all');
  return value;
}
