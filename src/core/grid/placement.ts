/**
 * Where copies of models go: a table of devices with what is taken of them, and the search for the best place that fits.
 *
 * A copy is a gang of shards: all are placed or none. The best device is, in this order: one that has not failed this model
 * lately; in the domain (host, zone) with the fewest copies of the deployment; on the host with the fewest; one that has the
 * model already; the one with the fewest copies of anything, for its speed; the one with the most free memory. What is
 * placed already is not looked at again: moving costs, so somebody else must have a reason for it.
 */
import type { DeviceId, HostId } from '../ids.js';
import { formatBytes } from '../units.js';
import type { GridDevice, PlacementConstraints, Tier, ViewHost } from './records.js';

export interface PlacedEdition {
  readonly bytes: number;
  /** False: it is there of itself, or on its way out; a copy may be placed on it without taking more memory. */
  readonly assigned: boolean;
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
  readonly constraints: PlacementConstraints;
  readonly tier: Tier | undefined;
  readonly spread: 'host' | 'zone' | 'none';
  /** Where the deployment's copies are already: hosts, once a copy. */
  readonly placed: readonly PlaceHost[];
  /** A device that should be used only when nothing else fits. */
  readonly isAvoided: (device: PlaceDevice) => boolean;
}

/** Why one host does not take a copy. */
export interface Refusal {
  readonly host: HostId;
  readonly reason: string;
  /** Of memory, on the device that lacks the least; 0 when memory is not the reason. */
  readonly bytesMissing: number;
  /** No change of load makes it fit: the constraints exclude it, or its whole memory is too small. */
  readonly isFinal: boolean;
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
  take(device: PlaceDevice, edition: string, { bytes, assigned }: PlacedEdition): void {
    const before = device.editions.get(edition);
    const now = Math.max(before?.bytes ?? 0, bytes);
    this.#set(device, edition, { bytes: now, assigned: assigned || before?.assigned === true });
  }

  /** Writes down what was on a device before. */
  restore(device: PlaceDevice, edition: string, before: PlacedEdition | undefined): void {
    this.#set(device, edition, before);
  }

  /** A search for places of one deployment. */
  search(request: PlacementRequest): PlacementSearch {
    const { constraints, tier, spread } = request;
    const key = JSON.stringify([constraints, tier, spread]);
    let eligible = this.#eligible.get(key);
    if (eligible === undefined) this.#eligible.set(key, (eligible = this.#gather(request)));
    return new PlacementSearch(this, request, eligible);
  }

