/** A live fleet as a simulated one: run times from the profile database, the rest from what was logged of requests. */
import { ProfileFolder } from '#adapters/profile-files/profile-folder.js';
import { readLogTable } from '#adapters/parquet/read-decision-log.js';
import { NodeClock } from '#adapters/node/clock.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { ServiceTable } from '#core/profile/service-table.js';
import type { Fleet } from '#sim/fleet/fleet.js';
import { readFleet } from '#sim/fleet/read-fleet.js';

/** Batches of one model that devices have in hand: one computes, the next is handed over. */
const inHandMax = 2;
/** What waits behind a batch in hand is neither in the queue nor computed: so many requests meet none. */
const unhinderedShare = 0.1;

export interface LiveDevice {
  readonly id: string;
  readonly isEmulated: boolean;
  readonly permits: number;
  readonly memoryBytes: number;
  readonly usdPerHour: number;
  readonly watts: number;
}

export interface LiveFleetOptions {
  readonly model: string;
  readonly itemsMax: number;
  readonly sloMs: Readonly<Record<'interactive' | 'standard' | 'batch', number>>;
  readonly devices: readonly LiveDevice[];
  readonly profileFolders: readonly string[];
  readonly logFolder: string;
}

export async function liveFleet(options: LiveFleetOptions): Promise<Fleet> {
  const { model, itemsMax, sloMs, devices, logFolder } = options;
  const tables = await measuredTables(options);
  const { netMs, noise } = await restOf(logFolder, tables);
  const data = {
    name: 'live',
    noise,
    models: [{ name: model, itemsMax, sloMs, memoryMiB: 1, tables: Object.fromEntries(tables) }],
    devices: devices.flatMap(({ id, usdPerHour, watts, permits }) =>
      tables.has(nameOf(id))
        ? [{ name: nameOf(id), usdPerHour, watts, permits: Math.min(permits, inHandMax), netMs, linkMBs: 1e6 }]
        : [],
    ),
  };
  return readFleet(data, 'live fleet', builtInProfiles);
}

/** Names of devices in fleet files are letters, digits, dots, dashes and underscores. */
function nameOf(device: string): string {
  return device.replaceAll(':', '-');
}

type Table = Readonly<Record<string, number>>;

async function measuredTables({ devices, profileFolders }: LiveFleetOptions): Promise<ReadonlyMap<string, Table>> {
  const records = [];
  for (const path of profileFolders) {
    const folder = await ProfileFolder.open({ path, clock: new NodeClock(), bytesMax: 2 ** 24 });
    records.push(...(await folder.read()).records);
    await folder.close();
  }
  const [shard] = records.filter(({ type }) => type === 'shard');
  const digest = shard?.type === 'shard' ? shard.model : '';
  const table = new ServiceTable(records, { model: digest, prefer: 'served' });
  const tables = new Map<string, Table>();
  for (const { id } of devices) {
    const rows = [...table.wholeMs({ device: id })].filter(([, ms]) => ms > 0);
    if (rows.length > 0) tables.set(nameOf(id), Object.fromEntries(rows));
  }
  return tables;
}

/** What a request takes beside waiting and computing, and how irregular runs are, from answered requests. */
async function restOf(
  folder: string,
  tables: ReadonlyMap<string, Table>,
): Promise<{ readonly netMs: number; readonly noise: number }> {
  const { columns, rows } = await readLogTable(folder, 'outcomes');
  const column = (name: string): readonly unknown[] => columns.get(name) ?? [];
  const rests: number[] = [];
  const logs: number[] = [];
  for (let row = 0; row < rows; row += 1) {
    if (column('outcome')[row] !== 'ok') continue;
    const computeMs = Number(column('compute_us')[row]) / 1000;
    rests.push(Number(column('duration_ms')[row]) - Number(column('queue_us')[row]) / 1000 - computeMs);
    const device = String(column('device')[row]);
    const mean = tables.get(nameOf(device))?.[String(column('batch_items')[row])];
    if (mean !== undefined && computeMs > 0) logs.push(Math.log(computeMs / mean));
  }
  const rest = rests.sort((a, b) => a - b)[Math.floor(rests.length * unhinderedShare)] ?? 0;
  const mean = logs.reduce((sum, value) => sum + value, 0) / Math.max(1, logs.length);
  const variance = logs.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, logs.length);
  return { netMs: Math.max(0, rest), noise: Math.min(0.5, Math.sqrt(variance)) };
}
