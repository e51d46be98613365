/**
 * The device on which samples of answers are run again that nobody else can run: one thread of this host's CPU, in a
 * process of the lowest priority. It serves nobody and is in no routing table.
 */
import { constants, setPriority } from 'node:os';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { deviceId } from '#core/ids.js';
import type { DeviceDescriptor } from '#core/device.js';
import type { ExecutorFactory } from '#ports/executor.js';
import type { Metrics } from '#ports/metrics.js';
import { deviceActor } from '#actors/device/actor.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import type { ActorSystem } from '#runtime/system.js';
import type { ReferenceDevice } from '#server/reference-runs.js';

/** Of what models may take on the CPU, the part that a version under comparison may take. */
const memoryShare = 0.25;

export interface ReferenceDeviceOptions {
  readonly system: ActorSystem;
  /** This machine's CPU. */
  readonly cpu: DeviceDescriptor;
  readonly metrics: Metrics;
}

/** Its process starts with the first version that is loaded, and ends when it is closed. */
export function openReferenceDevice({ system, cpu, metrics }: ReferenceDeviceOptions): () => ReferenceDevice {
  let opened = 0;
  return () => {
    opened += 1;
    const ref = system.spawn<DeviceMessage>(
      `reference-${opened}`,
      deviceActor({
        descriptor: {
          ...cpu,
          ...{ id: deviceId('reference:0'), threads: 1, permits: 1, fallbackProviders: [] },
          memoryBytes: Math.floor(cpu.memoryBytes * memoryShare),
        },
        startExecutor,
        metrics,
        canaryMs: 0,
      }),
    );
    return { ref, close: () => system.stop(ref) };
  };
}

const startExecutor: ExecutorFactory = async () => {
  const executor = await startProcessExecutor({ provider: 'cpu', lanes: 1 });
  const { pid } = executor.description;
  if (pid !== undefined) setPriority(pid, constants.priority.PRIORITY_LOW);
  return executor;
};
