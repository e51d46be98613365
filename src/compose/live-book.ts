/**
 * What a gateway's dispatch knows of devices and models beside their queues: its own devices by their descriptors, others' by
 * their records, spot hazards by what was seen of each zone, run times by the profile database, batch sizes by the catalogue.
 */
import type { DeviceDescriptor } from '#core/device.js';
import type { View } from '#core/grid/records.js';
import type { DeviceId, HostId } from '#core/ids.js';
import type { ModelConfig } from '#core/model-config.js';
import type { DeviceSelector, ServiceTable } from '#core/profile/service-table.js';
import type { Replica } from '#core/replica.js';
import { deviceKey, type RoutingTable } from '#core/routing-table.js';
import {
  unknownDevice,
  unknownReplica,
  type DeviceFacts,
  type FleetBook,
  type ReplicaFacts,
} from '#core/scheduling/fleet-book.js';
import { liveProfile } from '#core/scheduling/live-profile.js';
import type { ServiceProfile } from '#core/scheduling/service-profile.js';
import { SpotWatch } from '#core/scheduling/spot-watch.js';
import type { Placement } from '#actors/device/protocol.js';

export interface LiveBookOptions {
  readonly host: HostId;
  readonly descriptors: readonly DeviceDescriptor[];
  /** Zone of this host, if it may be taken away at any time. */
  readonly spotZone?: string | undefined;
}

interface KnownDevice {
  readonly facts: DeviceFacts;
  readonly spotZone: string | undefined;
  /** Where its times are found, the nearest first. */
  readonly selectors: readonly DeviceSelector[];
}

export class LiveBook implements FleetBook {
  revision = 0;
  readonly #host: HostId;
  readonly #own: ReadonlyMap<string, KnownDevice>;
  readonly #spot = new SpotWatch();
  #others: ReadonlyMap<string, KnownDevice> = new Map();
  #profiles: ReadonlyMap<string, ServiceTable> = new Map();
  #table: RoutingTable | undefined;

  constructor({ host, descriptors, spotZone }: LiveBookOptions) {
    this.#host = host;
    this.#own = new Map(
      descriptors.map(({ id, name, profile, provider, threads, price, busyWatts, memoryBytes }) => [
        deviceKey(host, id),
        {
          facts: { ...unknownDevice, usdPerHour: price?.usdPerHour ?? 0, watts: busyWatts?.watts ?? 0, memoryBytes },
          spotZone,
          selectors: [
            { host, device: id },
            { silicon: profile ?? name, provider, threads },
          ],
        },
      ]),
    );
  }

  learnTable(table: RoutingTable): void {
    if (this.#table?.catalog !== table.catalog) this.revision += 1;
    this.#table = table;
  }

  learnView(view: View, nowMs: number): void {
    this.#spot.learn(view, nowMs);
    const others = new Map<string, KnownDevice>();
    for (const { record } of view.hosts.values()) {
      const { host, zone, spot } = record;
      if (host === this.#host) continue;
      for (const { id, name, profile, provider, threads, pricePerHour, memoryBytes } of record.devices) {
        const silicon = profile === '' ? name : profile;
        others.set(deviceKey(host, id), {
          facts: { ...unknownDevice, usdPerHour: pricePerHour, memoryBytes },
          spotZone: spot ? zone : undefined,
          selectors: [
            { host, device: id },
            // A host of an earlier version does not say on what silicon, or with how many threads.
            ...(silicon === undefined || threads === undefined ? [] : [{ silicon, provider, threads }]),
          ],
        });
      }
    }
    this.#others = others;
    this.revision += 1;
  }

  /** Tables by the digest of the model; those of other models stay. */
  learnProfiles(tables: ReadonlyMap<string, ServiceTable>): void {
    this.#profiles = new Map([...this.#profiles, ...tables]);
    this.revision += 1;
  }

  /** What is known of the run times of a version on a device of this host. */
  ownProfile(device: DeviceId, { config, artifact, variant }: Placement): ServiceProfile | undefined {
    const known = this.#own.get(deviceKey(this.#host, device));
    const table = this.#profiles.get(artifact.digest);
    // Variants have times of their own, and what was served is on record under the exact model.
    if (known === undefined || table === undefined || variant !== undefined) return undefined;
    return liveProfile(table, known.selectors, itemsMaxOf(config))?.profile;
  }

  device(key: string): DeviceFacts {
    const known = this.#own.get(key) ?? this.#others.get(key);
    if (known === undefined) return unknownDevice;
    const { facts, spotZone } = known;
    return spotZone === undefined ? facts : { ...facts, spotHazardPerHour: this.#spot.hazardPerHour(spotZone) };
  }

  replica({ model, version, stages }: Replica): ReplicaFacts {
    const config = this.#table?.catalog.models.get(model)?.served.get(version)?.config;
    const itemsMax = itemsMaxOf(config);
    const facts = { ...unknownReplica, itemsMax };
    const [first] = stages;
    // Of a model in pieces each is timed by itself, and answers tell of all together.
    if (first === undefined || stages.length > 1) return facts;
    const key = deviceKey(first.host, first.device);
    const known = this.#own.get(key) ?? this.#others.get(key);
    const table = this.#profiles.get(first.digest);
    const found =
      known === undefined || table === undefined ? undefined : liveProfile(table, known.selectors, itemsMax);
    return found === undefined ? facts : { ...facts, ...found };
  }
}

/** Items of the largest batch; 1 for a model that takes no batches. */
function itemsMaxOf(config: Pick<ModelConfig, 'maxBatchSize'> | undefined): number {
  return Math.max(1, config?.maxBatchSize ?? 1);
}
