/** Commands of grid operators: what is desired (`deploy`, `undeploy`), what hosts may do (`cordon`, `drain`), what happened (`events`). */
import { Option, type Command } from 'commander';
import type { GridEvent } from '#client/index.js';
import { addConnectionFlags, connectBy, countBetween, wholeNumber, type ConnectionFlags } from '../connection-flags.js';
import { deployOne, readDeployments, type DeployedOne } from '../deploy-file.js';
import { exitCodes } from '../failure-line.js';
import type { Program } from '../program.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';

export function addGridCommands(parent: Command, context: CommandContext): void {
  addDeploy(parent, context);
  addUndeploy(parent, context);
  addOrder(parent, context, 'cordon', 'place nothing new on a host; what it serves stays');
  addOrder(parent, context, 'uncordon', 'take a cordon or a drain back');
  addOrder(parent, context, 'drain', 'move everything away from a host');
  addEvents(parent, context);
}

interface DeployFlags extends ConnectionFlags {
  readonly file: string;
  readonly dryRun?: boolean;
}

function addDeploy(parent: Command, context: CommandContext): void {
  const command = addConnectionFlags(
    parent
      .command('deploy')
      .description('make deployments desired: the grid starts, moves and stops replicas until it is so')
      .requiredOption('-f, --file <file>', 'YAML or JSON: one deployment, or a list of them; docs/deployments.md')
      .option('--dry-run', 'print what would change, and change nothing')
      .addHelpText('after', examples('intarsia deploy -f digits.yaml --dry-run', 'intarsia deploy -f digits.yaml')),
  );
  command.action((flags: DeployFlags) => act(context, command, (output) => deploy(flags, context, output)));
}

async function deploy(flags: DeployFlags, { program }: CommandContext, output: Output): Promise<number> {
  // Mistakes are told with the file's name and the path in it, before anything is asked of the grid.
  const wanted = await readDeployments(flags.file, program);
  const client = connectBy(flags, program);
  const outcomes: DeployedOne[] = [];
  try {
    for (const deployment of wanted) {
      outcomes.push(await deployOne(deployment, { client, output, dryRun: flags.dryRun === true }));
    }
  } finally {
    client.close();
  }
  output.result(outcomes);
  for (const { name, differences, refusals, applied, placements, gate } of outcomes) {
    for (const difference of differences) output.line(difference);
    for (const placement of placements) output.line(`    ${placement}`);
    if (gate !== '') output.line(`    gate: ${gate}`);
    const isRefused = refusals.length > 0;
    if (isRefused) {
      output.line(
        `${output.style('yellow', flags.dryRun === true ? 'would be refused' : 'refused')}: ${refusals.join('; ')}`,
      );
    } else if (flags.dryRun === true) output.line(`${output.style('bold', name)} would be applied`);
    else if (applied)
      output.line(`${output.style('bold', name)} is applied: see \`intarsia status\` for how far it is`);
  }
  return outcomes.every(({ refusals }) => refusals.length === 0) ? exitCodes.ok : exitCodes.failed;
}

function addUndeploy(parent: Command, context: CommandContext): void {
  const command = addConnectionFlags(
    parent
      .command('undeploy')
      .description('take a deployment back: its replicas finish what they have and are unloaded')
      .argument('<name>', 'name of the deployment')
      .addHelpText('after', examples('intarsia undeploy digits')),
  );
  command.action((name: string, flags: ConnectionFlags) =>
    act(context, command, async (output) => {
      const client = connectBy(flags, context.program);
      try {
        const { replicas } = await client.grid.undeploy(name);
        output.result({ name, replicas });
        output.line(`${name}: ${replicas} replicas are being unloaded`);
      } finally {
        client.close();
      }
      return undefined;
    }),
  );
}

interface OrderFlags extends ConnectionFlags {
  readonly reason?: string;
  readonly withinMs?: number;
}

function addOrder(parent: Command, context: CommandContext, order: 'cordon' | 'uncordon' | 'drain', about: string) {
  const command = addConnectionFlags(
    parent
      .command(order)
      .description(about)
      .argument('<host>', 'name of the host')
      .option('--reason <text>', 'why, for those who look later'),
  );
  if (order === 'drain') {
    command.addOption(
      new Option(
        '--within-ms <ms>',
        'time it may take, 1 to 86400000, such as the notice of a spot host; without it as long as it takes',
      ).argParser(countBetween(1, 86_400_000)),
    );
  }
  command.addHelpText('after', examples(`intarsia ${order} host-2`));
  command.action((host: string, flags: OrderFlags) =>
    act(context, command, async (output) => {
      const client = connectBy(flags, context.program);
      try {
        const { reason = '', withinMs = 0 } = flags;
        const now = await client.grid.order(host, order, { reason, withinMs });
        output.result({ host, ...now });
        const words = [now.cordoned ? 'cordoned' : '', now.draining ? 'draining' : ''].filter((word) => word !== '');
        output.line(`${host}: ${words.length === 0 ? 'takes new replicas' : words.join(', ')}`);
      } finally {
        client.close();
      }
      return undefined;
    }),
  );
}

interface EventsFlags extends ConnectionFlags {
  readonly follow?: boolean;
  readonly after: number;
}

function addEvents(parent: Command, context: CommandContext): void {
  const command = addConnectionFlags(
    parent
      .command('events')
      .description('what happened in the grid, oldest first')
      .option('--follow', 'go on with what happens, until interrupted')
      .addOption(new Option('--after <n>', 'only events after this number').argParser(wholeNumber).default(0))
      .addHelpText('after', examples('intarsia events', 'intarsia events --follow --json')),
  );
  command.action((flags: EventsFlags) => act(context, command, (output) => events(flags, context.program, output)));
}

async function events(flags: EventsFlags, program: Program, output: Output): Promise<undefined> {
  const client = connectBy(flags, program);
  const ending = new AbortController();
  const follow = flags.follow === true;
  if (follow) void program.untilInterrupted().then(() => ending.abort());
  const seen: GridEvent[] = [];
  try {
    await client.grid.events(
      { after: flags.after, follow },
      (event) => {
        if (follow) output.resultLine(event);
        else seen.push(event);
        const { number, wallMs, level, subject, text } = event;
        const when = new Date(wallMs).toISOString();
        const line = `${String(number).padStart(5)}  ${when}  ${subject}: ${text}`;
        output.line(level === 'warn' ? output.style('yellow', line) : line);
      },
      { signal: ending.signal },
    );
    if (!follow) output.result(seen);
    if (!follow && seen.length === 0) output.line('nothing has happened');
  } finally {
    client.close();
  }
  return undefined;
}
