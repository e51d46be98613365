/**
 * Where requests can go: the current routing table, and the device actors behind its candidates.
 *
 * The slow side publishes tables whole and says which device actors exist; the gateway reads `current` once a request and
 * keeps nothing across requests.
 */
import { emptyRoutingTable, deviceKey, type RoutingTable } from '#core/routing-table.js';
import type { Candidate } from '#core/picker.js';
import type { DeviceId, HostId } from '#core/ids.js';
import type { Replica } from '#core/replica.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import type { ActorRef } from '#runtime/actor.js';

/** The part of a device actor's reference that a request needs. */
export type DeviceRef = Pick<ActorRef<DeviceMessage>, 'tell'>;

/** The device of another host, as whoever keeps the links to it knows it; undefined without a link. */
export type RemoteDevices = (host: HostId, device: DeviceId) => DeviceRef | undefined;

export interface Router {
  readonly current: RoutingTable;
  /** The actor of the device where the candidate's requests wait; undefined when there is none. */
  deviceOf(candidate: Candidate): DeviceRef | undefined;
}

/** The router of a host, filled by whoever starts devices and publishes tables. */
export class PublishedRouter implements Router {
  #current: RoutingTable = emptyRoutingTable({ policy: 'none', pick: () => -1 });
  #byReplica = new WeakMap<Replica, DeviceRef>();
  readonly #devices = new Map<string, DeviceRef>();
  #onPublished: ((table: RoutingTable) => void) | undefined;
  #remote: RemoteDevices = () => undefined;

  get current(): RoutingTable {
    return this.#current;
  }

  publish(table: RoutingTable): void {
    this.#current = table;
    this.#onPublished?.(table);
  }

  /** Calls back after each publication, for whoever keeps something for every replica. One listener. */
  onPublished(listener: (table: RoutingTable) => void): void {
    this.#onPublished = listener;
  }

  /** A device came, or came back under another reference. */
  setDevice(host: HostId, device: DeviceId, ref: DeviceRef): void {
    this.#devices.set(deviceKey(host, device), ref);
    this.#byReplica = new WeakMap();
  }

  /** Where devices of other hosts are looked up. Call it again, or `forget`, when what it answered is no longer true. */
  setRemote(remote: RemoteDevices): void {
    this.#remote = remote;
    this.forget();
  }

  /** Looks every device up afresh from now on: a link came or went. */
  forget(): void {
    this.#byReplica = new WeakMap();
  }

  removeDevice(host: HostId, device: DeviceId): void {
    this.#devices.delete(deviceKey(host, device));
    this.#byReplica = new WeakMap();
  }

  deviceOf(candidate: Candidate): DeviceRef | undefined {
    const known = this.#byReplica.get(candidate.replica);
    if (known !== undefined) return known;
    const [first] = candidate.replica.stages;
    if (first === undefined) return undefined;
    const ref = this.#devices.get(deviceKey(first.host, first.device)) ?? this.#remote(first.host, first.device);
    if (ref !== undefined) this.#byReplica.set(candidate.replica, ref);
    return ref;
  }
}
