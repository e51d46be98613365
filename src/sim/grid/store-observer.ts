/**
 * Looks at a simulated grid's store from outside, change by change: who owns which copy, who wrote it in which epoch, and
 * what hosts say is there. It keeps a mirror for the checks that are made when all is calm.
 */
import { readActual } from '#core/grid/record-text.js';
import type { GridKeys } from '#core/grid/keys.js';
import type { Deployment, HostActual, HostAssignment, HostRecord, RolloutRecord } from '#core/grid/records.js';
import type { HostId } from '#core/ids.js';
import type { Store, StoreChange, StoreEntry } from '#ports/store.js';
import type { Violations } from './violations.js';

interface Assigned {
  readonly record: HostAssignment;
  readonly revision: number;
}

/** Assignments of a host that are remembered, newest last: what it carries out may be a little behind. */
const rememberedMax = 64;

export class StoreObserver {
  readonly deployments = new Map<string, Deployment>();
  readonly rollouts = new Map<string, RolloutRecord>();
  readonly assignments = new Map<HostId, Assigned>();
  readonly actuals = new Map<HostId, HostActual>();
  /** Transactions of leaders seen, and leaders. */
  changes = 0;
  leaders = 0;
  readonly #keys: GridKeys;
  readonly #violations: Violations;
  readonly #generations = new Map<string, number>();
  readonly #given = new Map<HostId, Assigned[]>();
  /** Host by copy: a number is never used again. */
  readonly #owners = new Map<string, HostId>();
  #leaderEpoch = 0;

  constructor(store: Store, keys: GridKeys, violations: Violations) {
    this.#keys = keys;
    this.#violations = violations;
    this.#watch(store, 1);
  }

  /** A watch that was broken goes on where it was: the store of a simulation keeps its history. */
  #watch(store: Store, fromRevision: number): void {
    let nextRevision = fromRevision;
    store.watch(this.#keys.prefix, fromRevision, (event) => {
      if (event.type === 'lost') this.#watch(store, nextRevision);
      if (event.type !== 'changes') return;
      nextRevision = event.revision + 1;
      this.changes += 1;
      for (const change of event.changes) this.#take(change);
    });
  }

  #take(change: StoreChange): void {
    const key = change.type === 'put' ? change.entry.key : change.key;
    const entry = change.type === 'put' ? change.entry : undefined;
    const keys = this.#keys;
    if (key === keys.leader) this.#onLeader(entry);
    else if (key.startsWith(keys.hosts)) this.#onHost(key.slice(keys.hosts.length), entry);
    else if (key.startsWith(keys.assignments)) this.#onAssignment(key.slice(keys.assignments.length) as HostId, entry);
    else if (key.startsWith(keys.actuals)) this.#onActual(key.slice(keys.actuals.length) as HostId, entry);
    else if (key.startsWith(keys.deployments)) mirror(this.deployments, key.slice(keys.deployments.length), entry);
    else if (key.startsWith(keys.rollouts)) mirror(this.rollouts, key.slice(keys.rollouts.length), entry);
  }

  #onLeader(entry: StoreEntry | undefined): void {
    if (entry === undefined) return;
    if (entry.createRevision <= this.#leaderEpoch) {
      this.#violations.report('one-owner', `epoch ${entry.createRevision} follows epoch ${this.#leaderEpoch}`);
    }
    this.#leaderEpoch = entry.createRevision;
    this.leaders += 1;
  }

  #onHost(host: string, entry: StoreEntry | undefined): void {
    if (entry === undefined) this.#generations.delete(host);
    else {
      const record = JSON.parse(entry.value) as HostRecord;
      this.#generations.set(record.host, entry.createRevision);
    }
  }

  #onAssignment(host: HostId, entry: StoreEntry | undefined): void {
    if (entry === undefined) {
      this.assignments.delete(host);
      return;
    }
    const record = JSON.parse(entry.value) as HostAssignment;
    const assigned = { record, revision: entry.modRevision };
    this.assignments.set(host, assigned);
    const given = this.#given.get(host) ?? [];
    given.push(assigned);
    if (given.length > rememberedMax) given.shift();
    this.#given.set(host, given);
    if (record.epoch !== this.#leaderEpoch) {
      this.#violations.report(
        'one-owner',
        `the assignment of ${host} was written in epoch ${record.epoch} while epoch ${this.#leaderEpoch} leads`,
      );
    }
    for (const { deployment, replica, shard } of record.replicas) {
      const copy = `${deployment}#${replica} shard ${shard}`;
      const owner = this.#owners.get(copy) ?? host;
      this.#owners.set(copy, host);
      if (owner === host) continue;
      this.#violations.report('one-owner', `copy ${copy} belongs to ${owner} and to ${host} in epoch ${record.epoch}`);
    }
  }

  #onActual(host: HostId, entry: StoreEntry | undefined): void {
    if (entry === undefined) {
      this.actuals.delete(host);
      return;
    }
    const actual = readActual(entry.value);
    this.actuals.set(host, actual);
    const { assignmentRevision } = actual;
    const generation = this.#generations.get(host);
    if (assignmentRevision === 0 || generation === undefined) return;
    const given = this.#given.get(host)?.find(({ revision }) => revision === assignmentRevision);
    if (given === undefined) {
      this.#violations.report('one-owner', `${host} carries out assignment ${assignmentRevision}, which nobody wrote`);
    } else if (given.record.generation > generation) {
      this.#violations.report(
        'one-owner',
        `${host} of generation ${generation} carries out an assignment of generation ${given.record.generation}`,
      );
    }
  }
}

function mirror<Value>(map: Map<string, Value>, name: string, entry: StoreEntry | undefined): void {
  if (entry === undefined) map.delete(name);
  else map.set(name, JSON.parse(entry.value) as Value);
}
