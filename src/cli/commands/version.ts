/** `intarsia version`: the version of the product and of what it stands on. */
import type { Command } from 'commander';
import { act, type CommandContext } from './command-context.js';

export function addVersionCommand(parent: Command, context: CommandContext): void {
  const command = parent.command('version').description('show the version, and those of the engines');
  command.action(() =>
    act(context, command, (output) => {
      const { intarsia, parts } = context.program.versions;
      output.result({ intarsia, ...parts });
      output.table(['part', 'version'], [['intarsia', intarsia], ...Object.entries(parts)]);
      return undefined;
    }),
  );
}
