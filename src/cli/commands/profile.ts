/** `intarsia profile`: measures a model and pieces of it on devices, and keeps what was measured. */
import type { Command } from 'commander';
import { formatBytes, formatMs } from '#core/units.js';
import { countBetween } from '../connection-flags.js';
import { exitCodes } from '../failure-line.js';
import type { ProfiledShard, ProfileReport } from '../profile-report.js';
import { startProgress } from '../progress.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';

interface ProfileFlags {
  readonly devices: readonly string[];
  readonly batches: readonly number[];
  readonly cuts: number;
  readonly repeat: number;
  readonly shardMs: number;
  readonly seconds: number;
  readonly store?: string;
  readonly host?: string;
  readonly export?: string;
  readonly vectors?: string;
  readonly profiles?: string;
}

/** A device was gone before all of it was measured; the rest is kept. */
const deviceLost = 2;
const rowsMax = 40;
const listedMax = 10;

export function addProfileCommand(parent: Command, context: CommandContext): void {
  const command = parent
    .command('profile')
    .description('measure a model and pieces of it on devices, for plans and schedulers')
    .argument('<model>', 'ONNX file')
    .option(
      '--devices <list>',
      'such as cpu,wasm,emulated:nvidia-l4; without it every device of this machine',
      (text: string) => text.split(',').map((part) => part.trim()),
      [],
    )
    .option('--batches <list>', 'batch sizes, each 1 to 4096', batchList, [1, 2, 4, 8])
    .option('--cuts <count>', 'cuts between which pieces are measured, 0 to 256', countBetween(0, 256), 4)
    .option('--repeat <count>', 'timed runs of a shard at most, 3 to 10000', countBetween(3, 10_000), 40)
    .option('--shard-ms <ms>', 'time for the runs of a shard, 10 to 60000', countBetween(10, 60_000), 400)
    .option('--seconds <seconds>', 'time for everything, 1 to 86400; the rest is named', countBetween(1, 86_400), 120)
    .option('--store <dir>', "folder of the profile database; without it this user's")
    .option('--host <name>', "name of this machine in records; without it the system's")
    .option('--export <file>', 'write all records of the model to a Parquet file')
    .option('--vectors <dir>', "folder with test_data_set_N; without it the model's folder, or made-up inputs")
    .option('--profiles <file>', 'YAML file with more hardware profiles')
    .addHelpText(
      'after',
      examples(
        'intarsia profile model.onnx --devices cpu,wasm --batches 1,8',
        'intarsia profile model.onnx --cuts 8 --export profile.parquet',
        'intarsia profile model.onnx --json > profile.json',
      ),
    )
    .addHelpText(
      'after',
      'Exit codes: 0 measured, 1 it failed or nothing was measured, 2 a device was gone before all of it was measured.',
    );
  command.action((model: string, flags: ProfileFlags) =>
    act(context, command, async (output) => {
      const progress = startProgress(output, 'profile');
      let report: ProfileReport;
      try {
        const { store = '', host = '', export: exportPath = '', vectors = '', profiles = '', ...rest } = flags;
        report = await context.program.profileModel(
          { model, ...rest, store, host, exportPath, vectors, profilesPath: profiles },
          (share, words) => progress.update(share, words),
        );
      } finally {
        progress.stop();
      }
      output.result(report);
      print(report, output);
      if (report.lostDevices.length > 0) return deviceLost;
      return report.shards.length > 0 ? exitCodes.ok : exitCodes.failed;
    }),
  );
}

function print(report: ProfileReport, output: Output): void {
  const { shards, nodes, missing, notes } = report;
  output.table(
    ['device', 'nodes', 'batch', 'runs', 'mean', 'p50', 'p95', 'min', 'spread', 'weights', 'activations', 'loaded'],
    shards
      .slice(0, rowsMax)
      .map((shard) => [
        shard.emulated ? `${shard.device} (emulated)` : shard.device,
        placeOf(shard, nodes),
        shard.batch,
        shard.count,
        formatMs(shard.meanMs),
        formatMs(shard.p50Ms),
        formatMs(shard.p95Ms),
        formatMs(shard.minMs),
        `${(shard.spread * 100).toFixed(0)} %`,
        formatBytes(shard.weightBytes),
        formatBytes(shard.peakActivationBytes),
        formatBytes(shard.loadedBytes),
      ]),
  );
  if (shards.length > rowsMax) output.line(`… and ${shards.length - rowsMax} more; see --json`);
  for (const { device, batch, method, slowest, totalMs } of report.nodeTimes) {
    output.line();
    const how = method === 'engine' ? "by the engine's own profile" : 'by shards from the first node on';
    output.line(output.style('bold', `Slowest nodes on ${device}, batch ${batch}, ${how}`));
    for (const { node, operator, ms } of slowest.slice(0, listedMax)) {
      const share = totalMs === 0 ? 0 : (100 * ms) / totalMs;
      output.line(`  ${String(node).padStart(5)}  ${operator.padEnd(24)} ${formatMs(ms)}  ${share.toFixed(0)} %`);
    }
  }
  if (report.links.length > 0) {
    output.line();
    output.table(
      ['between this process and', 'round trip', 'bandwidth'],
      report.links.map(({ device, roundTripMs, bytesPerSecond }) => [
        device,
        formatMs(roundTripMs),
        Number.isFinite(bytesPerSecond) ? `${formatBytes(bytesPerSecond)}/s` : 'not measurable',
      ]),
    );
  }
  list(
    output,
    'Not measured',
    missing.map(({ device, what, reason }) => `${device}: ${what}: ${reason}`),
  );
  list(output, 'Notes', notes);
  output.line();
  output.line(`${report.records} records written to ${report.store}`);
  if (report.exportPath !== '') output.line(`${report.exported} rows written to ${report.exportPath}`);
}

function list(output: Output, title: string, lines: readonly string[]): void {
  if (lines.length === 0) return;
  output.line();
  output.line(output.style('bold', title));
  for (const line of lines.slice(0, listedMax)) output.line(`  ${line}`);
  if (lines.length > listedMax) output.line(`  … and ${lines.length - listedMax} more; see --json`);
}

function placeOf({ from, to }: ProfiledShard, nodes: number): string {
  return from === 0 && to === nodes ? `all ${nodes}` : `${from} to ${to - 1}`;
}

function batchList(text: string): readonly number[] {
  return text.split(',').map((part) => countBetween(1, 4096)(part.trim()));
}
