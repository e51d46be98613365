/** `intarsia serve`: serves a repository until it is told to stop. */
import type { Command } from 'commander';
import { intarsiaError } from '#core/errors.js';
import { readDeployments } from '../deploy-file.js';
import { addHostFlags, readHostOptions } from '../host-flags.js';
import { startProgress } from '../progress.js';
import type { RunningHost } from '../program.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';
import { hostFacts, printHost } from './host-report.js';
import { gridOfOne, serveDeployments } from './serve-deployments.js';

export function addServeCommand(parent: Command, context: CommandContext): void {
  const command = addHostFlags(
    parent
      .command('serve')
      .description("serve a model repository in Triton's layout")
      .addHelpText(
        'after',
        examples(
          'intarsia serve --repository models',
          'intarsia serve --repository models --model-control-mode poll --poll-seconds 5',
          'intarsia serve --config host.yaml --bind 0.0.0.0 --tls-certificate host.pem --tls-key host.key',
          'INTARSIA_REPOSITORY=models intarsia serve --device cpu --emulate gpu:0=nvidia-l4,timeScale=10',
          'intarsia serve --repository models --deploy split.yaml',
        ),
      ),
  ).option(
    '--deploy <file>',
    'deployments to serve from the start, such as of a split model; alone: a grid of this host',
  );
  command.action((flags: { deploy?: string }) =>
    act(context, command, (output) => serve(command, context, { output, file: flags.deploy ?? '' })),
  );
}

async function serve(
  command: Command,
  { program, terminal }: CommandContext,
  { output, file }: { readonly output: Output; readonly file: string },
): Promise<undefined> {
  // Before anything starts: mistakes in the file are told at once.
  const wanted = file === '' ? [] : await readDeployments(file, program);
  const given = await readHostOptions(command, program, terminal.env);
  const options = file === '' ? given : { ...given, grid: gridOfOne(given.grid) };
  // A host of a grid needs no models of its own: deployments bring them.
  const isAlone = options.grid === undefined;
  if (isAlone && (options.repositories ?? []).length === 0 && options.modelControl !== 'explicit') {
    throw intarsiaError(
      'CONFIG_INVALID',
      'no model repository is named: give --repository DIR, or --model-control-mode explicit to load models by API only',
      { option: 'repository' },
    );
  }
  const progress = startProgress(output, 'starting');
  let host: RunningHost;
  try {
    progress.update(0.1, 'finding devices, loading models');
    host = await program.startHost(options);
  } finally {
    progress.stop();
  }
  try {
    await serveDeployments(host, wanted, { program, output });
    printHost(host, output);
    output.result(hostFacts(host));
    output.line();
    output.line(output.style('dim', 'Serving. Press Ctrl-C to stop.'));
    const isOver = host.departed.then(() => 'its time to drain is over: leaving …');
    const isAsked = program.untilInterrupted().then(() => 'finishing what is in flight …');
    output.note(`stopping: ${await Promise.race([isOver, isAsked])}`);
  } finally {
    await host.stop();
  }
  return undefined;
}
