/** Why copies find no place: what each host has against one, with the bytes that are missing. */
import type { HostId } from '../ids.js';
import { formatBytes } from '../units.js';
import { smallestForm } from './placement-forms.js';
import { freeBytes, shardEdition, type PlaceDevice, type PlaceHost, type PlacementRequest } from './placement.js';
import { gatewayOnly, hostObjection, isDeviceAllowed } from './placement-rules.js';

/** Why one host does not take a copy. */
export interface Refusal {
  readonly host: HostId;
  readonly reason: string;
  /** Of memory, on the device that lacks the least; 0 when memory is not the reason. */
  readonly bytesMissing: number;
  /** No change of load makes it fit: the constraints exclude it, or its whole memory is too small. */
  readonly isFinal: boolean;
}

type Hosts = ReadonlyMap<HostId, PlaceHost>;

/** Why no host takes another copy, by host. */
export function placementRefusals(hosts: Hosts, request: PlacementRequest): readonly Refusal[] {
  return [...hosts.values()].map((host) => refusalOf(host, request));
}

/** Why no host takes one shard. */
export function shardRefusals(hosts: Hosts, request: PlacementRequest, shard: number): readonly Refusal[] {
  const { edition, shardBytes, shardConstraints, constraints } = request;
  return placementRefusals(hosts, {
    ...request,
    edition: shardEdition(edition, shard, shardBytes.length),
    shardBytes: [shardBytes[shard] ?? 0],
    constraints,
    shardConstraints: [shardConstraints?.[shard]],
  });
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
  const least = (place: PlaceDevice): { readonly bytes: number; readonly what: string } => {
    const form = request.forms === undefined ? undefined : smallestForm(request.forms(place.device));
    const bytes = form?.bytes ?? Math.max(...shardBytes);
    if (form !== undefined && form.variant !== '')
      return { bytes, what: `a copy in its smallest form, ${form.variant},` };
    return { bytes, what: edition.includes('#') ? 'the shard' : 'a copy' };
  };
  const lacking = allowed.map((place) => ({ place, ...least(place), memory: place.device.memoryBytes }));
  const nearest = lacking.reduce((one, other) => (other.memory - other.bytes > one.memory - one.bytes ? other : one));
  if (nearest.memory < nearest.bytes) {
    const { place, bytes, what, memory } = nearest;
    return refused(
      `${what} takes ${bytes} bytes (${formatBytes(bytes)}) and ${place.device.id} has ${memory} bytes in all: ${bytes - memory} bytes missing`,
      true,
      bytes - memory,
    );
  }
  if (host.closed !== '') return refused(host.closed, false);
  const reasons: string[] = [];
  let bytesMissing = 0;
  for (const { place, bytes, what } of lacking) {
    const { id } = place.device;
    if (place.closed !== '') reasons.push(`${id} ${place.closed}`);
    else if (place.editions.get(edition)?.assigned === true)
      reasons.push(`${id} has ${edition.includes('#') ? 'that shard' : 'a copy'} already`);
    else {
      const free = freeBytes(place) + (place.editions.get(edition)?.bytes ?? 0);
      const missing = bytes - free;
      bytesMissing = bytesMissing === 0 ? missing : Math.min(bytesMissing, missing);
      const needed = request.forms === undefined ? `${bytes}` : `${bytes} for ${what}`.replace(/,$/, '');
      reasons.push(
        missing > 0
          ? `${id} has ${formatBytes(Math.max(0, free))} of ${formatBytes(place.device.memoryBytes)} free: ${missing} bytes missing of ${needed}`
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
