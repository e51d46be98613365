/**
 * How often hosts that may be taken away are taken away, by zone, as this host sees it: losses over hours of running, with the
 * prior of published traces where little was seen. A host that drains before it goes is no loss.
 */
import type { View } from '../grid/records.js';
import { spotHazardPerHour } from '../hardware-profile-spot.js';
import type { HostId } from '../ids.js';

interface Zone {
  losses: number;
  upMs: number;
}

interface SpotHost {
  readonly zone: string;
  readonly generation: number;
  readonly drains: boolean;
}

const hourMs = 3_600_000;
/** Zones that are kept apart; hosts of further ones count as of one. */
const zonesMax = 256;

export class SpotWatch {
  readonly #zones = new Map<string, Zone>();
  #hosts: ReadonlyMap<HostId, SpotHost> = new Map();
  #learnedMs = 0;

  /** Takes in who is there now. */
  learn(view: View, nowMs: number): void {
    const now = new Map<HostId, SpotHost>();
    for (const [host, { record, generation, state }] of view.hosts) {
      if (!record.spot) continue;
      now.set(host, { zone: record.zone, generation, drains: state === 'draining' || record.draining === true });
    }
    for (const [host, before] of this.#hosts) {
      const zone = this.#zoneOf(before.zone);
      zone.upMs += Math.max(0, nowMs - this.#learnedMs);
      if (now.get(host)?.generation !== before.generation && !before.drains) zone.losses += 1;
    }
    this.#hosts = now;
    this.#learnedMs = nowMs;
  }

  /** Expected losses of a spot host of the zone in an hour of running. */
  hazardPerHour(zone: string): number {
    const { losses, upMs } = this.#zones.get(zone) ?? { losses: 0, upMs: 0 };
    return spotHazardPerHour({ losses, upHours: upMs / hourMs });
  }

  #zoneOf(name: string): Zone {
    const key = this.#zones.has(name) || this.#zones.size < zonesMax ? name : '';
    let zone = this.#zones.get(key);
    if (zone === undefined) this.#zones.set(key, (zone = { losses: 0, upMs: 0 }));
    return zone;
  }
}
