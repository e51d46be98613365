/** `intarsia simulate`: a fleet of unlike devices on virtual time, under one dispatch policy or several. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { wholeNumber } from '../connection-flags.js';
import { exitCodes } from '../failure-line.js';
import type { FleetRunReport, FleetSimulationReport, ResidencyTrackReport } from '../fleet-simulation-report.js';
import { startProgress } from '../progress.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';

interface SimulateFlags {
  readonly fleet: string;
  readonly trace: string;
  readonly arrivals: string;
  readonly load?: number;
  readonly policy: readonly string[];
  readonly batching: string;
  readonly residency: 'everywhere' | 'greedy' | 'milp';
  readonly replan?: number;
  readonly seed: number;
  readonly requests?: number;
  readonly bounds: boolean;
}

export function addSimulateCommand(parent: Command, context: CommandContext): void {
  const command = parent
    .command('simulate')
    .description(
      'run a fleet of unlike devices on virtual time, and compare dispatch policies with each other and with bounds',
    )
    .option('--fleet <file>', 'fleet file, or the name of one that comes with the product', 'edge-and-core')
    .option(
      '--trace <file>',
      'requests of a trace: Azure LLM 2023 (CSV), Mooncake (JSON lines), plain CSV, or the folder of a decision log',
      '',
    )
    .option('--arrivals <stream>', 'stream to draw requests from: poisson, mmpp, diurnal, flash, onoff', 'poisson')
    .option(
      '--load <share>',
      'mean rate as a share of what the fleet can serve in time, at most 10; default: as it is',
      positive,
    )
    .option(
      '--policy <names>',
      'rules, learned policies (.onnx, or by the name of one that comes with the product), modules of your own (.js, .mjs), each also as NAME@BATCHING, separated by commas',
      names,
      ['cheapest-feasible'],
    )
    .option(
      '--batching <name>',
      'how devices form batches, a rule or a file (.onnx), where a policy brings nothing of its own',
      'deadline-cap+shed',
    )
    .addOption(
      new Option('--residency <plan>', 'which models live where: all that a device lists, or a plan for the load')
        .choices(['everywhere', 'greedy', 'milp'])
        .default('everywhere'),
    )
    .option(
      '--replan <seconds>',
      'also report what planning residency again so often brings, 5 to 60: popularity that drifts, spot devices that go',
      replanSeconds,
    )
    .option('--seed <number>', 'seed of everything that is drawn', wholeNumber, 1)
    .option('--requests <count>', 'requests, 1 to 10000000; default: all of the trace, or 20000', requestCount)
    .option('--no-bounds', 'do not compute bounds')
    .addHelpText(
      'after',
      examples(
        'intarsia simulate --load 0.7',
        'intarsia simulate --fleet cloud-spot --load 0.9 --policy cheapest-feasible,sed,jsq',
        'intarsia simulate --fleet my-fleet.yaml --arrivals mmpp:rates=20/200,dwell=5000/1000 --load 0.7 --json',
      ),
    )
    .addHelpText('after', 'J is the objective, lower is better; docs/simulation.md says what it and the bounds mean.');
  command.action((flags: SimulateFlags) =>
    act(context, command, async (output) => {
      const progress = startProgress(output, 'simulate');
      let report: FleetSimulationReport;
      try {
        const { policy: policies, load, requests, ...rest } = flags;
        report = await context.program.simulateFleet({ ...rest, policies, load, requests }, (share, words) => {
          progress.update(share, words);
        });
      } finally {
        progress.stop();
      }
      output.result(report);
      print(report, output);
      return exitCodes.ok;
    }),
  );
}

function print(report: FleetSimulationReport, output: Output): void {
  const { fleet, devices, requests, ratePerSecond, feasiblePerSecond, capped, bound, runs, classes } = report;
  output.table(
    [
      'policy',
      'batching',
      'J',
      'gap',
      '$ per 1k',
      ...classes.map((name) => `${name} missed`),
      'p50',
      'p99',
      'J/request',
      'fallback',
    ],
    runs.map((run) => [
      run.policy,
      run.batching,
      run.objective.toFixed(3),
      run.gap === undefined ? '-' : percent(run.gap),
      run.usdPerThousand.toPrecision(3),
      ...run.missShare.map((share) => (share === null ? '-' : percent(share))),
      `${run.p50Ms.toFixed(1)} ms`,
      `${run.p99Ms.toFixed(1)} ms`,
      run.joulesPerRequest.toPrecision(3),
      percent(run.fallbackRate),
    ]),
    2,
  );
  const share =
    feasiblePerSecond > 0 ? `, ${percent(ratePerSecond / feasiblePerSecond)} of what can be served in time` : '';
  output.line(`fleet ${fleet}: ${devices} devices; ${requests} requests, ${ratePerSecond.toFixed(1)} a second${share}`);
  if (capped > 0) output.line(`${capped} requests had more tokens than their model takes at once and were cut to that`);
  for (const { device, models } of report.residency ?? []) output.line(`${device}: ${models.join(', ') || 'nothing'}`);
  if (bound !== undefined) {
    const { usdPerHour, cheapestUsdPerHour } = report;
    const cheapest =
      cheapestUsdPerHour === undefined ? '' : `; the cheapest fleet for this rate ${cheapestUsdPerHour.toFixed(2)}`;
    output.line(
      `no policy has J below ${bound.toFixed(3)}; the fleet costs ${usdPerHour.toFixed(2)} $ an hour${cheapest}`,
    );
  }
  for (const run of runs) output.line(rateLine(run));
  if (report.residencyOverTime !== undefined) printTracks(report.residencyOverTime, output);
}

function printTracks(tracks: readonly ResidencyTrackReport[], output: Output): void {
  output.table(
    ['residency', 'planned', '$ an hour', 'against LP', 'missed', 'loads'],
    tracks.map(({ scenario, planner, usdPerHour, change, missedShare, loads }) => [
      scenario === 'drift' ? 'popularity drifts' : 'spot devices go',
      planner,
      usdPerHour.toPrecision(4),
      percent(change),
      percent(missedShare),
      loads,
    ]),
    2,
  );
  output.line('fluid requests over an hour; dollars of busy time, misses and loading, none of idle time');
}

function rateLine({ policy, decisions, decisionsPerSecond, virtualMs, hash }: FleetRunReport): string {
  return `${policy}: ${decisions} decisions, ${Math.round(decisionsPerSecond)} a second; ${(virtualMs / 1000).toFixed(1)} virtual s; hash ${hash}`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(Math.abs(share) < 0.1 ? 2 : 1)} %`;
}

function names(text: string): readonly string[] {
  return text.split(',').map((name) => name.trim());
}

function positive(text: string): number {
  const value = text === '' ? Number.NaN : Number(text);
  if (!(value > 0 && value <= 10)) throw new InvalidArgumentError('It must be above 0 and at most 10.');
  return value;
}

function replanSeconds(text: string): number {
  const value = text === '' ? Number.NaN : Number(text);
  if (!(value >= 5 && value <= 60)) throw new InvalidArgumentError('It must be 5 to 60.');
  return value;
}

function requestCount(text: string): number {
  const count = wholeNumber(text);
  if (count < 1 || count > 10_000_000) throw new InvalidArgumentError('It must be 1 to 10000000.');
  return count;
}
