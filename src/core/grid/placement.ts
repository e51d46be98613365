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
  /** Beside those of the whole, by shard. */
  readonly shardConstraints?: readonly (PlacementConstraints | undefined)[];
  readonly tier: Tier | undefined;
  readonly spread: 'host' | 'zone' | 'none';
  /** Where the deployment's copies are already: hosts, once a copy. */
  readonly placed: readonly PlaceHost[];
  /** A device that should be used only when nothing else fits. */
  readonly isAvoided: (device: PlaceDevice, shard: number) => boolean;
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

  /** Why no host takes another copy, by host. */
  refusals(request: PlacementRequest): readonly Refusal[] {
    return [...this.hosts.values()].map((host) => refusalOf(host, request));
  }

  /** Why no host takes one shard. */
  shardRefusals(request: PlacementRequest, shard: number): readonly Refusal[] {
    const { edition, shardBytes, shardConstraints, constraints } = request;
    const one: PlacementRequest = {
      ...request,
      edition: shardEdition(edition, shard, shardBytes.length),
      shardBytes: [shardBytes[shard] ?? 0],
      constraints,
      shardConstraints: [shardConstraints?.[shard]],
    };
    return this.refusals(one);
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
      this.#table.take(best, name, { bytes, assigned: true });
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
    return (this.#eligible[0]?.devices ?? []).some((device) => fits(device, edition, bytes));
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
      if (copies >= least || !fits(device, edition, shardBytes[0] ?? 0) || isAvoided(device, 0)) continue;
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
      if (best !== undefined) {
        const order =
          avoided - bestRank[0] ||
          shared - bestRank[1] ||
          domain - bestRank[2] ||
          host - bestRank[3] ||
          absent - bestRank[4] ||
          device.load - best.load;
        // Equal ones stay in the order of the table.
        if (order > 0 || (order === 0 && freeBytes(device) <= freeBytes(best))) continue;
      }
      if (!fits(device, edition, bytes)) continue;
      best = device;
      bestRank = [avoided, shared, domain, host, absent];
    }
    return best;
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
  const further = shardBytes.length === 1 ? (request.shardConstraints?.[0] ?? {}) : {};
  const { record } = host.view;
  const refused = (reason: string, isFinal: boolean, bytesMissing = 0): Refusal => {
    return { host: host.host, reason, bytesMissing, isFinal };
  };
  const objection = hostObjection(record, constraints, tier) || hostObjection(record, further, tier);
  if (objection !== '') return refused(objection, true);
  if (host.devices.length === 0) return refused('it has no devices', true);
  const allowed = host.devices.filter(
    ({ device }) => isDeviceAllowed(device, constraints) && isDeviceAllowed(device, further),
  );
  if (allowed.length === 0) {
    const wanted = [constraints, further]
      .flatMap(({ devices = [], providers = [] }) => [...devices, ...providers])
      .join(' or ');
    const has = host.devices.map(({ device }) => `${device.id} (${device.provider})`).join(', ');
    return refused(`it has ${has}, not ${wanted}`, true);
  }
  const bytes = Math.max(...shardBytes);
  const largest = allowed.reduce((one, other) => (other.device.memoryBytes > one.device.memoryBytes ? other : one));
  if (largest.device.memoryBytes < bytes) {
    const missing = bytes - largest.device.memoryBytes;
    return refused(
      `${edition.includes('#') ? 'the shard' : 'a copy'} takes ${bytes} bytes (${formatBytes(bytes)}) and ${largest.device.id} has ${largest.device.memoryBytes} bytes in all: ${missing} bytes missing`,
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
    else if (place.editions.get(edition)?.assigned === true)
      reasons.push(`${id} has ${edition.includes('#') ? 'that shard' : 'a copy'} already`);
    else {
      const free = freeBytes(place) + (place.editions.get(edition)?.bytes ?? 0);
      const missing = bytes - free;
      bytesMissing = bytesMissing === 0 ? missing : Math.min(bytesMissing, missing);
      reasons.push(
        missing > 0
          ? `${id} has ${formatBytes(Math.max(0, free))} of ${formatBytes(place.device.memoryBytes)} free: ${missing} bytes missing of ${bytes}`
          : `${id} has room for it, but not beside the other shards`,
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
