/** `intarsia telemetry query`: SQL over a decision log, confined to it. */
import type { Command } from 'commander';
import { InvalidArgumentError } from 'commander';
import { wholeNumber } from '../connection-flags.js';
import { exitCodes } from '../failure-line.js';
import { act, examples, type CommandContext } from './command-context.js';
import { logFolderOf, noteDamaged } from './explain.js';

interface QueryFlags {
  readonly log?: string;
  readonly rows: number;
  readonly seconds: number;
}

export function addTelemetryCommands(parent: Command, context: CommandContext): void {
  const group = parent.command('telemetry').description('look into the decision log of a host');
  const command = group
    .command('query')
    .description('one SELECT over the tables decisions, candidates, outcomes and requests; needs DuckDB')
    .argument('<sql>', 'the query')
    .option('--log <dir>', 'folder of the log; without it INTARSIA_DECISION_LOG, else decision-log')
    .option('--rows <count>', 'rows to print at most, 1 to 1000000', between(1, 1_000_000), 1000)
    .option('--seconds <seconds>', 'time for the query, 1 to 3600', between(1, 3600), 60)
    .addHelpText(
      'after',
      examples(
        'intarsia telemetry query "SELECT policy, count(*), avg(duration_ms) FROM requests GROUP BY policy"',
        'intarsia telemetry query "SELECT fallback, count(*) FROM decisions GROUP BY fallback" --log log --json',
      ),
    )
    .addHelpText('after', 'The query sees the log and no other file. Columns: docs/decision-log.md');
  command.action((sql: string, flags: QueryFlags) =>
    act(context, command, async (output) => {
      const folder = logFolderOf(flags.log, context);
      const { rows: rowsMax, seconds } = flags;
      const report = await context.program.queryLog({ folder, sql, rowsMax, msMax: seconds * 1000 });
      output.result(report);
      output.table(
        report.columns,
        report.rows.map((row) => row.map(shown)),
      );
      if (report.isCut) output.note(`there are more rows: --rows ${rowsMax} are shown`);
      noteDamaged(report.damaged, output);
      return exitCodes.ok;
    }),
  );
}

function shown(value: unknown): string {
  if (value === null || value === undefined) return '';
  if (typeof value === 'number' || typeof value === 'bigint') return String(value);
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function between(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = wholeNumber(text);
    if (value < min || value > max) throw new InvalidArgumentError(`It must be ${min} to ${max}.`);
    return value;
  };
}
