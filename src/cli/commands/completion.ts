/** `intarsia completion`: a script that teaches a shell the commands and flags. */
import { Argument, type Command } from 'commander';
import { completionScript, shells, type Shell } from '../completion.js';
import { act, examples, type CommandContext } from './command-context.js';

export function addCompletionCommand(parent: Command, context: CommandContext): void {
  const command = parent
    .command('completion')
    .description('print a completion script')
    .addArgument(new Argument('<shell>', 'shell that will read it').choices([...shells]))
    .addHelpText(
      'after',
      examples(
        'source <(intarsia completion bash)',
        'intarsia completion zsh > "${fpath[1]}/_intarsia"',
        'intarsia completion fish > ~/.config/fish/completions/intarsia.fish',
      ),
    );
  command.action((shell: Shell) =>
    act(context, command, () => {
      context.terminal.out(completionScript(shell, parent));
      return undefined;
    }),
  );
}
