/**
 * The routing table: catalogue, candidates of every model version, and the picker, as one immutable snapshot. The slow side
 * publishes a new one when the catalogue or the policy changes; the gateway reads whichever is current.
 *
 * What it does not hold: references to actors. Whoever sends keeps those by `deviceKey`.
 */
import type { Catalog } from './catalog.js';
import { emptyCatalog } from './catalog.js';
import { replicaId, type DeviceId, type HostId, type ModelName, type ModelVersion } from './ids.js';
import type { Candidate, Picker } from './picker.js';
import type { ReplicaLoad } from './replica.js';

export interface RoutingTable {
  readonly catalog: Catalog;
  /** In the model's order of preference. */
  readonly candidates: ReadonlyMap<ModelName, ReadonlyMap<ModelVersion, readonly Candidate[]>>;
  /** Replicas for when none of the candidates can: on devices that are degraded, on hosts that drain or are suspected. */
  readonly reserve?: ReadonlyMap<ModelName, ReadonlyMap<ModelVersion, readonly Candidate[]>>;
  readonly picker: Picker;
}

/** Where a device is, as one text: key of whatever is kept per device. */
export function deviceKey(host: HostId, device: DeviceId): string {
  return `${host}/${device}`;
}

const noCandidates: readonly Candidate[] = [];

/** Replicas that may serve the version; empty when it is not served. */
export function candidatesOf(table: RoutingTable, model: ModelName, version: ModelVersion): readonly Candidate[] {
  return table.candidates.get(model)?.get(version) ?? noCandidates;
}

/** Replicas to try when no candidate can take a request; empty outside of a grid. */
export function reserveOf(table: RoutingTable, model: ModelName, version: ModelVersion): readonly Candidate[] {
  return table.reserve?.get(model)?.get(version) ?? noCandidates;
}

/** A table that serves nothing, for a host that starts. */
export function emptyRoutingTable(picker: Picker): RoutingTable {
  return { catalog: emptyCatalog, candidates: new Map(), picker };
}

/**
 * The live loads that the sender keeps, by replica: they outlive the tables, so that a new table does not forget what is in
 * flight. `begin` and `finish` are called around each request.
 */
export class ReplicaLoads {
  readonly #loads = new Map<string, { readonly load: ReplicaLoad; readonly device: string }>();
  readonly #unready = new Set<string>();

  /** The table for a catalogue whose models are served whole by devices of one host. Forgets replicas that are gone. */
  table(options: { readonly catalog: Catalog; readonly host: HostId; readonly picker: Picker }): RoutingTable {
    const { catalog, host, picker } = options;
    const candidates = new Map<ModelName, ReadonlyMap<ModelVersion, readonly Candidate[]>>();
    const current = new Set<string>();
    for (const [model, entry] of catalog.models) {
      const versions = new Map<ModelVersion, readonly Candidate[]>();
      for (const [version, served] of entry.served) {
        const replicas = served.devices.map((device): Candidate => {
          const id = replicaId(`${model}/${version}@${host}/${device}`);
          current.add(id);
          const stages = [{ digest: served.digest, host, device }];
          return { replica: { id, model, version, stages }, load: this.#loadOf(id, deviceKey(host, device)) };
        });
        versions.set(version, replicas);
      }
      candidates.set(model, versions);
    }
    for (const [id, { load }] of this.#loads) if (!current.has(id) && load.itemsInFlight === 0) this.#loads.delete(id);
    return { catalog, candidates, picker };
  }

  /** A device became able or unable to take requests: applies to every replica on it, now and later. */
  setReady(device: string, ready: boolean): void {
    if (ready) this.#unready.delete(device);
    else this.#unready.add(device);
    for (const entry of this.#loads.values()) if (entry.device === device) entry.load.ready = ready;
  }

  #loadOf(id: string, device: string): ReplicaLoad {
    const known = this.#loads.get(id);
    if (known !== undefined) return known.load;
    const load: ReplicaLoad = { itemsInFlight: 0, msPerItem: 0, ready: !this.#unready.has(device) };
    this.#loads.set(id, { load, device });
    return load;
  }
}

/** Weight of the newest answer in the mean of service times. */
const newestWeight = 0.1;

/** Items were sent to the replica. */
export function beginOnReplica(load: ReplicaLoad, items: number): void {
  load.itemsInFlight += items;
}

/**
 * The replica answered, or failed: `serviceMs` is the time of the run that answered, per item of its batch; undefined leaves
 * the mean as it is.
 */
export function finishOnReplica(load: ReplicaLoad, items: number, msPerItem: number | undefined): void {
  load.itemsInFlight -= items;
  if (msPerItem === undefined) return;
  load.msPerItem = load.msPerItem === 0 ? msPerItem : load.msPerItem + newestWeight * (msPerItem - load.msPerItem);
}
