/** `intarsia store`: the embedded store by itself, for grids without etcd. */
import type { Command } from 'commander';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';

interface StoreFlags {
  readonly listen: string;
  readonly dataDir: string;
  readonly certificate?: string;
  readonly key?: string;
  readonly authority?: string;
  readonly tokenFile?: string;
  readonly allowPlaintext?: boolean;
}

export function addStoreCommand(parent: Command, context: CommandContext): void {
  const command = parent
    .command('store')
    .description("run the embedded store: one node that speaks enough of etcd's API for a grid and for etcdctl")
    .option('--listen <address:port>', 'where to listen; port 0 for any', '127.0.0.1:8004')
    .requiredOption('--data-dir <dir>', 'folder of its files; what was acknowledged is there after a crash')
    .option('--certificate <file>', "PEM file of the store's certificate")
    .option('--key <file>', 'PEM file of its key')
    .option('--authority <file>', "PEM file of the authority that signed the clients' certificates")
    .option('--token-file <file>', 'file with the secret that hosts must know')
    .option('--allow-plaintext', 'listen without TLS beyond loopback')
    .addHelpText(
      'after',
      examples('intarsia store --data-dir store', 'etcdctl --endpoints 127.0.0.1:8004 get "" --prefix'),
    );
  command.action((flags: StoreFlags) => act(context, command, (output) => store(flags, context, output)));
}

async function store(flags: StoreFlags, { program }: CommandContext, output: Output): Promise<undefined> {
  const running = await program.startStore({
    listen: flags.listen,
    dataPath: flags.dataDir,
    certificatePath: flags.certificate ?? '',
    keyPath: flags.key ?? '',
    authorityPath: flags.authority ?? '',
    tokenPath: flags.tokenFile ?? '',
    allowPlaintext: flags.allowPlaintext === true,
  });
  try {
    output.result({ address: running.address });
    output.line(`store at ${running.address}, files in ${flags.dataDir}`);
    output.line(output.style('dim', 'Serving. Press Ctrl-C to stop.'));
    await Promise.race([program.untilInterrupted(), running.failed]);
  } finally {
    await running.stop();
  }
  return undefined;
}
