/**
 * One model version in a grid: which replicas take its requests, which are kept in reserve, what a request must look like,
 * and what the repository index says. Pure; grid-table.ts keeps the state.
 *
 * Replicas of one version on several hosts count together only when they are of the same artefact and take and give the
 * same: a request is checked once, at the gateway. Where hosts differ, the own host's word holds, else the majority's.
 */
import type { CatalogEntry, ModelState, ServedModel, VersionStatus } from '../catalog.js';
import type { ArtifactDigest, DeviceId, HostId, ModelName, ModelVersion } from '../ids.js';
import type { Candidate } from '../picker.js';
import type { ActualReplica, ReplicaState } from './records.js';
import { interfaceOf, type ServedFacts } from './served-facts.js';

/** A replica on another host, and how gladly it is used: 0 gladly, more is worse. */
export type PlacedReplica = ActualReplica & { readonly host: HostId; readonly rank: number };

export interface VersionQuestion {
  readonly model: ModelName;
  readonly version: ModelVersion;
  /** As the own host serves it. */
  readonly own: ServedModel | undefined;
  readonly ownHost: HostId;
  readonly ownRank: (device: DeviceId) => number | undefined;
  readonly replicas: readonly PlacedReplica[];
  readonly factsOf: (fingerprint: string) => ServedFacts | undefined;
  readonly candidate: (digest: ArtifactDigest, host: HostId, device: DeviceId) => Candidate;
}

export interface VersionParts {
  readonly version: ModelVersion;
  /** Absent when nobody serves it. */
  readonly served: ServedModel | undefined;
  /** Those used most gladly: the own host's first, in its order, then by host and device. */
  readonly candidates: readonly Candidate[];
  /** The others, the better first. */
  readonly reserve: readonly Candidate[];
  /** What other hosts say of it while nobody serves it. */
  readonly elsewhere: VersionStatus | undefined;
}

interface Ranked {
  readonly rank: number;
  readonly candidate: Candidate;
}

export function versionParts(question: VersionQuestion): VersionParts {
  const { version, own, ownHost, replicas, candidate } = question;
  const group = alikeReplicas(question);
  const ranked: Ranked[] = [];
  for (const device of own?.devices ?? []) {
    if (own === undefined) break;
    ranked.push({ rank: question.ownRank(device) ?? 0, candidate: candidate(own.digest, ownHost, device) });
  }
  const facts = own ?? group.facts;
  for (const replica of group.replicas) {
    if (facts === undefined) break;
    ranked.push({ rank: replica.rank, candidate: candidate(facts.digest, replica.host, replica.device) });
  }
  const best = ranked.reduce((least, { rank }) => Math.min(least, rank), Infinity);
  const reserve = ranked.filter(({ rank }) => rank > best).sort((a, b) => a.rank - b.rank);
  const served: ServedModel | undefined =
    facts === undefined || ranked.length === 0
      ? undefined
      : {
          ...facts,
          devices: own?.devices ?? [],
          elsewhere: group.replicas.map(({ host, device }) => `${host}/${device}`),
        };
  return {
    version,
    served,
    candidates: ranked.filter(({ rank }) => rank === best).map(taken),
    reserve: reserve.map(taken),
    elsewhere: served === undefined ? statusElsewhere(version, replicas) : undefined,
  };
}

const taken = ({ candidate }: Ranked): Candidate => candidate;

/** The ready replicas on other hosts that count together, in the order of their places. */
function alikeReplicas({ own, replicas, factsOf }: VersionQuestion): {
  readonly facts: ServedFacts | undefined;
  readonly replicas: readonly PlacedReplica[];
} {
  const groups = new Map<string, { readonly facts: ServedFacts; readonly replicas: PlacedReplica[] }>();
  for (const replica of replicas) {
    const facts = replica.state === 'ready' && replica.facts !== undefined ? factsOf(replica.facts) : undefined;
    if (facts === undefined) continue;
    const key = interfaceKey(facts);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { facts, replicas: [replica] });
    else group.replicas.push(replica);
  }
  if (groups.size === 0) return { facts: undefined, replicas: [] };
  const chosen = own === undefined ? majority(groups) : groups.get(interfaceKey(own));
  if (chosen === undefined) return { facts: undefined, replicas: [] };
  chosen.replicas.sort(byPlace);
  return chosen;
}

