/**
 * What a host's devices are doing, for the news that hosts tell each other: the last answer of each device actor. Each look
 * asks them for the next, so that no timer runs and a device that does not answer is not asked twice.
 */
import type { DeviceLoad } from '#core/grid/host-load.js';
import type { DeviceId } from '#core/ids.js';
import type { DeviceMessage, DeviceStatus } from '#actors/device/protocol.js';
import type { Clock } from '#ports/clock.js';
import type { ActorRef } from '#runtime/actor.js';

export interface LoadedDevice {
  readonly descriptor: { readonly id: DeviceId };
  readonly ref: ActorRef<DeviceMessage>;
}

/** Longest wait for a device's answer, ms; after it, it is asked again. */
const askMsMax = 5_000;

export class DeviceLoads {
  readonly #clock: Clock;
  readonly #devices: readonly LoadedDevice[];
  readonly #known = new Map<DeviceId, DeviceLoad>();
  readonly #asked = new Set<DeviceId>();

  constructor(clock: Clock, devices: readonly LoadedDevice[]) {
    this.#clock = clock;
    this.#devices = devices;
  }

  /** As of the last answers; devices that have not answered yet are left out. */
  read(): readonly DeviceLoad[] {
    for (const device of this.#devices) this.#ask(device);
    return [...this.#known.values()];
  }

  #ask({ descriptor: { id }, ref }: LoadedDevice): void {
    if (this.#asked.has(id)) return;
    this.#asked.add(id);
    const deadlineMs = this.#clock.nowMs() + askMsMax;
    ref
      .ask<DeviceStatus>((replyTo) => ({ type: 'status', replyTo }), { deadlineMs })
      .then(
        (status) => {
          this.#asked.delete(id);
          this.#known.set(id, loadOf(status, this.#clock.nowMs()));
        },
        // A device that has stopped or does not answer in time says nothing: its last word is no longer true.
        () => {
          this.#asked.delete(id);
          this.#known.delete(id);
        },
      );
  }
}

function loadOf(
  { device, health, reason, queues, permitsFree, temperatureCelsius, memoryUsedBytes }: DeviceStatus,
  nowMs: number,
): DeviceLoad {
  let queued = 0;
  let oldestMs = nowMs;
  for (const queue of queues) {
    queued += queue.queuedRequests;
    oldestMs = Math.min(oldestMs, queue.oldestArrivedMs);
  }
  return {
    device: device.id,
    queued,
    inFlight: Math.max(0, device.permits - permitsFree),
    // In a queue that keeps its length, what comes now waits as long as the oldest has waited.
    backlogMs: nowMs - oldestMs,
    temperatureC: temperatureCelsius ?? 0,
    freeMemoryBytes: Math.max(0, device.memoryBytes - memoryUsedBytes),
    degraded: health === 'ready' || health === 'starting' ? '' : reason === '' ? health : reason,
  };
}
