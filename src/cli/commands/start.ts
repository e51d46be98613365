/** `intarsia start`: the first command of a newcomer. Example models, a check through the real port, then it serves. */
import type { Command } from 'commander';
import type { Program, RunningHost, SelfCheck } from '../program.js';
import { endpointArgument } from '../connection-flags.js';
import { exitCodes } from '../failure-line.js';
import { addHostFlags, readHostOptions } from '../host-flags.js';
import { startProgress } from '../progress.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';
import { hostFacts, printCheck, printHost } from './host-report.js';

export function addStartCommand(parent: Command, context: CommandContext): void {
  const command = addHostFlags(
    parent
      .command('start')
      .description('serve the example models, check two execution providers against each other, and keep serving')
      .option('--once', 'stop after the check; the exit code is 0 when it passed')
      .addHelpText('after', examples('intarsia start', 'intarsia start --once', 'intarsia start --once --json')),
    { 'log-level': 'warn' },
  );
  command.action((flags: { once?: boolean }) =>
    act(context, command, (output) => start(command, context, output, flags.once === true)),
  );
}

async function start(command: Command, context: CommandContext, output: Output, once: boolean): Promise<number> {
  const { program, terminal } = context;
  const given = await readHostOptions(command, program, terminal.env);
  const telemetry = { logLevel: 'warn' as const, ...given.telemetry };
  output.line(`${output.style('bold', 'Intarsia')} ${program.versions.intarsia}`);
  output.line();
  const progress = startProgress(output, 'starting');
  let host: RunningHost;
  try {
    progress.update(0.1, 'finding devices, loading models');
    const { path, placements } = program.example;
    host = await program.startHost({ repositories: [path], placements, ...given, telemetry });
  } finally {
    progress.stop();
  }
  try {
    printHost(host, output);
    const check = await host.selfCheck();
    printCheck(check, output);
    const tryIt = tryItCommand(program, host);
    output.result({ ...hostFacts(host), check, tryIt });
    output.line();
    output.line(`${output.style('bold', 'Try it')} (in another terminal, in this folder)`);
    output.line(`  ${tryIt}`);
    if (once) return exitCodeOf(check);
    output.line();
    output.line(output.style('dim', 'Serving. Press Ctrl-C to stop.'));
    await program.untilInterrupted();
    output.note('stopping: finishing what is in flight …');
    return exitCodeOf(check);
  } finally {
    await host.stop();
  }
}

function exitCodeOf(check: SelfCheck): number {
  return check.passed ? exitCodes.ok : exitCodes.failed;
}

function tryItCommand({ example }: Program, host: RunningHost): string {
  return `npx intarsia infer ${example.model} --input ${example.input} --classes 3${endpointArgument(host.endpoints.grpc)}`;
}