const interfaces = new WeakMap<ServedFacts, string>();

function interfaceKey(facts: ServedFacts): string {
  let key = interfaces.get(facts);
  if (key === undefined) interfaces.set(facts, (key = interfaceOf(facts)));
  return key;
}

/** The largest group; of equal ones that whose key comes first, so that all gateways choose alike. */
function majority<Group extends { readonly replicas: readonly unknown[] }>(
  groups: ReadonlyMap<string, Group>,
): Group | undefined {
  let best: { readonly key: string; readonly group: Group } | undefined;
  for (const [key, group] of groups) {
    const more = best === undefined ? 1 : group.replicas.length - best.group.replicas.length;
    if (best === undefined || more > 0 || (more === 0 && key < best.key)) best = { key, group };
  }
  return best?.group;
}

function byPlace(a: PlacedReplica, b: PlacedReplica): number {
  if (a.host !== b.host) return a.host < b.host ? -1 : 1;
  return a.device < b.device ? -1 : a.device > b.device ? 1 : 0;
}

const stateOf: Readonly<Record<ReplicaState, ModelState>> = {
  fetching: 'LOADING',
  loading: 'LOADING',
  // Ready over there, but its facts are not here yet.
  ready: 'LOADING',
  unloading: 'UNLOADING',
  failed: 'UNAVAILABLE',
};
const hopeful: readonly ModelState[] = ['LOADING', 'UNLOADING', 'UNAVAILABLE'];

function statusElsewhere(version: ModelVersion, replicas: readonly PlacedReplica[]): VersionStatus | undefined {
  if (replicas.length === 0) return undefined;
  const ordered = [...replicas].sort(byPlace);
  const state = hopeful.find((wanted) => ordered.some((replica) => stateOf[replica.state] === wanted)) ?? 'UNAVAILABLE';
  const told = ordered.find(({ reason }) => reason !== '');
  const reason = told === undefined ? '' : `${told.host}/${told.device}: ${told.reason}`;
  return { version, state, reason, isQuarantined: false };
}

/** A model that a deployment wants while nobody serves it: known, and worth asking for again. */
export function awaitedEntry(name: ModelName, version: ModelVersion): CatalogEntry {
  const reason = 'a deployment wants it and no host serves it at the moment';
  return {
    name,
    versions: [{ version, state: 'UNAVAILABLE', reason, isQuarantined: false }],
    served: new Map(),
    reason: '',
  };
}

/** The catalogue's entry: what the own host says, completed by what is served elsewhere. */
export function mergedEntry(
  name: ModelName,
  own: CatalogEntry | undefined,
  parts: ReadonlyMap<ModelVersion, VersionParts>,
  wantedDefault: ModelVersion | undefined,
): CatalogEntry {
  const versions = new Map<ModelVersion, VersionStatus>(
    (own?.versions ?? []).map((status) => [status.version, status]),
  );
  const served = new Map<ModelVersion, ServedModel>();
  for (const part of parts.values()) {
    const known = versions.get(part.version);
    if (part.served !== undefined) {
      served.set(part.version, part.served);
      // A version whose reload failed here serves as before, and says why.
      const reason = known?.state === 'READY' ? known.reason : '';
      versions.set(part.version, { version: part.version, state: 'READY', reason, isQuarantined: false });
    } else if (part.elsewhere !== undefined && (known === undefined || known.state === 'UNAVAILABLE')) {
      const { state, reason } = part.elsewhere;
      versions.set(part.version, {
        version: part.version,
        state,
        reason: reason === '' ? (known?.reason ?? '') : reason,
        isQuarantined: known?.isQuarantined ?? false,
      });
    }
  }
  const ascending = [...versions.values()].sort((a, b) => Number(a.version) - Number(b.version));
  const sorted = new Map([...served].sort(([a], [b]) => Number(a) - Number(b)));
  const highest = [...sorted.keys()].at(-1);
  const defaultVersion = wantedDefault !== undefined && sorted.has(wantedDefault) ? wantedDefault : highest;
  return {
    name,
    versions: ascending,
    served: sorted,
    ...(defaultVersion === undefined ? {} : { defaultVersion }),
    reason: sorted.size === 0 ? (own?.reason ?? '') : '',
  };
}
