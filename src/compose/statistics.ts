/**
 * The figures of every loaded version, summed over the devices it is on. Pieces of a split model are that model: its first
 * stage counts the requests, the later ones add their time.
 */
import type { DeviceMessage, VersionStatistics } from '#actors/device/protocol.js';
import type { DeviceDescriptor } from '#core/device.js';
import { addStatistics, timesOnly } from '#core/model-statistics.js';
import { readShardName } from '#core/split/split-spec.js';
import type { ActorRef } from '#runtime/actor.js';
import type { Clock } from '#ports/clock.js';
import type { ModelStatisticsRow } from '#server/statistics-message.js';

export interface StartedDevice {
  readonly descriptor: DeviceDescriptor;
  readonly ref: ActorRef<DeviceMessage>;
}

const askMsMax = 5_000;

/** @throws what asking a device throws: UNAVAILABLE, DEADLINE_EXCEEDED. */
export async function hostStatistics(
  devices: readonly StartedDevice[],
  clock: Clock,
): Promise<readonly ModelStatisticsRow[]> {
  const deadlineMs = clock.nowMs() + askMsMax;
  const answers = await Promise.all(
    devices.map(async ({ descriptor, ref }) => {
      const rows = await ref.ask<readonly VersionStatistics[]>((replyTo) => ({ type: 'statistics', replyTo }), {
        deadlineMs,
      });
      return { descriptor, rows };
    }),
  );
  const byVersion = new Map<string, { descriptor: DeviceDescriptor; row: VersionStatistics }[]>();
  for (const { descriptor, rows } of answers) {
    for (const row of rows) {
      const shown = ofModel(row);
      const key = `${shown.model}/${shown.version}`;
      byVersion.set(key, [...(byVersion.get(key) ?? []), { descriptor, row: shown }]);
    }
  }
  return [...byVersion.values()].flatMap((parts) => {
    const [first] = parts;
    if (first === undefined) return [];
    return [
      {
        model: first.row.model,
        version: first.row.version,
        statistics: addStatistics(parts.map(({ row }) => row.statistics)),
        memory: parts.map(({ descriptor, row }) => ({
          type: descriptor.kind === 'gpu' ? ('GPU' as const) : ('CPU' as const),
          index: Number(descriptor.id.split(':')[1] ?? 0),
          bytes: row.memoryBytes,
        })),
      },
    ];
  });
}

function ofModel(row: VersionStatistics): VersionStatistics {
  const piece = readShardName(row.model);
  if (piece === undefined) return row;
  const statistics = piece.shard === 0 ? row.statistics : timesOnly(row.statistics);
  return { ...row, model: piece.model, statistics };
}
