/**
 * The candidates of a grid's routing table, with what is live about them: they outlive the tables, so that a new table
 * forgets neither what is in flight nor who is banned. A replica that is gone is kept while a request is on its way to it.
 */
import type { ArtifactDigest, DeviceId, HostId, ModelName, ModelVersion, ReplicaId } from '../ids.js';
import type { Candidate } from '../picker.js';
import type { PeerStatus } from './host-load.js';
import {
  newDeviceStanding,
  newHostStanding,
  newReplicaStanding,
  type HostStanding,
  type Standing,
} from './standing.js';

interface DeviceEntry {
  readonly host: HostId;
  readonly device: DeviceId;
  readonly standing: Standing;
  ready: boolean;
  readonly candidates: Set<Candidate>;
}

export interface WantedCandidate {
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly digest: ArtifactDigest;
  readonly host: HostId;
  readonly device: DeviceId;
  readonly speed: number;
}

export class GridReplicas {
  readonly #ownHost: HostId;
  readonly #hosts = new Map<HostId, HostStanding>();
  readonly #devices = new Map<string, DeviceEntry>();
  /** The same by their hosts. */
  readonly #devicesOf = new Map<HostId, Map<DeviceId, DeviceEntry>>();
  readonly #models = new Map<ModelName, Map<string, Candidate>>();
  readonly #goneHosts = new Set<HostId>();
  /** Models with replicas that are gone but for a request on its way. */
  readonly #lingering = new Map<ModelName, Set<string>>();

  constructor(ownHost: HostId) {
    this.#ownHost = ownHost;
  }

  /** The candidate of a replica: the one there is, when it is of the same artefact. */
  candidate({ model, version, digest, host, device, speed }: WantedCandidate): Candidate {
    // Checked when its parts came in; a shard's name has a sign that no name of a client may have.
    const id = `${model}/${version}@${host}/${device}` as ReplicaId;
    let ofModel = this.#models.get(model);
    if (ofModel === undefined) this.#models.set(model, (ofModel = new Map<string, Candidate>()));
    const known = ofModel.get(id);
    if (known?.replica.stages[0]?.digest === digest) return known;
    const place = this.#deviceOf(host, device);
    const load = known?.load ?? { itemsInFlight: 0, msPerItem: 0, ready: place.ready };
    const candidate: Candidate = {
      replica: { id, model, version, stages: [{ digest, host, device }] },
      load,
      standing: newReplicaStanding(this.#hostOf(host), place.standing, speed),
    };
    if (known !== undefined) place.candidates.delete(known);
    place.candidates.add(candidate);
    ofModel.set(id, candidate);
    return candidate;
  }

  /** Forgets the model's replicas that are not among these, once nothing is on its way to them. */
  keepOnly(model: ModelName, kept: ReadonlySet<string>): void {
    const ofModel = this.#models.get(model);
    if (ofModel === undefined) return;
    for (const [id, candidate] of ofModel) {
      if (kept.has(id)) continue;
      if (candidate.load.itemsInFlight > 0) this.#linger(model, id);
      else this.#forget(model, id, candidate);
    }
    const lingering = this.#lingering.get(model);
    for (const id of kept) lingering?.delete(id);
  }

  forgetHost(host: HostId): void {
    this.#goneHosts.add(host);
  }

  /** Takes over what a host says of its load: other gateways send there too. */
  learnPeer(host: HostId, { roundTripMs, load, learnedMs }: PeerStatus): void {
    const standing = this.#hosts.get(host);
    if (standing === undefined) return;
    standing.roundTripMs = roundTripMs;
    const devices = this.#devicesOf.get(host);
    if (load === undefined || devices === undefined) return;
    for (const { device, backlogMs } of load.devices) {
      for (const { standing: replica } of devices.get(device)?.candidates ?? []) {
        if (replica === undefined || replica.queueAtMs >= learnedMs) continue;
        replica.queueMs = backlogMs;
        replica.queueAtMs = learnedMs;
      }
    }
  }

  setReady(place: string, ready: boolean): void {
    const entry = this.#devices.get(place);
    if (entry === undefined) {
      // The own host's devices are there before any model is on them.
      const at = this.#ownHost.length + 1;
      this.#deviceOf(this.#ownHost, place.slice(at) as DeviceId).ready = ready;
      return;
    }
    entry.ready = ready;
    for (const { load } of entry.candidates) load.ready = ready;
  }

  /** Lets go of what was only kept for requests that have ended by now. */
  sweep(): void {
    for (const [model, ids] of this.#lingering) {
      for (const id of ids) {
        const candidate = this.#models.get(model)?.get(id);
        if (candidate !== undefined && candidate.load.itemsInFlight > 0) continue;
        ids.delete(id);
        if (candidate !== undefined) this.#forget(model, id, candidate);
      }
      if (ids.size === 0) this.#lingering.delete(model);
    }
    if (this.#goneHosts.size === 0) return;
    for (const [place, { host, device, candidates }] of this.#devices) {
      if (candidates.size > 0 || !this.#goneHosts.has(host)) continue;
      this.#devices.delete(place);
      const devices = this.#devicesOf.get(host);
      devices?.delete(device);
      if (devices?.size === 0) this.#devicesOf.delete(host);
    }
    for (const host of this.#goneHosts) this.#hosts.delete(host);
    this.#goneHosts.clear();
  }

  #linger(model: ModelName, id: string): void {
    const ids = this.#lingering.get(model);
    if (ids === undefined) this.#lingering.set(model, new Set([id]));
    else ids.add(id);
  }

  #forget(model: ModelName, id: string, candidate: Candidate): void {
    const [first] = candidate.replica.stages;
    if (first !== undefined) this.#devices.get(`${first.host}/${first.device}`)?.candidates.delete(candidate);
    const ofModel = this.#models.get(model);
    ofModel?.delete(id);
    if (ofModel?.size === 0) this.#models.delete(model);
  }

  #deviceOf(host: HostId, device: DeviceId): DeviceEntry {
    const place = `${host}/${device}`;
    let entry = this.#devices.get(place);
    if (entry === undefined) {
      entry = { host, device, standing: newDeviceStanding(), ready: true, candidates: new Set() };
      this.#devices.set(place, entry);
      const devices = this.#devicesOf.get(host);
      if (devices === undefined) this.#devicesOf.set(host, new Map([[device, entry]]));
      else devices.set(device, entry);
    }
    return entry;
  }

  #hostOf(host: HostId): HostStanding {
    this.#goneHosts.delete(host);
    let standing = this.#hosts.get(host);
    if (standing === undefined) this.#hosts.set(host, (standing = newHostStanding(host, host === this.#ownHost)));
    return standing;
  }
}
