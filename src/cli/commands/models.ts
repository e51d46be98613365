/** `intarsia models`: what a host's repository holds, and loading and unloading it. */
import type { Command } from 'commander';
import { formatShape } from '#core/tensor.js';
import type { ModelStatistics } from '#client/index.js';
import { addConnectionFlags, connectBy, type ConnectionFlags } from '../connection-flags.js';
import { startProgress } from '../progress.js';
import { act, examples, type CommandContext } from './command-context.js';

export function addModelsCommand(parent: Command, context: CommandContext): void {
  const models = parent
    .command('models')
    .description('list, inspect, load and unload the models of a host')
    .addHelpText(
      'after',
      examples(
        'intarsia models list',
        'intarsia models inspect digits',
        'intarsia models load digits --endpoint gpu-host:8001',
      ),
    );
  addList(models, context);
  addInspect(models, context);
  addLoad(models, context);
  addUnload(models, context);
}

function addList(models: Command, context: CommandContext): void {
  const command = addConnectionFlags(
    models
      .command('list')
      .description('every model of the repository, with its state and the reason of a failure')
      .option('--ready', 'only those that answer requests'),
  );
  command.action((flags: ConnectionFlags & { ready?: boolean }) =>
    act(context, command, async (output) => {
      const client = connectBy(flags, context.program);
      try {
        const index = await client.repositoryIndex({ readyOnly: flags.ready === true });
        output.result(index);
        output.table(
          ['model', 'version', 'state', 'reason'],
          index.map(({ name, version, state, reason }) => [name, version, state, reason]),
        );
        if (index.length === 0) output.line('no models');
      } finally {
        client.close();
      }
      return undefined;
    }),
  );
}

interface VersionFlags {
  readonly modelVersion?: string;
}

function addInspect(models: Command, context: CommandContext): void {
  const command = addConnectionFlags(
    models
      .command('inspect')
      .description('inputs, outputs, configuration and statistics of a model')
      .argument('<model>', 'name of the model')
      .option('--model-version <version>', 'version of the model (default: the one that answers)'),
  );
  command.action((model: string, flags: ConnectionFlags & VersionFlags) =>
    act(context, command, async (output) => {
      const client = connectBy(flags, context.program);
      try {
        const version = flags.modelVersion === undefined ? {} : { version: flags.modelVersion };
        const metadata = await client.modelMetadata(model, version);
        const config = await client.modelConfig(model, version);
        const statistics = await client.modelStatistics(model, version);
        output.result({ metadata, config, statistics });
        output.line(
          `${output.style('bold', metadata.name)}  versions ${metadata.versions.join(', ')}  ${metadata.platform}`,
        );
        output.line();
        output.table(
          ['', 'name', 'datatype', 'shape'],
          [
            ...metadata.inputs.map((spec) => ['input', spec.name, spec.datatype, formatShape(spec.shape)]),
            ...metadata.outputs.map((spec) => ['output', spec.name, spec.datatype, formatShape(spec.shape)]),
          ],
        );
        output.line();
        output.table(statisticsHead, statistics.map(statisticsRow), 1);
        output.line();
        output.line(output.style('bold', 'Configuration'));
        if (!output.json) output.line(JSON.stringify(config, null, 2));
      } finally {
        client.close();
      }
      return undefined;
    }),
  );
}

export const statisticsHead = [
  'model',
  'version',
  'requests',
  'failed',
  'items',
  'items/batch',
  'queue ms',
  'compute ms',
];

/** Means since the model was loaded. */
export function statisticsRow(stats: ModelStatistics): string[] {
  const { success, fail, inferenceCount, executionCount, queue, computeInput, computeInfer, computeOutput } = stats;
  const mean = (ns: number, count: number): string => (count === 0 ? '–' : (ns / count / 1e6).toFixed(3));
  return [
    stats.name,
    stats.version,
    String(success.count),
    String(fail.count),
    String(inferenceCount),
    executionCount === 0 ? '–' : (inferenceCount / executionCount).toFixed(1),
    mean(queue.ns, queue.count),
    mean(computeInput.ns + computeInfer.ns + computeOutput.ns, computeInfer.count),
  ];
}

function addLoad(models: Command, context: CommandContext): void {
  const command = addConnectionFlags(
    models.command('load').description('load or reload a model').argument('<model>', 'name of the model'),
  );
  command.action((model: string, flags: ConnectionFlags) =>
    act(context, command, async (output) => {
      const client = connectBy(flags, context.program);
      const progress = startProgress(output, `loading ${model}`);
      try {
        const startMs = context.program.clock.nowMs();
        // A typed limit counts; without one, loading takes as long as it takes.
        const typed = command.getOptionValueSource('timeoutMs') === 'cli';
        await client.loadModel(model, typed ? { timeoutMs: flags.timeoutMs } : {});
        const loadMs = context.program.clock.nowMs() - startMs;
        output.result({ model, loaded: true, loadMs });
        output.line(`loaded ${model} in ${(loadMs / 1000).toFixed(2)} s`);
      } finally {
        progress.stop();
        client.close();
      }
      return undefined;
    }),
  );
}

function addUnload(models: Command, context: CommandContext): void {
  const command = addConnectionFlags(
    models
      .command('unload')
      .description('unload a model; what it has in flight is still answered')
      .argument('<model>', 'name of the model'),
  );
  command.action((model: string, flags: ConnectionFlags) =>
    act(context, command, async (output) => {
      const client = connectBy(flags, context.program);
      try {
        const typed = command.getOptionValueSource('timeoutMs') === 'cli';
        await client.unloadModel(model, typed ? { timeoutMs: flags.timeoutMs } : {});
        output.result({ model, loaded: false });
        output.line(`unloaded ${model}`);
      } finally {
        client.close();
      }
      return undefined;
    }),
  );
}
