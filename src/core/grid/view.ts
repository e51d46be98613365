/**
 * Membership from what is in the store: folds its entries and changes into views. The same entries at the same revision
 * give the same view on every host; bad records are left out and told.
 *
 * Hosts that did not change keep their object from view to view. A change costs its own size; a view is made when it is
 * asked for and costs one copy of the table, so whoever publishes should gather changes when hosts are many.
 */
import type { HostId } from '../ids.js';
import type { StoreEntryLike, MemberChange } from './member-change.js';
import type { GridKeys } from './keys.js';
import { readHostOrder, readHostRecord } from './member-text.js';
import type { Generation, HostOrder, HostRecord, View, ViewHost } from './records.js';
import { suspectsOf, type Vote } from './votes.js';

interface Member {
  readonly record: HostRecord;
  readonly generation: Generation;
}

export class MembershipFold {
  readonly #keys: GridKeys;
  readonly #members = new Map<HostId, Member>();
  readonly #orders = new Map<HostId, HostOrder>();
  readonly #votes = new Map<string, Vote>();
  /** Hosts whose entry in the view may be out of date. */
  readonly #touched = new Set<HostId>();
  #suspects: ReadonlySet<HostId> = new Set();
  #votesChanged = false;
  #revision = 0;
  #hosts: ReadonlyMap<HostId, ViewHost> = new Map();
  #problems: string[] = [];

  constructor(keys: GridKeys) {
    this.#keys = keys;
  }

  /** Of the store, up to which everything is folded in. */
  get revision(): number {
    return this.#revision;
  }

  /** Generation of a host's record; undefined when it has none. */
  generationOf(host: HostId): Generation | undefined {
    return this.#members.get(host)?.generation;
  }

  /** The record of a host in the store. */
  recordOf(host: HostId): HostRecord | undefined {
    return this.#members.get(host)?.record;
  }

  /** Forgets everything and starts from a whole read of `members/`. */
  reset(revision: number, entries: readonly StoreEntryLike[]): void {
    for (const host of this.#members.keys()) this.#touched.add(host);
    this.#members.clear();
    this.#orders.clear();
    this.#votes.clear();
    this.#votesChanged = true;
    this.#revision = revision;
    for (const entry of entries) this.#put(entry);
  }

  /** All changes of one revision. Such as were folded in before are passed over. */
  apply(revision: number, changes: readonly MemberChange[]): void {
    if (revision <= this.#revision) return;
    this.#revision = revision;
    for (const change of changes) {
      if (change.type === 'put') this.#put(change.entry);
      else this.#delete(change.key);
    }
  }

  /** Nothing before this revision is still to come. */
  progress(revision: number): void {
    this.#revision = Math.max(this.#revision, revision);
  }

  /** Whether the next view has other hosts than the last one had, or the same ones in another state. */
  get isChanged(): boolean {
    return this.#touched.size > 0 || this.#votesChanged;
  }

  /** The view at this revision. Its hosts are the same map as before when nothing changed. */
  view(): View {
    if (this.isChanged) this.#refresh();
    return { revision: this.#revision, hosts: this.#hosts };
  }

  /** What was wrong with entries since the last call, at most 16 of them. */
  takeProblems(): readonly string[] {
    return this.#problems.splice(0);
  }

  #refresh(): void {
    if (this.#votesChanged || this.#touched.size > 0) this.#countVotes();
    const hosts = new Map(this.#hosts);
    let isOther = false;
    for (const host of this.#touched) {
      const before = hosts.get(host);
      const now = this.#viewHost(host);
      if (now === undefined) isOther = hosts.delete(host) || isOther;
      else if (before === undefined || !isSame(before, now)) {
        hosts.set(host, now);
        isOther = true;
      }
    }
    this.#touched.clear();
    if (isOther) this.#hosts = hosts;
  }

  #countVotes(): void {
    this.#votesChanged = false;
    const before = this.#suspects;
    const generations = new Map<HostId, Generation>();
    if (this.#votes.size > 0) {
      for (const [host, member] of this.#members) generations.set(host, member.generation);
    }
    this.#suspects = this.#votes.size === 0 ? new Set() : suspectsOf([...this.#votes.values()], generations);
    for (const host of before) if (!this.#suspects.has(host)) this.#touched.add(host);
    for (const host of this.#suspects) if (!before.has(host)) this.#touched.add(host);
  }

  #viewHost(host: HostId): ViewHost | undefined {
    const member = this.#members.get(host);
    if (member === undefined) return undefined;
    const order = this.#orders.get(host);
    const isDraining = member.record.draining === true || order?.draining === true;
    const rest = isDraining ? 'draining' : 'up';
    return {
      record: member.record,
      generation: member.generation,
      state: this.#suspects.has(host) ? 'suspected' : rest,
      cordoned: isDraining || order?.cordoned === true,
    };
  }

  #put(entry: StoreEntryLike): void {
    const key = this.#keys.parseMember(entry.key);
    if (key === undefined) {
      this.#problem(`${entry.key} is not a key of a member`);
      return;
    }
    const { host } = key;
    if (key.kind === 'vote') {
      const { generation, voter } = key;
      this.#votes.set(entry.key, { target: host, generation, voter, revision: entry.createRevision });
      this.#votesChanged = true;
      return;
    }
    if (key.kind === 'order') {
      const order = readHostOrder(entry.value);
      if (order.ok) this.#orders.set(host, order.value);
      else this.#spoilt(entry.key, order.problem, this.#orders, host);
    } else {
      const record = readHostRecord(entry.value, host);
      if (record.ok) this.#members.set(host, { record: record.value, generation: entry.createRevision });
      else this.#spoilt(entry.key, record.problem, this.#members, host);
    }
    this.#touched.add(host);
  }

  #delete(text: string): void {
    const key = this.#keys.parseMember(text);
    if (key === undefined) return;
    if (key.kind === 'vote') {
      this.#votesChanged = this.#votes.delete(text) || this.#votesChanged;
      return;
    }
    if (key.kind === 'order') this.#orders.delete(key.host);
    else this.#members.delete(key.host);
    this.#touched.add(key.host);
  }

  #spoilt(key: string, problem: string, table: Map<HostId, unknown>, host: HostId): void {
    table.delete(host);
    this.#problem(`${key} cannot be read: ${problem}`);
  }

  #problem(text: string): void {
    if (this.#problems.length < 16) this.#problems.push(text);
  }
}

function isSame(left: ViewHost, right: ViewHost): boolean {
  return (
    left.record === right.record &&
    left.generation === right.generation &&
    left.state === right.state &&
    left.cordoned === right.cordoned
  );
}
