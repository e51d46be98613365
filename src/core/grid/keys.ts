/**
 * The keys of a grid's records in the coordination store; records.ts says what is under them. A slash inside a name is
 * written `%2F`, so that a key can be taken apart again.
 */
import { intarsiaError } from '../errors.js';
import { hostId, type HostId } from '../ids.js';
import type { Generation } from './records.js';

const gridNamePattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;

/** What a key under `members/` is about. */
export type MemberKey =
  | { readonly kind: 'host' | 'order'; readonly host: HostId }
  | { readonly kind: 'vote'; readonly host: HostId; readonly generation: Generation; readonly voter: HostId };

export interface GridKeys {
  /** Begins all keys of the grid. */
  readonly prefix: string;
  /** Begins what makes a view: hosts, orders, votes. */
  readonly members: string;
  readonly hosts: string;
  readonly orders: string;
  readonly votes: string;
  readonly actuals: string;
  readonly leader: string;
  readonly deployments: string;
  readonly rollouts: string;
  readonly assignments: string;
  readonly models: string;
  readonly served: string;
  readonly events: string;
  readonly verifications: string;
  /** What hosts measured of models, by digest. */
  readonly profiles: string;
  /** How long stages of split models take, by host. */
  readonly stages: string;
  /** What is asked of the devices of a host. */
  readonly demand: string;
  /** Which policy decides, versions of policies, and what gateways saw of the one on trial. */
  readonly policyPointer: string;
  readonly policyVersions: string;
  readonly policySightings: string;
  host(host: HostId): string;
  order(host: HostId): string;
  vote(host: HostId, generation: Generation, voter: HostId): string;
  actual(host: HostId): string;
  deployment(name: string): string;
  rollout(name: string): string;
  assignment(host: HostId): string;
  model(model: string, version: string): string;
  verification(model: string, version: string, split: string): string;
  profile(digest: string, host: HostId): string;
  policyVersion(id: string): string;
  /** The file of that version, in base64. */
  policyArtifact(id: string): string;
  /** Of that version, too: the file that forms batches. */
  policyBatching(id: string): string;
  policySighting(host: HostId): string;
  /** Undefined when the key is not of that shape. */
  parseMember(key: string): MemberKey | undefined;
}

/** @throws INVALID_ARGUMENT when the name cannot be part of a key: 1 to 63 letters, digits and _ . -. */
export function gridKeys(grid: string): GridKeys {
  if (!gridNamePattern.test(grid)) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `grid name ${JSON.stringify(grid.slice(0, 80))} is not valid: 1 to 63 letters, digits and _ . -, starting with a letter or a digit`,
      { length: grid.length },
    );
  }
  const prefix = `/intarsia/${grid}/`;
  const members = `${prefix}members/`;
  const hosts = `${members}hosts/`;
  const orders = `${members}orders/`;
  const votes = `${members}votes/`;
  const under = (folder: string) => (name: string) => `${folder}${written(name)}`;
  const folder = (name: string): string => `${prefix}${name}/`;
  return {
    prefix,
    members,
    hosts,
    orders,
    votes,
    actuals: folder('actual'),
    leader: `${prefix}leader`,
    deployments: folder('deployments'),
    rollouts: folder('rollouts'),
    assignments: folder('assignments'),
    models: folder('models'),
    served: folder('served'),
    events: folder('events'),
    verifications: folder('verifications'),
    profiles: folder('profiles'),
    stages: folder('stages'),
    demand: folder('demand'),
    policyPointer: `${folder('policies')}current`,
    policyVersions: folder('policies/versions'),
    policySightings: folder('policies/sightings'),
    host: under(hosts),
    order: under(orders),
    vote: (host, generation, voter) => `${votes}${written(host)}/${generation}/${written(voter)}`,
    actual: under(folder('actual')),
    deployment: under(folder('deployments')),
    rollout: under(folder('rollouts')),
    assignment: under(folder('assignments')),
    model: (model, version) => `${folder('models')}${written(model)}/${written(version)}`,
    verification: (model, version, split) =>
      `${folder('verifications')}${written(model)}/${written(version)}/${written(split)}`,
    profile: (digest, host) => `${folder('profiles')}${digest}/${written(host)}`,
    policyVersion: under(folder('policies/versions')),
    policyArtifact: under(folder('policies/artefacts')),
    policyBatching: under(folder('policies/batching')),
    policySighting: under(folder('policies/sightings')),
    parseMember: (key) => parseMember(key, members),
  };
}

function parseMember(key: string, members: string): MemberKey | undefined {
  if (!key.startsWith(members)) return undefined;
  const [kind, name, generation, voter, ...more] = key.slice(members.length).split('/');
  const host = read(name);
  if (host === undefined || more.length > 0) return undefined;
  if (voter === undefined) {
    if (generation !== undefined) return undefined;
    if (kind === 'hosts') return { kind: 'host', host };
    return kind === 'orders' ? { kind: 'order', host } : undefined;
  }
  const who = read(voter);
  if (kind !== 'votes' || who === undefined || !/^[1-9][0-9]{0,15}$/.test(generation ?? '')) return undefined;
  return { kind: 'vote', host, generation: Number(generation), voter: who };
}

function written(name: string): string {
  return name.replaceAll('/', '%2F');
}

function read(text: string | undefined): HostId | undefined {
  if (text === undefined) return undefined;
  try {
    return hostId(text.replaceAll('%2F', '/'));
  } catch {
    // Somebody else's key under our prefix: not a host's name.
    return undefined;
  }
}
