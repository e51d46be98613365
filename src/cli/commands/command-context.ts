/** What every command is given, and how one is run: options in, exit code out, failures in one line. */
import type { Command } from 'commander';
import { Output, type Terminal } from '../terminal.js';
import { exitCodes, reportFailure } from '../failure-line.js';
import type { Program } from '../program.js';

export interface CommandContext {
  readonly program: Program;
  readonly terminal: Terminal;
  /** Set by the command that ran. */
  exitCode: number;
}

/** Runs a command's work. It gives back an exit code, or nothing for 0. */
export function act(
  context: CommandContext,
  command: Command,
  work: (output: Output) => Promise<number | undefined> | number | undefined,
): Promise<void> {
  const { json = false, verbose = false } = command.optsWithGlobals<{ json?: boolean; verbose?: boolean }>();
  const output = new Output(context.terminal, { json, verbose });
  return (async () => {
    try {
      context.exitCode = (await work(output)) ?? exitCodes.ok;
    } catch (error) {
      context.exitCode = reportFailure(error, output);
    }
  })();
}

/** Examples below a command's help. */
export function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  $ ${line}`).join('\n')}\n`;
}
