/**
 * Where copies of models go: a table of devices with what is taken of them, and the search for the best place that fits.
 *
 * A copy is a gang of shards: all are placed or none. The best device is, in this order: one that has not failed this model
 * lately; in the domain (host, zone) with the fewest copies of the deployment; on the host with the fewest; one that has the
 * model already; the one with the fewest copies of anything, for its speed; the one with the most free memory. Of a model
 * that has variants, room and speed are those of the best form that the device has room for. What is placed already is not
 * looked at again: moving costs, so somebody else must have a reason for it.
 */
import type { DeviceId, HostId } from '../ids.js';
import { fittingForm, smallestForm, type FormsOf } from './placement-forms.js';
import { isDeviceAllowed, isHostAllowed } from './placement-rules.js';
import type { AssignedForm, GridDevice, PlacementConstraints, Tier, ViewHost } from './records.js';

export interface PlacedEdition {
  readonly bytes: number;
  /** False: it is there of itself, or on its way out; a copy may be placed on it without taking more memory. */
  readonly assigned: boolean;
  /** Of a model that has variants: which form it is. */
  readonly form?: AssignedForm;
}

/** A device as the search sees it: what is taken of it changes while copies are placed. */
export interface PlaceDevice {
  readonly host: PlaceHost;
  readonly device: GridDevice;
  /** What is on it, assigned or still there. */
  readonly editions: Map<string, PlacedEdition>;
  takenBytes: number;
  /** Editions on it for its speed. */
  load: number;
  /** Why nothing new may be placed on it; empty when it may. */
  closed: string;
}

export interface PlaceHost {
  readonly host: HostId;
  readonly view: ViewHost;
  readonly devices: readonly PlaceDevice[];
  /** Why nothing new may be placed on it; empty when it may. */
  readonly closed: string;
}

export interface PlacementRequest {
  readonly edition: string;
  /** Bytes of each shard; one for a whole model. */
  readonly shardBytes: readonly number[];
  /** Of a whole model that has variants: what a device may have, best first. */
  readonly forms?: FormsOf;
  readonly constraints: PlacementConstraints;
  /** Beside those of the whole, by shard. */
  readonly shardConstraints?: readonly (PlacementConstraints | undefined)[];
  readonly tier: Tier | undefined;
  readonly spread: 'host' | 'zone' | 'none';
  /** Where the deployment's copies are already: hosts, once a copy. */
  readonly placed: readonly PlaceHost[];
  /** A device that should be used only when nothing else fits. */
  readonly isAvoided: (device: PlaceDevice, shard: number) => boolean;
}

export type Gang = readonly PlaceDevice[];

export class PlacementTable {
  readonly hosts: ReadonlyMap<HostId, PlaceHost>;
  readonly #devices = new Map<HostId, ReadonlyMap<string, PlaceDevice>>();
  readonly #withEdition = new Map<string, Set<PlaceDevice>>();
  readonly #eligible = new Map<string, Eligible>();

  constructor(hosts: readonly PlaceHost[]) {
    this.hosts = new Map(hosts.map((host) => [host.host, host]));
    for (const host of hosts) this.#devices.set(host.host, new Map(host.devices.map((one) => [one.device.id, one])));
  }

  device(host: HostId, device: DeviceId): PlaceDevice | undefined {
    return this.#devices.get(host)?.get(device);
  }

  /** Devices that have an edition, assigned or not. */
  devicesWith(edition: string): ReadonlySet<PlaceDevice> {
    return this.#withEdition.get(edition) ?? noDevices;
  }

