/**
 * A live fleet as a simulated one, measured in the decision logs of its hosts: run times, their irregularity, what slows whom, and
 * what a request takes beside waiting and computing. And what its hosts believed of run times when they began.
 */
import { ProfileFolder } from '#adapters/profile-files/profile-folder.js';
import { readLogTable } from '#adapters/parquet/read-decision-log.js';
import { NodeClock } from '#adapters/node/clock.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { ServiceTable } from '#core/profile/service-table.js';
import { liveProfile } from '#core/scheduling/live-profile.js';
import type { ServiceProfile } from '#core/scheduling/service-profile.js';
import { sloClasses, type SloClass } from '#core/scheduling/slo-class.js';
import type { Fleet } from '#sim/fleet/fleet.js';
import { measuredDevices } from '#sim/fleet/measured-devices.js';
import { measuredRuns, type AnsweredRequest, type MeasuredRun } from '#sim/fleet/measured-runs.js';
import { readFleet } from '#sim/fleet/read-fleet.js';

/** Batches of one model that devices have in hand: one computes, the next is handed over. */
const inHandMax = 2;

export interface LiveDevice {
  readonly id: string;
  readonly isEmulated: boolean;
  readonly permits: number;
  readonly memoryBytes: number;
  readonly usdPerHour: number;
  readonly watts: number;
}

/** A request of a log; device and times of one that was not answered are empty and 0. */
export interface LoggedRequest extends AnsweredRequest {
  readonly sloClass: SloClass;
  readonly isAnswered: boolean;
  /** Arrival by the clock on the wall, ms. */
  readonly arrivedWallMs: number;
}

export interface LiveFleetOptions {
  readonly model: string;
  readonly itemsMax: number;
  readonly sloMs: Readonly<Record<SloClass, number>>;
  readonly devices: readonly LiveDevice[];
  /** Requests of each stretch of time that is measured; stretches need not have one clock. */
  readonly stretches: readonly (readonly LoggedRequest[])[];
}

/** All requests of a log of one host, by arrival. */
export async function loggedRequests(folder: string): Promise<readonly LoggedRequest[]> {
  const { columns, rows } = await readLogTable(folder, 'outcomes');
  const at = (name: string, row: number): unknown => columns.get(name)?.[row];
  const requests = Array.from({ length: rows }, (_, row): LoggedRequest => {
    return {
      device: nameOf((at('device', row) as string | null) ?? ''),
      arrivedMs: Number(at('arrived_ms', row)),
      durationMs: Number(at('duration_ms', row)),
      queueMs: Number(at('queue_us', row) ?? 0) / 1000,
      computeMs: Number(at('compute_us', row) ?? 0) / 1000,
      linkMs: Number(at('link_us', row) ?? 0) / 1000,
      batchItems: Number(at('batch_items', row) ?? 0),
      sloClass: sloClasses.find((name) => name === at('class', row)) ?? 'batch',
      isAnswered: at('outcome', row) === 'ok',
      arrivedWallMs: (at('arrived', row) as Date).getTime(),
    };
  });
  return requests.sort((one, other) => one.arrivedMs - other.arrivedMs);
}

export function liveFleet({ model, itemsMax, sloMs, devices, stretches }: LiveFleetOptions): Fleet {
  const runs: MeasuredRun[] = [];
  const rests: number[] = [];
  for (const stretch of stretches) {
    const answered = stretch.filter(({ isAnswered }) => isAnswered);
    for (const { durationMs, queueMs, computeMs, linkMs } of answered) {
      rests.push(Math.max(0, durationMs - queueMs - computeMs - linkMs));
    }
    const own = measuredRuns(answered);
    // One after the other on one clock, so that nothing seems to happen at once that did not.
    const shiftMs = (runs.at(-1)?.endMs ?? 0) + 60_000 - (own[0]?.startMs ?? 0);
    for (const run of own) runs.push({ ...run, startMs: run.startMs + shiftMs, endMs: run.endMs + shiftMs });
  }
  const measured = measuredDevices(runs);
  const busiest = [...measured].sort(([one], [other]) => countOf(runs, other) - countOf(runs, one))[0];
  const netMs = medianOf(rests);
  // Emulated ones compute nothing: that one waits when others are slow makes it no reason.
  const computing = new Set(devices.flatMap(({ id, isEmulated }) => (isEmulated ? [] : [nameOf(id)])));
  const data = {
    name: 'live',
    noise: busiest?.[1].noise ?? 0,
    lastingNoise: busiest?.[1].lasting,
    models: [
      {
        ...{ name: model, itemsMax, sloMs, memoryMiB: 1 },
        tables: Object.fromEntries([...measured].map(([name, { table }]) => [name, table])),
      },
    ],
    devices: devices.flatMap(({ id, usdPerHour, watts, permits }) => {
      const name = nameOf(id);
      const figures = measured.get(name);
      if (figures === undefined) return [];
      const { noise, handOverMs, slowedBy } = figures;
      const rest = { permits: Math.min(permits, inHandMax), netMs, linkMBs: 1e6 };
      return [
        {
          name,
          usdPerHour,
          watts,
          ...rest,
          noise,
          handOverMs,
          slowedBy: Object.fromEntries([...slowedBy].filter(([other]) => computing.has(other))),
        },
      ];
    }),
  };
  return readFleet(data, 'live fleet', builtInProfiles);
}

/** What hosts that began with these profiles believe, by the fleet's device. */
export async function believedTables(
  path: string,
  { devices }: Fleet,
  itemsMax: number,
): Promise<readonly (ServiceProfile | undefined)[]> {
  const folder = await ProfileFolder.open({ path, clock: new NodeClock(), bytesMax: 2 ** 24 });
  const { records } = await folder.read();
  await folder.close();
  const model = records.find(({ type }) => type === 'shard');
  const table = new ServiceTable(records, { model: model?.type === 'shard' ? model.model : '', prefer: 'served' });
  return devices.map(({ id }) => {
    const known = table.devices().find(({ device }) => nameOf(device) === id);
    return known === undefined ? undefined : liveProfile(table, [{ device: known.device }], itemsMax)?.profile;
  });
}

/** Names of devices in fleet files are letters, digits, dots, dashes and underscores. */
function nameOf(device: string): string {
  return device.replaceAll(':', '-');
}

function countOf(runs: readonly MeasuredRun[], device: string): number {
  return runs.filter((run) => run.device === device).length;
}

function medianOf(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
