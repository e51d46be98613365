/** `intarsia devices`: what this machine has, what of it is usable, and why the rest is not. */
import type { Command } from 'commander';
import { deviceRows, unusableRows } from '#core/device-discovery.js';
import { act, examples, type CommandContext } from './command-context.js';

export function addDevicesCommand(parent: Command, context: CommandContext): void {
  const command = parent
    .command('devices')
    .description('show the devices of this machine, and why others cannot be used')
    .option('--profiles <file>', 'YAML file with more hardware profiles and prices')
    .addHelpText('after', examples('intarsia devices', "intarsia devices --json | jq '.devices[].id'"));
  command.action((flags: { profiles?: string }) =>
    act(context, command, async (output) => {
      const report = await context.program.discoverDevices({ profilesPath: flags.profiles ?? '' });
      output.result(report);
      const [head = [], ...rows] = deviceRows(report);
      output.table(head, rows);
      if (report.unusable.length > 0) {
        const [unusableHead = [], ...unusable] = unusableRows(report);
        output.line();
        output.table(unusableHead, unusable);
      }
      return undefined;
    }),
  );
}