  /** Why no host takes another copy, by host. */
  refusals(request: PlacementRequest): readonly Refusal[] {
    return [...this.hosts.values()].map((host) => refusalOf(host, request));
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

  #gather({ constraints, tier, spread }: PlacementRequest): Eligible {
    const devices: PlaceDevice[] = [];
    const domains: number[] = [];
    const hosts: number[] = [];
    const domainNumbers = new Map<string, number>();
    const hostNumbers = new Map<HostId, number>();
    for (const host of this.hosts.values()) {
      // Copies on hosts that take no more are counted too.
      const domain = numberOf(domainNumbers, domainName(host, spread));
      const number = numberOf(hostNumbers, host.host);
      if (host.closed !== '' || !isHostAllowed(host.view, constraints, tier)) continue;
      for (const device of host.devices) {
        if (device.closed !== '' || !isDeviceAllowed(device.device, constraints)) continue;
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

export class PlacementSearch {
  readonly #table: PlacementTable;
  readonly #request: PlacementRequest;
  readonly #eligible: Eligible;
  readonly #perDomain: Int32Array;
  readonly #perHost: Int32Array;

  constructor(table: PlacementTable, request: PlacementRequest, eligible: Eligible) {
    this.#table = table;
    this.#request = request;
    this.#eligible = eligible;
    this.#perDomain = new Int32Array(eligible.domainNumbers.size);
    this.#perHost = new Int32Array(eligible.hostNumbers.size);
    for (const host of request.placed) this.#count(host, 1);
  }

  /** Places one more copy and takes the memory for it; undefined, and nothing changed, when some shard fits nowhere. */
  place(mayBeAvoided = true): Gang | undefined {
    const { edition, shardBytes } = this.#request;
    const gang: PlaceDevice[] = [];
    const before: (PlacedEdition | undefined)[] = [];
    for (const [shard, bytes] of shardBytes.entries()) {
      const name = shardEdition(edition, shard, shardBytes.length);
      const best = this.#best({ edition: name, bytes, gang, mayBeAvoided });
      if (best === undefined) {
        for (const [index, device] of gang.entries()) {
          this.#table.restore(device, shardEdition(edition, index, shardBytes.length), before[index]);
        }
        return undefined;
      }
      before.push(best.editions.get(name));
      this.#table.take(best, name, { bytes, assigned: true });
      gang.push(best);
    }
    for (const host of new Set(gang.map((device) => device.host))) this.#count(host, 1);
    return gang;
  }

  /** A copy has left. */
  leave(host: PlaceHost): void {
    this.#count(host, -1);
  }

  /** Copies in the emptiest domain in which another one fits; Infinity when it fits in none. */
  leastCrowded(): number {
    const { edition, shardBytes, isAvoided } = this.#request;
    const { devices, domains } = this.#eligible;
    let least = Infinity;
    for (const [index, device] of devices.entries()) {
      const copies = this.#perDomain[domains[index] ?? 0] ?? 0;
      if (copies >= least || !fits(device, edition, shardBytes[0] ?? 0) || isAvoided(device)) continue;
      least = copies;
    }
    return least;
  }

  /** Copies of the deployment in the host's domain, and on the host. */
  copiesBeside(host: PlaceHost): readonly [domain: number, host: number] {
    const { domainNumbers, hostNumbers } = this.#eligible;
    const domain = domainNumbers.get(domainName(host, this.#request.spread));
    const number = hostNumbers.get(host.host);
    return [this.#perDomain[domain ?? -1] ?? 0, this.#perHost[number ?? -1] ?? 0];
  }

  /** What is compared first is what costs least to know; whether a device has room is asked only of one that would win. */
  #best(wanted: {
    readonly edition: string;
    readonly bytes: number;
    readonly gang: readonly PlaceDevice[];
    readonly mayBeAvoided: boolean;
  }): PlaceDevice | undefined {
    const { edition, bytes, gang, mayBeAvoided } = wanted;
    const { isAvoided, spread } = this.#request;
    const { devices, domains, hosts } = this.#eligible;
    const there = this.#table.devicesWith(edition);
    let best: PlaceDevice | undefined;
    let bestRank: readonly [avoided: number, domain: number, host: number, there: number] = [0, 0, 0, 0];
    for (let index = 0; index < devices.length; index += 1) {
      const device = devices[index] as PlaceDevice;
      const avoided = isAvoided(device) ? 1 : 0;
      if (avoided === 1 && !mayBeAvoided) continue;
      const domain = spread === 'none' ? 0 : (this.#perDomain[domains[index] as number] as number);
      const host = spread === 'none' ? 0 : (this.#perHost[hosts[index] as number] as number);
      const absent = there.size > 0 && there.has(device) ? 0 : 1;
      if (best !== undefined) {
        const order =
          avoided - bestRank[0] ||
          domain - bestRank[1] ||
          host - bestRank[2] ||
          absent - bestRank[3] ||
          device.load - best.load;
        // Equal ones stay in the order of the table.
        if (order > 0 || (order === 0 && freeBytes(device) <= freeBytes(best))) continue;
      }
      if (!fits(device, edition, bytes) || gang.includes(device)) continue;
      best = device;
      bestRank = [avoided, domain, host, absent];
    }
    return best;
  }

  #count(host: PlaceHost, change: number): void {
    const { domainNumbers, hostNumbers } = this.#eligible;
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

function freeBytes({ device, takenBytes }: PlaceDevice): number {
  return device.memoryBytes - takenBytes;
}

/** A device serves an edition once. What is on it already but of no copy takes no more memory. */
function fits(device: PlaceDevice, edition: string, bytes: number): boolean {
  const there = device.editions.get(edition);
  if (there === undefined) return freeBytes(device) >= bytes;
  return !there.assigned && freeBytes(device) + there.bytes >= bytes;
}

export function isHostAllowed({ record }: ViewHost, constraints: PlacementConstraints, tier?: Tier): boolean {
  return hostObjection(record, constraints, tier) === '';
}

export function isDeviceAllowed({ provider, id }: GridDevice, constraints: PlacementConstraints): boolean {
  const { providers, devices } = constraints;
  return (providers === undefined || providers.includes(provider)) && (devices === undefined || devices.includes(id));
}

const gatewayOnly = 'it is a gateway only';

/** What the constraints have against a host; empty: nothing. */
function hostObjection(record: ViewHost['record'], constraints: PlacementConstraints, tier: Tier | undefined): string {
  const { tiers, zones, labels, hosts, spot } = constraints;
  if (record.role !== 'host') return gatewayOnly;
  if (tier !== undefined && record.tier !== tier) return `its tier is ${record.tier}, not ${tier}`;
  if (tiers?.includes(record.tier) === false) return `its tier is ${record.tier}, not ${tiers.join(' or ')}`;
  if (zones?.includes(record.zone) === false) return `its zone is ${record.zone || 'none'}, not ${zones.join(' or ')}`;
  if (hosts?.includes(record.host) === false) return `it is not ${hosts.join(' or ')}`;
  if (spot === 'never' && record.spot) return 'it is a spot host';
  if (spot === 'only' && !record.spot) return 'it is not a spot host';
  for (const [name, value] of Object.entries(labels ?? {})) {
    const own = Object.hasOwn(record.labels, name) ? record.labels[name] : undefined;
    if (own !== value) return `its label ${name} is ${own ?? 'not set'}, not ${value}`;
  }
  return '';
}

function refusalOf(host: PlaceHost, request: PlacementRequest): Refusal {
  const { constraints, tier, edition, shardBytes } = request;
  const { record } = host.view;
  const refused = (reason: string, isFinal: boolean, bytesMissing = 0): Refusal => {
    return { host: host.host, reason, bytesMissing, isFinal };
  };
  const objection = hostObjection(record, constraints, tier);
  if (objection !== '') return refused(objection, true);
  if (host.devices.length === 0) return refused('it has no devices', true);
  const allowed = host.devices.filter(({ device }) => isDeviceAllowed(device, constraints));
  if (allowed.length === 0) {
    const wanted = [...(constraints.devices ?? []), ...(constraints.providers ?? [])].join(' or ');
    const has = host.devices.map(({ device }) => `${device.id} (${device.provider})`).join(', ');
    return refused(`it has ${has}, not ${wanted}`, true);
  }
  const bytes = Math.max(...shardBytes);
  const largest = allowed.reduce((one, other) => (other.device.memoryBytes > one.device.memoryBytes ? other : one));
  if (largest.device.memoryBytes < bytes) {
    const missing = bytes - largest.device.memoryBytes;
    return refused(
      `a copy takes ${bytes} bytes (${formatBytes(bytes)}) and ${largest.device.id} has ${largest.device.memoryBytes} bytes in all: ${missing} bytes missing`,
      true,
      missing,
    );
  }
  if (host.closed !== '') return refused(host.closed, false);
  const reasons: string[] = [];
  let bytesMissing = 0;
  for (const place of allowed) {
    const { id } = place.device;
    if (place.closed !== '') reasons.push(`${id} ${place.closed}`);
    else if (place.editions.get(edition)?.assigned === true) reasons.push(`${id} has a copy already`);
    else {
      const free = freeBytes(place) + (place.editions.get(edition)?.bytes ?? 0);
      const missing = bytes - free;
      bytesMissing = bytesMissing === 0 ? missing : Math.min(bytesMissing, missing);
      reasons.push(
        missing > 0
          ? `${id} has ${formatBytes(Math.max(0, free))} of ${formatBytes(place.device.memoryBytes)} free: ${missing} bytes missing of ${bytes}`
          : `${id} fits one shard and not all`,
      );
    }
  }
  return refused(reasons.join('; '), false, Math.max(0, bytesMissing));
}

/** The refusals in one text, at most `hostsMax` of them. */
export function refusalsText(refusals: readonly Refusal[], hostsMax = 12): string {
  if (refusals.length === 0) return 'the grid has no hosts';
  // That gateways take no copies goes without saying, as long as somebody else refuses, too.
  const hosts = refusals.filter(({ reason }) => reason !== gatewayOnly);
  const told = hosts.length === 0 ? refusals : hosts;
  const shown = told.slice(0, hostsMax).map(({ host, reason }) => `${host}: ${reason}`);
  const more = told.length - shown.length;
  return `${shown.join('; ')}${more > 0 ? `; and ${more} hosts more` : ''}`;
}
