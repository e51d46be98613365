/** `intarsia certs init|issue`: an authority for a grid, and certificates for its hosts and clients. */
import type { Command } from 'commander';
import { countBetween } from '../connection-flags.js';
import type { CertificateMaker } from '../program.js';
import { act, examples, type CommandContext } from './command-context.js';

/** A hundred years. */
const daysMax = 36_500;

interface InitFlags {
  readonly dir: string;
  readonly name: string;
  readonly days: number;
}

interface IssueFlags {
  readonly dir: string;
  readonly days: number;
  readonly address?: readonly string[];
  readonly client?: boolean;
}

export function addCertsCommand(parent: Command, context: CommandContext, maker: CertificateMaker): void {
  const certs = parent.command('certs').description("a grid's own certificates: mutual TLS between its hosts");
  const init = certs
    .command('init')
    .description('make an authority; keep its key away from the hosts')
    .option('--dir <dir>', 'folder of the certificates', 'certs')
    .option('--name <name>', 'name of the authority', 'Intarsia grid authority')
    .option('--days <days>', `days it is valid, 1 to ${daysMax}`, countBetween(1, daysMax), 3650)
    .addHelpText('after', examples('intarsia certs init', 'intarsia certs issue host-1 --address 10.0.0.7'));
  init.action((flags: InitFlags) =>
    act(context, init, async (output) => {
      const { dir, name, days } = flags;
      const made = await maker.init({ folder: dir, name, days });
      output.result({ ...made });
      output.line(`Authority ${made.certificatePath}, valid to ${made.validTo}.`);
      output.line(`Its key, ${made.keyPath}, signs whoever may join: keep it off the hosts.`);
      return undefined;
    }),
  );
  const issue = certs
    .command('issue')
    .argument('<name>', 'host name (--name of the host), or name of a client')
    .description('make a certificate for a host, or for a client of the API')
    .option('--dir <dir>', 'folder of the certificates', 'certs')
    .option('--address <address>', 'DNS name or IP address it is reached at; repeat it', collect)
    .option('--client', 'for a client of the API: it cannot be used for a host')
    .option('--days <days>', `days it is valid, 1 to ${daysMax}`, countBetween(1, daysMax), 365)
    .addHelpText(
      'after',
      examples('intarsia certs issue host-1 --address 10.0.0.7', 'intarsia certs issue ci --client'),
    );
  issue.action((name: string, flags: IssueFlags) =>
    act(context, issue, async (output) => {
      const { dir, days, address = [], client = false } = flags;
      const kind = client ? 'client' : 'host';
      const made = await maker.issue({
        folder: dir,
        name,
        addresses: address,
        kind,
        days,
      });
      output.result({ ...made });
      output.line(`Certificate ${made.certificatePath}, key ${made.keyPath}, valid to ${made.validTo}.`);
      if (kind === 'host') {
        output.line(
          `intarsia serve --name ${name} --grid-certificate ${made.certificatePath} --grid-key ${made.keyPath} --grid-authority ${made.authorityPath}`,
        );
      }
      return undefined;
    }),
  );
}

function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}
