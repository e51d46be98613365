/** `intarsia up`: a grid of several hosts on this machine, each a process of its own, with nothing else installed. */
import { Option, type Command } from 'commander';
import { countBetween } from '../connection-flags.js';
import { startProgress } from '../progress.js';
import type { LocalGrid } from '../program.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';

interface UpFlags {
  readonly hosts: number;
  readonly repository?: readonly string[];
  readonly basePort: number;
  readonly dataDir?: string;
  readonly restart: boolean;
  readonly logLevel: string;
}

const hostsMax = 64;
/** Ports between one host's and the next one's: REST, gRPC, metrics, links, and with the first host the store. */
const portStep = 10;
const basePortMax = 65_535 - hostsMax * portStep;

export function addUpCommand(parent: Command, context: CommandContext): void {
  const command = parent
    .command('up')
    .description('start a grid on this machine: a store and several hosts, each a process that is kept running')
    .addOption(
      new Option('--hosts <n>', `hosts to start, 1 to ${hostsMax}`).argParser(countBetween(1, hostsMax)).default(3),
    )
    .addOption(
      new Option('--repository <dir>', 'folder of models; repeat it (default: the example models)').argParser(
        (text: string, before: readonly string[] | undefined) => [...(before ?? []), text],
      ),
    )
    .addOption(
      new Option(
        '--base-port <port>',
        `REST port of the first host, 1 to ${basePortMax}; gRPC is one higher, the next host ${portStep} higher`,
      )
        .argParser(countBetween(1, basePortMax))
        .default(8000),
    )
    .addOption(new Option('--data-dir <dir>', 'folder of what outlives a restart (default: a temporary one)'))
    .option('--no-restart', 'leave a process that ends by itself ended')
    .addOption(
      new Option('--log-level <level>', 'least level that hosts log')
        .choices(['debug', 'info', 'warn', 'error'])
        .default('warn'),
    )
    .argument('[flags...]', 'options of `intarsia serve` for every host, after --')
    .addHelpText(
      'after',
      examples('intarsia up --hosts 3', 'intarsia up --hosts 5 --repository models -- --cpu-threads 1'),
    );
  command.action((hostArgs: readonly string[], flags: UpFlags) =>
    act(context, command, (output) => up(flags, hostArgs, context, output)),
  );
}

async function up(
  flags: UpFlags,
  hostArgs: readonly string[],
  { program }: CommandContext,
  output: Output,
): Promise<undefined> {
  const progress = startProgress(output, 'starting');
  const { path, placements } = program.example;
  let ready = 0;
  let grid: LocalGrid;
  try {
    grid = await program.startLocalGrid({
      hosts: flags.hosts,
      repositories: flags.repository ?? [path],
      placements: flags.repository === undefined ? placements : [],
      basePort: flags.basePort,
      portStep,
      dataPath: flags.dataDir ?? '',
      restarts: flags.restart,
      logLevel: flags.logLevel,
      logFormat: output.terminal.errIsTty ? 'pretty' : 'json',
      hostArgs,
      onLine: (name, line) => output.note(`${output.style('dim', name)} ${line}`),
      onReady: (name) => {
        ready += 1;
        if (ready <= flags.hosts) progress.update(ready / (flags.hosts + 1), `${name} serves`);
        else output.note(`${name} serves again`);
      },
      onEnd: (name, how, again) => {
        const next = again === undefined ? 'it stays ended' : `starting it again in ${again} ms`;
        output.note(`${output.style('yellow', name)} ended (${how}); ${next}`);
      },
    });
  } finally {
    progress.stop();
  }
  try {
    output.result({
      store: { address: grid.store.address, pid: grid.store.pid() },
      hosts: grid.hosts.map(({ pid, ...host }) => ({ ...host, pid: pid() })),
    });
    output.table(
      ['process', 'gRPC (Triton, KServe)', 'REST v2', 'pid'],
      [
        ['store', grid.store.address, '', grid.store.pid() ?? ''],
        ...grid.hosts.map(({ name, grpc, http, pid }) => [name, grpc, http, pid() ?? '']),
      ],
    );
    output.line();
    const [first] = grid.hosts;
    if (first !== undefined) output.line(`Look at it: npx intarsia status --endpoint ${first.grpc}`);
    output.line(output.style('dim', 'Serving. Press Ctrl-C to stop.'));
    await program.untilInterrupted();
    output.note('stopping: hosts finish what is in flight …');
  } finally {
    await grid.stop();
  }
  return undefined;
}