  /** Writes down that an edition is on a device; the larger size counts when it is said twice. */
  take(device: PlaceDevice, edition: string, { bytes, assigned, form }: PlacedEdition): void {
    const before = device.editions.get(edition);
    const now = Math.max(before?.bytes ?? 0, bytes);
    const known = form ?? before?.form;
    this.#set(device, edition, {
      bytes: now,
      assigned: assigned || before?.assigned === true,
      ...(known === undefined ? {} : { form: known }),
    });
  }

  /** Writes down what was on a device before. */
  restore(device: PlaceDevice, edition: string, before: PlacedEdition | undefined): void {
    this.#set(device, edition, before);
  }

  /** A search for places of one deployment. */
  search(request: PlacementRequest): PlacementSearch {
    const eligible = request.shardBytes.map((_, shard) => this.#eligibleOf(request, shard));
    return new PlacementSearch(this, request, eligible);
  }

  #eligibleOf({ constraints, shardConstraints, tier, spread }: PlacementRequest, shard: number): Eligible {
    const further = shardConstraints?.[shard] ?? {};
    const key = JSON.stringify([constraints, further, tier, spread]);
    let eligible = this.#eligible.get(key);
    if (eligible === undefined)
      this.#eligible.set(key, (eligible = this.#gather([constraints, further], tier, spread)));
    return eligible;
  }

  #set(device: PlaceDevice, edition: string, now: PlacedEdition | undefined): void {
    device.takenBytes += (now?.bytes ?? 0) - (device.editions.get(edition)?.bytes ?? 0);
    const having = this.#withEdition.get(edition);
    if (now === undefined) {
      device.editions.delete(edition);
      having?.delete(device);
    } else {
      device.editions.set(edition, now);
      if (having === undefined) this.#withEdition.set(edition, new Set([device]));
      else having.add(device);
    }
    device.load = device.editions.size / (device.device.speed > 0 ? device.device.speed : 1);
  }

  #gather(
    constraints: readonly PlacementConstraints[],
    tier: Tier | undefined,
    spread: PlacementRequest['spread'],
  ): Eligible {
    const devices: PlaceDevice[] = [];
    const domains: number[] = [];
    const hosts: number[] = [];
    const domainNumbers = new Map<string, number>();
    const hostNumbers = new Map<HostId, number>();
    for (const host of this.hosts.values()) {
      // Copies on hosts that take no more are counted too.
      const domain = numberOf(domainNumbers, domainName(host, spread));
      const number = numberOf(hostNumbers, host.host);
      if (host.closed !== '' || !constraints.every((one) => isHostAllowed(host.view, one, tier))) continue;
      for (const device of host.devices) {
        if (device.closed !== '' || !constraints.every((one) => isDeviceAllowed(device.device, one))) continue;
        devices.push(device);
        domains.push(domain);
        hosts.push(number);
      }
    }
    return { devices, domains: Int32Array.from(domains), hosts: Int32Array.from(hosts), domainNumbers, hostNumbers };
  }
}

/** Devices that constraints allow, with numbers for their domains and hosts: shared by all deployments with the same ones. */
interface Eligible {
  readonly devices: readonly PlaceDevice[];
  /** Of each device: number of its domain, and of its host. */
  readonly domains: Int32Array;
  readonly hosts: Int32Array;
  readonly domainNumbers: ReadonlyMap<string, number>;
  readonly hostNumbers: ReadonlyMap<HostId, number>;
}

const noDevices: ReadonlySet<PlaceDevice> = new Set();
const noneEligible: Eligible = {
  devices: [],
  domains: new Int32Array(),
  hosts: new Int32Array(),
  domainNumbers: new Map(),
  hostNumbers: new Map(),
};

/** Devices looked at, at most, to fit the shards of one copy beside each other once the first choices do not. */
const gangStepsMax = 5_000;

export class PlacementSearch {
  readonly #table: PlacementTable;
  readonly #request: PlacementRequest;
  /** By shard; domains and hosts have the same numbers in all of them. */
  readonly #eligible: readonly Eligible[];
  readonly #perDomain: Int32Array;
  readonly #perHost: Int32Array;
  #steps = 0;

  constructor(table: PlacementTable, request: PlacementRequest, eligible: readonly Eligible[]) {
    this.#table = table;
    this.#request = request;
    this.#eligible = eligible;
    this.#perDomain = new Int32Array(eligible[0]?.domainNumbers.size ?? 0);
    this.#perHost = new Int32Array(eligible[0]?.hostNumbers.size ?? 0);
    for (const host of request.placed) this.#count(host, 1);
  }

