/** `intarsia status`: a host and its grid at a glance; with --watch again and again, as what happened since the last look. */
import { Option, type Command } from 'commander';
import { asIntarsiaError } from '#core/errors.js';
import type { GridStatus, InferenceClient, ModelStatistics, RepositoryModel, ServerMetadata } from '#client/index.js';
import {
  addConnectionFlags,
  connectBy,
  endpointsOf,
  countBetween,
  positiveNumber,
  type ConnectionFlags,
} from '../connection-flags.js';
import { exitCodes } from '../failure-line.js';
import type { Program } from '../program.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';
import { printGrid } from './grid-report.js';
import { statisticsHead, statisticsRow } from './models.js';

interface StatusFlags extends ConnectionFlags {
  readonly watch?: boolean;
  readonly intervalS: number;
  readonly looks?: number;
}

interface HostStatus {
  readonly endpoint: string;
  readonly live: boolean;
  readonly ready: boolean;
  readonly server: ServerMetadata;
  readonly models: readonly RepositoryModel[];
  readonly statistics: readonly ModelStatistics[];
  /** Absent for a host that serves alone, and for callers who may not see it. */
  readonly grid?: GridStatus;
}

export function addStatusCommand(parent: Command, context: CommandContext): void {
  const command = addConnectionFlags(
    parent
      .command('status')
      .description('show whether a host is ready, its grid, its models, and what they have done')
      .option('--watch', 'look again and again; figures are those since the last look')
      .addOption(new Option('--interval-s <s>', 'seconds between two looks').argParser(positiveNumber).default(2))
      .addOption(
        new Option('--looks <n>', 'end after this many looks, with --watch').argParser(countBetween(1, 1_000_000_000)),
      )
      .addHelpText(
        'after',
        examples('intarsia status', 'intarsia status --watch --interval-s 1', 'intarsia status --json'),
      ),
  );
  command.action((flags: StatusFlags) => act(context, command, (output) => status(flags, context, output)));
}

async function status(flags: StatusFlags, context: CommandContext, output: Output): Promise<number> {
  const { program } = context;
  const client = connectBy(flags, program);
  try {
    let seen = await lookAt(client, flags);
    if (flags.watch !== true) {
      output.result(seen);
      printStatus(seen, seen.statistics, output);
      return seen.ready ? exitCodes.ok : exitCodes.failed;
    }
    const interrupted = program.untilInterrupted();
    output.resultLine(seen);
    printStatus(seen, seen.statistics, output);
    for (let look = 1; look < (flags.looks ?? Infinity); look += 1) {
      const woken = await Promise.race([interrupted, pause(program, flags.intervalS * 1000)]);
      if (woken !== undefined) break;
      const now = await lookAt(client, flags);
      const since = now.statistics.map((stats) => difference(stats, seen.statistics));
      output.resultLine({ ...now, since });
      if (context.terminal.outIsTty && !output.json) context.terminal.out('\u001b[2J\u001b[H');
      printStatus(now, since, output);
      seen = now;
    }
    return seen.ready ? exitCodes.ok : exitCodes.failed;
  } finally {
    client.close();
  }
}

async function lookAt(client: InferenceClient, flags: StatusFlags): Promise<HostStatus> {
  const [live, ready, server, models, statistics, grid] = await Promise.all([
    client.live(),
    client.ready(),
    client.serverMetadata(),
    client.repositoryIndex(),
    client.modelStatistics(),
    gridOf(client),
  ]);
  const seen = { endpoint: endpointsOf(flags).join(', '), live, ready, server, models, statistics };
  return grid === undefined ? seen : { ...seen, grid };
}

async function gridOf(client: InferenceClient): Promise<GridStatus | undefined> {
  try {
    return await client.grid.status();
  } catch (error) {
    if (['UNIMPLEMENTED', 'PERMISSION_DENIED'].includes(asIntarsiaError(error).code)) return undefined;
    throw error;
  }
}

function printStatus(now: HostStatus, statistics: readonly ModelStatistics[], output: Output): void {
  const state = now.ready ? output.style('green', 'ready') : output.style('red', now.live ? 'not ready' : 'not live');
  output.line(`${output.style('bold', now.server.name)} ${now.server.version} at ${now.endpoint}: ${state}`);
  output.line();
  if (now.grid !== undefined) {
    printGrid(now.grid, output);
    output.line();
  }
  output.table(
    ['model', 'version', 'state', 'reason'],
    now.models.map(({ name, version, state: word, reason }) => [name, version, word, reason]),
  );
  if (statistics.length === 0) return;
  output.line();
  output.table(statisticsHead, statistics.map(statisticsRow), 2);
}

/** What happened between two looks; everything, for a model that is new or was loaded again. */
function difference(now: ModelStatistics, before: readonly ModelStatistics[]): ModelStatistics {
  const old = before.find(({ name, version }) => name === now.name && version === now.version);
  if (old === undefined || old.success.count > now.success.count) return now;
  const less = (part: 'success' | 'fail' | 'queue' | 'computeInput' | 'computeInfer' | 'computeOutput') => ({
    count: now[part].count - old[part].count,
    ns: now[part].ns - old[part].ns,
  });
  return {
    ...now,
    inferenceCount: now.inferenceCount - old.inferenceCount,
    executionCount: now.executionCount - old.executionCount,
    success: less('success'),
    fail: less('fail'),
    queue: less('queue'),
    computeInput: less('computeInput'),
    computeInfer: less('computeInfer'),
    computeOutput: less('computeOutput'),
    batches: [],
  };
}

function pause(program: Program, ms: number): Promise<undefined> {
  return new Promise((resolve) => program.clock.schedule(ms, () => resolve(undefined)));
}
