/** The command line: one tree of commands, one way to fail. Prints and decides exit codes; what commands do is handed in. */
import { Command, CommanderError, Help, type Option } from 'commander';
import { addBenchCommand } from './commands/bench-serve.js';
import { addCertsCommand } from './commands/certs.js';
import type { CommandContext } from './commands/command-context.js';
import { examples } from './commands/command-context.js';
import { addCompletionCommand } from './commands/completion.js';
import { addDevicesCommand } from './commands/devices.js';
import { addEvaluateCommand } from './commands/evaluate.js';
import { addGridCommands } from './commands/grid.js';
import { addExplainCommand } from './commands/explain.js';
import { addInferCommand } from './commands/infer.js';
import { addModelsCommand } from './commands/models.js';
import { addServeCommand } from './commands/serve.js';
import { addStartCommand } from './commands/start.js';
import { addStatusCommand } from './commands/status.js';
import { addStoreCommand } from './commands/store.js';
import { addTrainCommand } from './commands/train.js';
import { addTelemetryCommands } from './commands/telemetry.js';
import { addUpCommand } from './commands/up.js';
import { addSimulateCommand } from './commands/simulate.js';
import { addSimulateGridCommand } from './commands/simulate-grid.js';
import { addPlanCommand } from './commands/plan.js';
import { addPolicyCommands } from './commands/policy.js';
import { addProfileCommand } from './commands/profile.js';
import { addOptimizeCommand } from './commands/optimize.js';
import { addVerifyCommand } from './commands/verify.js';
import { addVersionCommand } from './commands/version.js';
import { exitCodes } from './failure-line.js';
import type { Program } from './program.js';
import type { Terminal } from './terminal.js';

/** Runs a command line (without `node` and the script) and gives back the exit code of the process. */
export async function runCommandLine(argv: readonly string[], program: Program, terminal: Terminal): Promise<number> {
  const context: CommandContext = { program, terminal, exitCode: exitCodes.ok };
  const root = buildCommands(context);
  if (argv.length === 0) {
    terminal.err(root.helpInformation());
    return exitCodes.usage;
  }
  try {
    await root.parseAsync([...argv], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Commander has printed its line already. Help and version asked for are no failures.
    return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  }
  return context.exitCode;
}

/** The tree of commands. */
export function buildCommands(context: CommandContext): Command {
  const { terminal } = context;
  const root = new Command('intarsia');
  root
    .description('One model, many silicon: an inference host for mixed hardware.')
    .version(context.program.versions.intarsia, '--version', 'show the version')
    .option('--json', 'print the result as JSON')
    .option('--verbose', 'explain failures at length')
    .configureHelp({ showGlobalOptions: true, helpWidth: 110, optionDescription })
    .configureOutput({
      writeOut: (text) => terminal.out(text),
      writeErr: (text) => terminal.err(text),
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    })
    .showSuggestionAfterError(true)
    .showHelpAfterError('(see intarsia --help)')
    .addHelpText(
      'after',
      examples('intarsia start', 'intarsia serve --repository models', 'intarsia infer digits --random'),
    )
    .addHelpText(
      'after',
      'Exit codes: 0 done, 1 failed, 2 the command line or configuration is wrong.\nNO_COLOR is honoured. Every command: docs/cli.md',
    )
    .exitOverride();
  addStartCommand(root, context);
  addServeCommand(root, context);
  addUpCommand(root, context);
  addStoreCommand(root, context);
  addDevicesCommand(root, context);
  addModelsCommand(root, context);
  addInferCommand(root, context);
  addGridCommands(root, context);
  addCertsCommand(root, context, context.program.certificates);
  addBenchCommand(root, context);
  addVerifyCommand(root, context);
  addOptimizeCommand(root, context);
  addPlanCommand(root, context);
  addProfileCommand(root, context);
  addSimulateCommand(root, context);
  addSimulateGridCommand(root, context);
  addTrainCommand(root, context);
  addEvaluateCommand(root, context);
  addPolicyCommands(root, context);
  addTelemetryCommands(root, context);
  addExplainCommand(root, context);
  addStatusCommand(root, context);
  addCompletionCommand(root, context);
  addVersionCommand(root, context);
  return root;
}

/** A list that is empty unless somebody names something has no default worth showing. */
function optionDescription(option: Option): string {
  const { defaultValue } = option as { readonly defaultValue?: unknown };
  const isEmpty =
    (Array.isArray(defaultValue) && defaultValue.length === 0) ||
    (defaultValue instanceof Map && defaultValue.size === 0);
  const shown = isEmpty ? Object.assign(Object.create(option) as Option, { defaultValue: undefined }) : option;
  return new Help().optionDescription(shown);
}
