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
  isAvoided(device: PlaceDevice): boolean;
  /** A device that has the edition already, or is getting it. */
  isThere(device: PlaceDevice): boolean;
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

  constructor(hosts: readonly PlaceHost[]) {
    this.hosts = new Map(hosts.map((host) => [host.host, host]));
  }

  device(host: HostId, device: DeviceId): PlaceDevice | undefined {
    return this.hosts.get(host)?.devices.find((one) => one.device.id === device);
  }

  /** Writes down that an edition is on a device; the larger size counts when it is said twice. */
  take(device: PlaceDevice, edition: string, { bytes, assigned }: PlacedEdition): void {
    const before = device.editions.get(edition);
    const now = Math.max(before?.bytes ?? 0, bytes);
    device.editions.set(edition, { bytes: now, assigned: assigned || before?.assigned === true });
    device.takenBytes += now - (before?.bytes ?? 0);
  }

  /** A search for places of one deployment; its candidates are gathered once. */
  search(request: PlacementRequest): PlacementSearch {
    return new PlacementSearch(this, request);
  }

  /** Why no host takes another copy, by host. */
  refusals(request: PlacementRequest): readonly Refusal[] {
    return [...this.hosts.values()].map((host) => refusalOf(host, request));
  }
}

/** Of a device that has not the edition: 1. Of one where it failed: 2 more. */
const avoidedCost = 2;

interface Candidate {
  readonly device: PlaceDevice;
  readonly domain: number;
  readonly hostIndex: number;
  readonly cost: number;
}

export class PlacementSearch {
  readonly #table: PlacementTable;
  readonly #request: PlacementRequest;
  readonly #candidates: Candidate[] = [];
  readonly #domains = new Map<string, number>();
  readonly #hostIndexes = new Map<HostId, number>();
  readonly #perDomain: number[] = [];
  readonly #perHost: number[] = [];

  constructor(table: PlacementTable, request: PlacementRequest) {
    this.#table = table;
    this.#request = request;
    for (const host of table.hosts.values()) {
      if (host.closed !== '' || !isHostAllowed(host.view, request.constraints, request.tier)) continue;
      for (const device of host.devices) {
        if (device.closed !== '' || !isDeviceAllowed(device.device, request.constraints)) continue;
        this.#candidates.push({
          device,
          domain: this.#domainOf(host),
          hostIndex: this.#hostOf(host),
          cost: (request.isAvoided(device) ? avoidedCost : 0) + (request.isThere(device) ? 0 : 1),
        });
      }
    }
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
          restore(device, shardEdition(edition, index, shardBytes.length), before[index]);
        }
        return undefined;
      }
      before.push(best.device.editions.get(name));
      this.#table.take(best.device, name, { bytes, assigned: true });
      gang.push(best.device);
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
    const { edition, shardBytes } = this.#request;
    let least = Infinity;
    for (const { device, domain, cost } of this.#candidates) {
      if (cost >= avoidedCost || !fits(device, edition, shardBytes[0] ?? 0)) continue;
      least = Math.min(least, this.#perDomain[domain] ?? 0);
    }
    return least;
  }

  /** Copies of the deployment in the host's domain, and on the host. */
  copiesBeside(host: PlaceHost): readonly [domain: number, host: number] {
    return [this.#perDomain[this.#domainOf(host)] ?? 0, this.#perHost[this.#hostOf(host)] ?? 0];
  }

  #best(wanted: {
    readonly edition: string;
    readonly bytes: number;
    readonly gang: readonly PlaceDevice[];
    readonly mayBeAvoided: boolean;
  }): Candidate | undefined {
    const { edition, bytes, gang, mayBeAvoided } = wanted;
    let best: Candidate | undefined;
    for (const candidate of this.#candidates) {
      if (!mayBeAvoided && candidate.cost >= avoidedCost) continue;
      if (!fits(candidate.device, edition, bytes) || gang.includes(candidate.device)) continue;
      if (best === undefined || this.#isBetter(candidate, best)) best = candidate;
    }
    return best;
  }

  /** Equal ones stay in the order of the table. */
  #isBetter(one: Candidate, other: Candidate): boolean {
    const isOneAvoided = one.cost >= avoidedCost;
    if (isOneAvoided !== other.cost >= avoidedCost) return !isOneAvoided;
    if (this.#request.spread !== 'none') {
      const domains = (this.#perDomain[one.domain] ?? 0) - (this.#perDomain[other.domain] ?? 0);
      if (domains !== 0) return domains < 0;
      const hosts = (this.#perHost[one.hostIndex] ?? 0) - (this.#perHost[other.hostIndex] ?? 0);
      if (hosts !== 0) return hosts < 0;
    }
    if (one.cost !== other.cost) return one.cost < other.cost;
    const load = loadOf(one.device) - loadOf(other.device);
    if (load !== 0) return load < 0;
    return freeBytes(one.device) > freeBytes(other.device);
  }

  #count(host: PlaceHost, change: number): void {
    const domain = this.#domainOf(host);
    const index = this.#hostOf(host);
    this.#perDomain[domain] = (this.#perDomain[domain] ?? 0) + change;
    this.#perHost[index] = (this.#perHost[index] ?? 0) + change;
  }

  #domainOf(host: PlaceHost): number {
    return indexOf(this.#domains, this.#request.spread === 'zone' ? host.view.record.zone : host.host);
  }

  #hostOf(host: PlaceHost): number {
    return indexOf(this.#hostIndexes, host.host);
  }
}

/** The name under which a shard is on a device: a whole model's is the edition itself. */
export function shardEdition(edition: string, shard: number, shards: number): string {
  return shards === 1 ? edition : `${edition}#${shard}`;
}

function indexOf<Key>(indexes: Map<Key, number>, key: Key): number {
  let index = indexes.get(key);
  if (index === undefined) indexes.set(key, (index = indexes.size));
  return index;
}

function loadOf({ editions, device }: PlaceDevice): number {
  return editions.size / (device.speed > 0 ? device.speed : 1);
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

function restore(device: PlaceDevice, edition: string, before: PlacedEdition | undefined): void {
  device.takenBytes -= (device.editions.get(edition)?.bytes ?? 0) - (before?.bytes ?? 0);
  if (before === undefined) device.editions.delete(edition);
  else device.editions.set(edition, before);
}

export function isHostAllowed({ record }: ViewHost, constraints: PlacementConstraints, tier?: Tier): boolean {
  return hostObjection(record, constraints, tier) === '';
}

export function isDeviceAllowed({ provider, id }: GridDevice, constraints: PlacementConstraints): boolean {
  const { providers, devices } = constraints;
  return (providers === undefined || providers.includes(provider)) && (devices === undefined || devices.includes(id));
}

/** What the constraints have against a host; empty: nothing. */
function hostObjection(record: ViewHost['record'], constraints: PlacementConstraints, tier: Tier | undefined): string {
  const { tiers, zones, labels, hosts, spot } = constraints;
  if (record.role !== 'host') return 'it is a gateway only';
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
  const shown = refusals.slice(0, hostsMax).map(({ host, reason }) => `${host}: ${reason}`);
  const more = refusals.length - shown.length;
  return `${shown.join('; ')}${more > 0 ? `; and ${more} hosts more` : ''}`;
}
