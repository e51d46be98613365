/** Binds the device's behaviour to the runtime. */
import type { ActorFactory } from '#runtime/actor.js';
import { CrashAttribution } from './crash-attribution.js';
import { DeviceActor } from './device.js';
import type { DeviceInternal, DeviceMemory } from './device-shared.js';
import { deviceGauges } from './device-gauges.js';
import { completeDeviceOptions, type DeviceOptionsGiven } from './options.js';
import type { DeviceMessage } from './protocol.js';

/**
 * The actor of one device. Spawn it once a device; after a failure its next incarnation loads again what was serving.
 * Its mailbox should hold as many messages as its queues hold requests: what the mailbox refuses never reaches a queue.
 */
export function deviceActor(given: DeviceOptionsGiven): ActorFactory<DeviceMessage> {
  const options = completeDeviceOptions(given);
  const memory: DeviceMemory = {
    placements: new Map(),
    statistics: new Map(),
    gauges: deviceGauges(options.metrics, options.descriptor.id),
    attribution: new CrashAttribution(options.quarantine),
  };
  const factory: ActorFactory<DeviceInternal> = (context) => new DeviceActor(context, options, memory);
  // Others send what the protocol names; the rest the actor says to itself, through its own context.
  return factory;
}
