/** The command line's entry: binds the commands to the program, and ends the process with their exit code. */
import { runCommandLine } from '#cli/command-line.js';
import { createProgram } from './compose/program.js';

/** Runs a command line, without `node` and the script. */
export async function main(argv: readonly string[]): Promise<void> {
  // A reader that goes away, such as `head`, ends the program quietly.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    process.exit();
  });
  process.exitCode = await runCommandLine(argv, createProgram(), {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    outIsTty: process.stdout.isTTY,
    errIsTty: process.stderr.isTTY,
    env: process.env,
    progressStream: process.stderr,
  });
}
