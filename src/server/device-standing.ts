/**
 * Whether requests may go to a device of this host: as its actor says, unless it was given up because its answers are wrong.
 * That lasts until the host is started again: nothing the device says of itself takes it back.
 */
import type { DeviceHealth } from '#actors/device/protocol.js';
import type { DeviceId } from '#core/ids.js';

export class DeviceStanding {
  readonly #told: (device: DeviceId, ready: boolean, reason: string) => void;
  readonly #given = new Map<DeviceId, string>();

  /** @param told `reason` is empty while the device is well. */
  constructor(told: (device: DeviceId, ready: boolean, reason: string) => void) {
    this.#told = told;
  }

  tell(device: DeviceId, health: DeviceHealth, reason: string): void {
    const given = this.#given.get(device);
    if (given !== undefined) return;
    const ready = health === 'ready' || health === 'degraded';
    const isWell = health === 'ready' || health === 'starting';
    this.#told(device, ready, isWell ? '' : reason === '' ? health : reason);
  }

  giveUp(device: DeviceId, reason: string): void {
    this.#given.set(device, reason);
    this.#told(device, false, reason);
  }
}
