/** Entry of a thread that plays episodes for `rollout-threads.ts`: one order in, its record out. */
import { parentPort, workerData } from 'node:worker_threads';
import { toErrorData } from '#core/errors.js';
import type { EpisodeOrder, EpisodeRecord } from '#policies/learning/environment.js';
import { fleetEnvironment, type FleetScenario, type FleetWorldData } from '#policies/learning/fleet-environment.js';
import { fleetTools } from './fleet-tools.js';
import type { RolloutAnswer } from './rollout-threads.js';

const environment = fleetEnvironment(workerData as FleetWorldData, fleetTools());

parentPort?.on('message', (order: EpisodeOrder<FleetScenario>) => {
  environment.runEpisode(order).then(
    (record) => answer({ ok: true, record }, buffersOf(record)),
    (error: unknown) => answer({ ok: false, error: toErrorData(error) }, []),
  );
});

function answer(message: RolloutAnswer, transfer: readonly ArrayBuffer[]): void {
  parentPort?.postMessage(message, transfer);
}

/** The memory of a record's arrays: moved, not copied. */
function buffersOf({ outcomes, decisions }: EpisodeRecord): ArrayBuffer[] {
  const columns = Object.values<unknown>({ ...outcomes, ...decisions });
  return columns.flatMap((column) => (ArrayBuffer.isView(column) ? [column.buffer as ArrayBuffer] : []));
}
