/**
 * The copies of deployments as the store shows them: what is assigned, seen through membership and what hosts say about it.
 * A copy of which one shard is lost is lost as a whole.
 */
import type { HostId } from '../ids.js';
import type { MemoryDraft, ReconcileOptions } from './reconcile-memory.js';
import type { PlaceDevice, PlaceHost, PlacementTable } from './placement.js';
import type {
  ActualReplica,
  AssignedReplica,
  Edition,
  GridDevice,
  HostActual,
  HostAssignment,
  View,
  ViewHost,
} from './records.js';
import { editionText } from './rollout.js';

export interface Copy {
  readonly deployment: string;
  readonly replica: number;
  readonly edition: Edition;
  /** By shard. */
  readonly places: readonly PlaceDevice[];
  readonly state: 'ready' | 'starting' | 'failed';
  /** Why it failed; empty otherwise. */
  readonly reason: string;
  /** Its host is suspected: it may serve, and nobody counts on it. */
  readonly isSuspected: boolean;
  /** Its hosts, its devices or its own failures say that it should be somewhere else. */
  readonly isToMove: boolean;
  /** Only for its own failures: another place is worth it only where it has not failed. */
  readonly isTainted: boolean;
}

/** What a host says of an edition on a device. */
export type ActualOf = (host: HostId, device: string, edition: string) => ActualReplica | undefined;

export function actualIndex(actuals: ReadonlyMap<HostId, HostActual>): ActualOf {
  const hosts = new Map<HostId, Map<string, ActualReplica>>();
  for (const [host, { replicas }] of actuals) {
    hosts.set(host, new Map(replicas.map((replica) => [`${replica.device} ${editionText(replica)}`, replica])));
  }
  return (host, device, edition) => hosts.get(host)?.get(`${device} ${edition}`);
}

/** Hosts and devices that copies may be placed on, with why some may not be. */
export function placeHosts(view: View, actuals: ReadonlyMap<HostId, HostActual>): readonly PlaceHost[] {
  const names = [...view.hosts.keys()].sort();
  return names.map((host) => placeHost(host, view.hosts.get(host) as ViewHost, actuals.get(host)));
}

function placeHost(host: HostId, view: ViewHost, actual: HostActual | undefined): PlaceHost {
  const place: PlaceHost = { host, view, closed: closedBecause(view), devices: [] };
  const devices = place.devices as PlaceDevice[];
  for (const device of view.record.role === 'host' ? view.record.devices : []) {
    devices.push(placeDevice(place, device, actual?.degraded[device.id]));
  }
  return place;
}

function placeDevice(host: PlaceHost, device: GridDevice, degraded: string | undefined): PlaceDevice {
  const closed = degraded === undefined ? '' : `is out of service: ${degraded}`;
  return { host, device, editions: new Map(), takenBytes: 0, load: 0, closed };
}

function closedBecause({ state, cordoned }: ViewHost): string {
  if (state === 'suspected') return 'its peers cannot reach it';
  if (state === 'draining') return 'it is being drained';
  return cordoned ? 'it is cordoned' : '';
}

export interface CopiesInput {
  readonly table: PlacementTable;
  readonly assignments: ReadonlyMap<HostId, HostAssignment>;
  readonly actualOf: ActualOf;
  readonly draft: MemoryDraft;
  readonly options: ReconcileOptions;
  /** How many shards a copy of an edition has; 1 for a whole model. */
  readonly shardsOf: (edition: Edition) => number;
}

interface Shard {
  readonly replica: AssignedReplica;
  readonly place: PlaceDevice;
}

/** All copies of which every shard is where it was assigned, by deployment and in the order of their numbers. */
export function readCopies(input: CopiesInput): ReadonlyMap<string, readonly Copy[]> {
  const { table, assignments } = input;
  const found = new Map<string, Map<number, Shard[]>>();
  for (const [host, assignment] of assignments) {
    const place = table.hosts.get(host);
    // Another incarnation of the host is another owner.
    if (place?.view.generation !== assignment.generation) continue;
    for (const replica of assignment.replicas) {
      const device = table.device(host, replica.device);
      if (device === undefined) continue;
      let ofDeployment = found.get(replica.deployment);
      if (ofDeployment === undefined) found.set(replica.deployment, (ofDeployment = new Map<number, Shard[]>()));
      const shards = ofDeployment.get(replica.replica);
      if (shards === undefined) ofDeployment.set(replica.replica, [{ replica, place: device }]);
      else shards.push({ replica, place: device });
    }
  }
  const copies = new Map<string, Copy[]>();
  for (const [deployment, gangs] of found) {
    const complete: Copy[] = [];
    for (const [number, shards] of [...gangs].sort(([a], [b]) => a - b)) {
      const [first] = shards;
      if (first === undefined || shards.length !== input.shardsOf(first.replica)) continue;
      shards.sort((a, b) => a.replica.shard - b.replica.shard);
      complete.push(readCopy(deployment, number, first.replica, shards, input));
    }
    copies.set(deployment, complete);
  }
  return copies;
}

function readCopy(
  deployment: string,
  replica: number,
  { model, version }: AssignedReplica,
  shards: readonly { readonly place: PlaceDevice }[],
  { actualOf, draft, options }: CopiesInput,
): Copy {
  const edition: Edition = { model, version };
  const text = editionText(edition);
  let state: Copy['state'] = 'ready';
  let reason = '';
  let isSuspected = false;
  let isLost = false;
  let isDraining = false;
  let isDegraded = false;
  for (const { place } of shards) {
    const { host, view } = place.host;
    const actual = actualOf(host, place.device.id, text);
    if (actual?.deployment === deployment && actual.state === 'failed') {
      state = 'failed';
      reason = `${host}, ${place.device.id}: ${actual.reason}`;
    } else if (state === 'ready' && !(actual?.state === 'ready' && actual.deployment === deployment)) {
      state = 'starting';
    }
    if (place.closed !== '') isDegraded = true;
    if (view.state === 'draining') isDraining = true;
    if (view.state === 'suspected') {
      isSuspected = true;
      isLost = draft.isLost(`${host} ${view.generation}`, options.suspectGraceMs) || isLost;
    }
  }
  const isFailing = !isSuspected && (state === 'failed' || isDegraded);
  const isTainted = isFailing && draft.isTainted(`${deployment} ${replica}`, options.failureGraceMs);
  if (isTainted) for (const { place } of shards) draft.avoid(avoidKey(edition, place), draft.nowMs + options.avoidMs);
  return {
    deployment,
    replica,
    edition,
    places: shards.map(({ place }) => place),
    state: isSuspected && state === 'ready' ? 'starting' : state,
    reason,
    isSuspected,
    isToMove: isLost || isDraining || isTainted,
    isTainted,
  };
}

export function avoidKey(edition: Edition, { host, device }: PlaceDevice): string {
  return `${editionText(edition)} ${host.host} ${device.id}`;
}
