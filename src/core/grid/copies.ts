/**
 * The copies of deployments as the store shows them: what is assigned, seen through membership and what hosts say about it.
 * A copy of a split is a gang of shards; one that has lost shards is told apart as broken, and a standby is one shard alone.
 */
import type { HostId } from '../ids.js';
import type { MemoryDraft, ReconcileOptions } from './reconcile-memory.js';
import type { PlaceDevice, PlaceHost, PlacementTable } from './placement.js';
import type {
  ActualReplica,
  AssignedForm,
  AssignedReplica,
  Edition,
  GridDevice,
  HostActual,
  HostAssignment,
  View,
  ViewHost,
} from './records.js';
import { pieceText, type EditionName } from './rollout.js';

export interface Copy {
  readonly deployment: string;
  readonly replica: number;
  readonly edition: Edition;
  /** By shard; of a standby, one. */
  readonly places: readonly PlaceDevice[];
  /** Which shard this is a standby of; undefined for a copy. */
  readonly standby?: number;
  /** Of a whole model that has variants: which form it is. */
  readonly form?: AssignedForm;
  /** Shards of a split that should be somewhere else; empty for a whole model, of which `isToMove` says it. */
  readonly badShards: readonly number[];
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

/** A copy that has just been given its places, by shard. */
export function startingCopy(
  deployment: string,
  replica: number,
  edition: Edition,
  places: readonly PlaceDevice[],
): Copy {
  return {
    deployment,
    replica,
    edition,
    places,
    badShards: [],
    state: 'starting',
    reason: '',
    isSuspected: false,
    isToMove: false,
    isTainted: false,
  };
}

/** The field `form` of a copy or an assignment, where there is something to say. */
export function formField(form: AssignedForm | undefined): { readonly form?: AssignedForm } {
  return form === undefined ? {} : { form };
}

/** A copy of a split of which shards are gone with their host or its incarnation. */
export interface BrokenCopy {
  readonly edition: Edition;
  /** By shard. */
  readonly places: readonly (PlaceDevice | undefined)[];
}

/** What a host says of an edition, or of a shard of it, on a device. */
export type ActualOf = (host: HostId, device: string, piece: string) => ActualReplica | undefined;

export function actualIndex(actuals: ReadonlyMap<HostId, HostActual>): ActualOf {
  const hosts = new Map<HostId, Map<string, ActualReplica>>();
  for (const [host, { replicas }] of actuals) {
    hosts.set(host, new Map(replicas.map((replica) => [`${replica.device} ${pieceText(replica)}`, replica])));
  }
  return (host, device, piece) => hosts.get(host)?.get(`${device} ${piece}`);
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
}

/** What a deployment has. */
export interface Copies {
  /** Complete ones and standbys, in the order of their numbers. */
  readonly copies: readonly Copy[];
  readonly broken: readonly BrokenCopy[];
}

interface Shard {
  readonly replica: AssignedReplica;
  readonly place: PlaceDevice;
}

/** All copies by deployment. A broken one's shards are still on their devices. */
export function readCopies(input: CopiesInput): ReadonlyMap<string, Copies> {
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
  const all = new Map<string, Copies>();
  for (const [deployment, gangs] of found) {
    const copies: Copy[] = [];
    const broken: BrokenCopy[] = [];
    for (const [number, shards] of [...gangs].sort(([a], [b]) => a - b)) {
      const [first] = shards;
      if (first === undefined) continue;
      const { model, version, split, standby } = first.replica;
      const edition: Edition = split === undefined ? { model, version } : { model, version, split };
      const count = standby === true ? 1 : (split?.shards.length ?? 1);
      if (shards.length === count) {
        shards.sort((a, b) => a.replica.shard - b.replica.shard);
        copies.push(readCopy({ deployment, replica: number, edition }, shards, input));
      } else if (split !== undefined) {
        const places = split.shards.map((_, shard) => shards.find((one) => one.replica.shard === shard)?.place);
        broken.push({ edition, places });
      }
    }
    all.set(deployment, { copies, broken });
  }
  return all;
}

function readCopy(
  identity: Pick<Copy, 'deployment' | 'replica' | 'edition'>,
  shards: readonly Shard[],
  { actualOf, draft, options }: CopiesInput,
): Copy {
  const { deployment, replica, edition } = identity;
  let state: Copy['state'] = 'ready';
  let reason = '';
  let isSuspected = false;
  let isToMove = false;
  let isTainted = false;
  const badShards: number[] = [];
  for (const { place, replica: assigned } of shards) {
    const { host, view } = place.host;
    const { shard } = assigned;
    const actual = actualOf(host, place.device.id, pieceText(assigned));
    const isFailed = actual?.deployment === deployment && actual.state === 'failed';
    if (isFailed) {
      state = 'failed';
      reason = `${host}, ${place.device.id}: ${actual.reason}`;
    } else if (place.closed !== '') {
      // What is loaded there is of no use to anybody.
      state = 'failed';
      reason = `${host}, ${place.device.id} ${place.closed}`;
    } else if (state === 'ready' && !(actual?.state === 'ready' && actual.deployment === deployment)) {
      state = 'starting';
    }
    const isShardSuspected = view.state === 'suspected';
    isSuspected ||= isShardSuspected;
    const isLost = isShardSuspected && draft.isLost(`${host} ${view.generation}`, options.suspectGraceMs);
    const isFailing = !isShardSuspected && (isFailed || place.closed !== '');
    const mark = edition.split === undefined ? `${deployment} ${replica}` : `${deployment} ${replica} ${shard}`;
    const isShardTainted = isFailing && draft.isTainted(mark, options.failureGraceMs);
    if (isShardTainted) draft.avoid(avoidKey(assigned, place), draft.nowMs + options.avoidMs);
    isTainted ||= isShardTainted;
    const isBad = isLost || view.state === 'draining' || isShardTainted;
    isToMove ||= isBad;
    if (isBad && edition.split !== undefined) badShards.push(shard);
  }
  const [first] = shards;
  return {
    ...identity,
    places: shards.map(({ place }) => place),
    ...(first?.replica.standby === true ? { standby: first.replica.shard } : {}),
    ...formField(first?.replica.form),
    badShards,
    state: isSuspected && state === 'ready' ? 'starting' : state,
    reason,
    isSuspected,
    isToMove,
    isTainted,
  };
}

/** @param piece An edition, or one shard of it. */
export function avoidKey(piece: EditionName & { readonly shard?: number }, { host, device }: PlaceDevice): string {
  return `${pieceText(piece)} ${host.host} ${device.id}`;
}