  /** Places one more copy and takes the memory for it; undefined, and nothing changed, when some shard fits nowhere. */
  place(mayBeAvoided = true): Gang | undefined {
    const { shardBytes } = this.#request;
    const order = [...shardBytes.keys()];
    if (order.length > 1) {
      // Those with the fewest places first, then the largest.
      const places = (shard: number): number => this.#eligible[shard]?.devices.length ?? 0;
      order.sort((a, b) => places(a) - places(b) || (shardBytes[b] ?? 0) - (shardBytes[a] ?? 0) || a - b);
    }
    this.#steps = 0;
    const found = new Map<number, PlaceDevice>();
    if (!this.#placeFrom(order, 0, found, mayBeAvoided)) return undefined;
    const gang = [...shardBytes.keys()].map((shard) => found.get(shard) as PlaceDevice);
    for (const host of new Set(gang.map((device) => device.host))) this.#count(host, 1);
    return gang;
  }

  /** The shards from `at` on: the best device for each, the next best where what follows finds no place. */
  #placeFrom(order: readonly number[], at: number, found: Map<number, PlaceDevice>, mayBeAvoided: boolean): boolean {
    const { edition, shardBytes } = this.#request;
    const shard = order[at];
    if (shard === undefined) return true;
    const name = shardEdition(edition, shard, shardBytes.length);
    const bytes = shardBytes[shard] ?? 0;
    const tried = new Set<PlaceDevice>();
    for (;;) {
      const best = this.#best({ edition: name, shard, bytes, gang: found, tried, mayBeAvoided });
      if (best === undefined) return false;
      const before = best.editions.get(name);
      const chosen = this.#formOn(best, name);
      if (chosen === undefined) this.#table.take(best, name, { bytes, assigned: true });
      else this.#table.take(best, name, { bytes: chosen.form.bytes, assigned: true, form: chosen.assigned });
      found.set(shard, best);
      if (this.#placeFrom(order, at + 1, found, mayBeAvoided)) return true;
      found.delete(shard);
      this.#table.restore(best, name, before);
      tried.add(best);
      this.#steps += 1;
      if (this.#steps > gangStepsMax) return false;
    }
  }

  /** Whether another copy, of one shard, has a place. Changes nothing. */
  couldPlace(): boolean {
    const { edition, shardBytes } = this.#request;
    const bytes = shardBytes[0] ?? 0;
    return (this.#eligible[0]?.devices ?? []).some((device) => this.#hasRoom(device, edition, bytes));
  }

  /** A copy has left. */
  leave(host: PlaceHost): void {
    this.#count(host, -1);
  }

  /** Copies in the emptiest domain in which another one fits; Infinity when it fits in none. */
  leastCrowded(): number {
    const { edition, shardBytes, isAvoided } = this.#request;
    const { devices, domains } = this.#eligible[0] ?? noneEligible;
    let least = Infinity;
    for (const [index, device] of devices.entries()) {
      const copies = this.#perDomain[domains[index] ?? 0] ?? 0;
      if (copies >= least || !this.#hasRoom(device, edition, shardBytes[0] ?? 0) || isAvoided(device, 0)) continue;
      least = copies;
    }
    return least;
  }

  /** Copies of the deployment in the host's domain, and on the host. */
  copiesBeside(host: PlaceHost): readonly [domain: number, host: number] {
    const { domainNumbers, hostNumbers } = this.#eligible[0] ?? noneEligible;
    const domain = domainNumbers.get(domainName(host, this.#request.spread));
    const number = hostNumbers.get(host.host);
    return [this.#perDomain[domain ?? -1] ?? 0, this.#perHost[number ?? -1] ?? 0];
  }

  /** What is compared first is what costs least to know; whether a device has room is asked only of one that would win. */
  #best(wanted: {
    readonly edition: string;
    readonly shard: number;
    readonly bytes: number;
    /** Where other shards of the copy are. */
    readonly gang: ReadonlyMap<number, PlaceDevice>;
    readonly tried: ReadonlySet<PlaceDevice>;
    readonly mayBeAvoided: boolean;
  }): PlaceDevice | undefined {
    const { edition, shard, bytes, gang, tried, mayBeAvoided } = wanted;
    const { isAvoided, spread } = this.#request;
    const { devices, domains, hosts } = this.#eligible[shard] ?? noneEligible;
    const there = this.#table.devicesWith(edition);
    const others = new Set(gang.values());
    let best: PlaceDevice | undefined;
    let bestLoad = 0;
    let bestRank: readonly [avoided: number, shared: number, domain: number, host: number, there: number] = [
      0, 0, 0, 0, 0,
    ];
    for (let index = 0; index < devices.length; index += 1) {
      const device = devices[index] as PlaceDevice;
      const avoided = isAvoided(device, shard) ? 1 : 0;
      if ((avoided === 1 && !mayBeAvoided) || tried.has(device)) continue;
      // Stages of one copy share a device only where no other takes one of them.
      const shared = others.has(device) ? 1 : 0;
      const domain = spread === 'none' ? 0 : (this.#perDomain[domains[index] as number] as number);
      const host = spread === 'none' ? 0 : (this.#perHost[hosts[index] as number] as number);
      const absent = there.size > 0 && there.has(device) ? 0 : 1;
      const form = this.#formOn(device, edition);
      if (form === undefined && this.#request.forms !== undefined) continue;
      const load = form === undefined ? device.load : loadWith(device, edition, form.form.gain);
      if (best !== undefined) {
        const order =
          avoided - bestRank[0] ||
          shared - bestRank[1] ||
          domain - bestRank[2] ||
          host - bestRank[3] ||
          absent - bestRank[4] ||
          load - bestLoad;
        // Equal ones stay in the order of the table.
        if (order > 0 || (order === 0 && freeBytes(device) <= freeBytes(best))) continue;
      }
      if (form === undefined && !fits(device, edition, bytes)) continue;
      best = device;
      bestLoad = load;
      bestRank = [avoided, shared, domain, host, absent];
    }
    return best;
  }

  /** The form that the device would get; undefined when it has room for none, or the request is not of forms. */
  #formOn(device: PlaceDevice, edition: string): ReturnType<typeof fittingForm> {
    const { forms } = this.#request;
    return forms === undefined ? undefined : fittingForm(forms(device.device), device.device, roomFor(device, edition));
  }

  #hasRoom(device: PlaceDevice, edition: string, bytes: number): boolean {
    const { forms } = this.#request;
    const least = forms === undefined ? bytes : (smallestForm(forms(device.device))?.bytes ?? bytes);
    return fits(device, edition, least);
  }

  #count(host: PlaceHost, change: number): void {
    const { domainNumbers, hostNumbers } = this.#eligible[0] ?? noneEligible;
    const domain = domainNumbers.get(domainName(host, this.#request.spread));
    const number = hostNumbers.get(host.host);
    if (domain !== undefined) this.#perDomain[domain] = (this.#perDomain[domain] ?? 0) + change;
    if (number !== undefined) this.#perHost[number] = (this.#perHost[number] ?? 0) + change;
  }
}

function domainName(host: PlaceHost, spread: PlacementRequest['spread']): string {
  return spread === 'zone' ? host.view.record.zone : host.host;
}

/** The name under which a shard is on a device: a whole model's is the edition itself. */
export function shardEdition(edition: string, shard: number, shards: number): string {
  return shards === 1 ? edition : `${edition}#${shard}`;
}

function numberOf<Key>(numbers: Map<Key, number>, key: Key): number {
  let number = numbers.get(key);
  if (number === undefined) numbers.set(key, (number = numbers.size));
  return number;
}

export function freeBytes({ device, takenBytes }: PlaceDevice): number {
  return device.memoryBytes - takenBytes;
}

/** A device serves an edition once. What is on it already but of no copy takes no more memory. */
function fits(device: PlaceDevice, edition: string, bytes: number): boolean {
  return roomFor(device, edition) >= bytes;
}

/** Bytes for a copy of an edition; below 0 when there is one. */
function roomFor(device: PlaceDevice, edition: string): number {
  const there = device.editions.get(edition);
  if (there === undefined) return freeBytes(device);
  return there.assigned ? -1 : freeBytes(device) + there.bytes;
}

/** Editions on it for its speed once it has this one, too, which runs so many times as fast as the exact model there. */
function loadWith({ editions, device }: PlaceDevice, edition: string, gain: number): number {
  const count = editions.size + (editions.has(edition) ? 0 : 1);
  return count / ((device.speed > 0 ? device.speed : 1) * gain);
}
