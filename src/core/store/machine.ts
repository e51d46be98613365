/**
 * The state of a coordination store: keys with revisions, transactions, leases, history and compaction, with etcd's rules.
 * Pure and synchronous. What changes it returns a record; whoever keeps the store writes the record down before anybody
 * hears of the change, and applying the records in order to an empty machine makes the same state again.
 *
 * It leaves to others: bytes on a wire, files, clocks (moments are handed in), and who watches.
 */
import { intarsiaError, invariant, unreachable } from '../errors.js';
import { KeyHistories } from './key-histories.js';
import { LeaseTable, leaseTtlSecondsMax } from './lease-table.js';
import { StoreRefusal } from './requests.js';
import type {
  Mutation,
  Operation,
  OperationAnswer,
  RangeAnswer,
  RangeQuery,
  StoredVersion,
  StoreRecord,
  Txn,
  TxnAnswer,
} from './requests.js';
import { checkTxn, compareHolds, pickEntries } from './txn-rules.js';

export interface StoreLimits {
  /** Bytes of keys and values with their history; beyond it puts are refused as etcd does at its quota. */
  readonly bytesMax: number;
  /** Revisions of history that an automatic compaction leaves. */
  readonly historyRevisions: number;
  /** Leases at a time. */
  readonly leasesMax: number;
  /** Operations or conditions of one transaction. */
  readonly operationsMax: number;
}

export const storeLimitsDefault: StoreLimits = {
  bytesMax: 256 * 1_048_576,
  historyRevisions: 10_000,
  leasesMax: 20_000,
  operationsMax: 128,
};

/** A change of one key, with what was there before (while history knows it). */
export interface StoreEvent {
  readonly type: 'put' | 'delete';
  /** Of a deletion: its key and revision, nothing else. */
  readonly entry: StoredVersion;
  readonly previous: StoredVersion | undefined;
}

export interface TxnResult {
  readonly answer: TxnAnswer;
  /** Of the store when the transaction was done. */
  readonly revision: number;
  /** Undefined when nothing changed. */
  readonly record: StoreRecord | undefined;
}

const noBytes = new Uint8Array(0);

export class StoreMachine {
  readonly limits: StoreLimits;
  /** Tells this store from another one that has the same address: a wiped store has another. Decimal, 64 bits. */
  cluster: string;
  private readonly histories = new KeyHistories();
  private readonly leases = new LeaseTable();
  /** Keys that changed, by revision; revisions without keys have none. From the compacted revision on. */
  private changes: { readonly revision: number; readonly keys: readonly string[] }[] = [];
  private currentRevision = 1;
  private compacted = 0;

  constructor(cluster: string, limits: Partial<StoreLimits> = {}) {
    this.cluster = cluster;
    this.limits = { ...storeLimitsDefault, ...limits };
  }

  get revision(): number {
    return this.currentRevision;
  }

  /** History before this revision is gone; 0 when it is whole. */
  get compactedRevision(): number {
    return this.compacted;
  }

  /** Bytes of keys and values with their history. */
  get bytes(): number {
    return this.histories.bytes;
  }

  /** @throws StoreRefusal OUT_OF_RANGE for a revision that is compacted or still to come */
  range(query: RangeQuery): RangeAnswer {
    if (query.key === '') throw new StoreRefusal('INVALID_ARGUMENT', 'key is not provided');
    const revision = query.revision ?? 0;
    if (revision > this.currentRevision) {
      throw new StoreRefusal('OUT_OF_RANGE', 'mvcc: required revision is a future revision');
    }
    if (revision > 0 && revision < this.compacted) throw compactedRefusal();
    return pickEntries(this.histories.range(query.key, query.end, revision > 0 ? revision : Infinity), query);
  }

  /** @throws StoreRefusal; nothing was changed then */
  transact(txn: Txn): TxnResult {
    checkTxn(txn, this.limits.operationsMax);
    const branches = new Map<Txn, boolean>();
    this.choose(txn, branches);
    this.checkWrites(txn, branches);
    const mutations: Mutation[] = [];
    const answer = this.run(txn, branches, mutations);
    if (mutations.length === 0) return { answer, revision: this.currentRevision, record: undefined };
    this.currentRevision += 1;
    this.noteChanges(mutations);
    const record: StoreRecord = { type: 'revision', revision: this.currentRevision, mutations };
    return { answer, revision: this.currentRevision, record };
  }

  /** @throws StoreRefusal FAILED_PRECONDITION (the id is taken), OUT_OF_RANGE, RESOURCE_EXHAUSTED */
  grant(lease: string, ttlSeconds: number, nowMs: number): StoreRecord {
    if (this.leases.has(lease)) throw new StoreRefusal('FAILED_PRECONDITION', 'lease already exists');
    if (ttlSeconds > leaseTtlSecondsMax) throw new StoreRefusal('OUT_OF_RANGE', 'too large lease TTL');
    if (this.leases.size >= this.limits.leasesMax) {
      throw new StoreRefusal('RESOURCE_EXHAUSTED', `too many leases: ${this.leases.size} of ${this.limits.leasesMax}`);
    }
    const record: StoreRecord = { type: 'grant', lease, ttlSeconds: Math.max(1, ttlSeconds) };
    this.apply(record, nowMs);
    return record;
  }

  /** Ends a lease and deletes its keys. @throws StoreRefusal NOT_FOUND */
  revoke(lease: string): StoreRecord {
    const keys = this.leases.find(lease).keys;
    const record: StoreRecord = { type: 'revoke', lease, revision: keys.size > 0 ? this.currentRevision + 1 : 0 };
    this.apply(record, 0);
    return record;
  }

  /** The time to live, seconds, that begins again. @throws StoreRefusal NOT_FOUND */
  keepAlive(lease: string, nowMs: number): number {
    return this.leases.keepAlive(lease, nowMs);
  }

  /** @throws StoreRefusal NOT_FOUND */
  timeToLive(lease: string, nowMs: number): { remainingMs: number; grantedSeconds: number; keys: readonly string[] } {
    const { expiresMs, ttlSeconds, keys } = this.leases.find(lease);
    return { remainingMs: Math.max(0, expiresMs - nowMs), grantedSeconds: ttlSeconds, keys: [...keys].sort() };
  }

  hasLease(lease: string): boolean {
    return this.leases.has(lease);
  }

  leaseIds(): string[] {
    return [...this.leases.all()].map((lease) => lease.id);
  }

  /** Leases whose time is over: revoke them. */
  expired(nowMs: number): string[] {
    return this.leases.expired(nowMs);
  }

  /** When the next lease ends, ms; Infinity without one. */
  nextExpiryMs(): number {
    return this.leases.nextExpiryMs();
  }

  /** Gives every lease more time. */
  extendLeases(durationMs: number): void {
    this.leases.extend(durationMs);
  }

  /** What to keep of leases' times when the same state is made again from its records. */
  leaseMoments(): ReadonlyMap<string, number> {
    return new Map([...this.leases.all()].map((lease) => [lease.id, lease.expiresMs]));
  }

  restoreLeaseMoments(moments: ReadonlyMap<string, number>): void {
    for (const [id, expiresMs] of moments) if (this.leases.has(id)) this.leases.find(id).expiresMs = expiresMs;
  }

  /** Forgets the history before a revision. @throws StoreRefusal OUT_OF_RANGE */
  compact(revision: number): StoreRecord {
    if (revision <= this.compacted) throw compactedRefusal();
    if (revision > this.currentRevision) {
      throw new StoreRefusal('OUT_OF_RANGE', 'mvcc: required revision is a future revision');
    }
    const record: StoreRecord = { type: 'compact', revision };
    this.apply(record, 0);
    return record;
  }

  /** The revision to compact at now to keep history bounded; undefined while it is short enough. */
  compactionDue(): number | undefined {
    const { historyRevisions } = this.limits;
    const from = Math.max(this.compacted, 1);
    const full = this.histories.bytes > this.limits.bytesMax / 2 && this.currentRevision - from > historyRevisions / 10;
    if (full) return this.currentRevision - Math.floor(historyRevisions / 20);
    return this.currentRevision - from > historyRevisions * 1.25 ? this.currentRevision - historyRevisions : undefined;
  }

  /**
   * What happened from a revision on, revision by revision, at most `revisionsMax` of them; undefined when the history no
   * longer reaches back so far.
   */
  eventsFrom(
    revision: number,
    revisionsMax: number,
  ): readonly { readonly revision: number; readonly events: readonly StoreEvent[] }[] | undefined {
    if (revision < this.compacted) return undefined;
    const first = lowerBound(this.changes, revision);
    return this.changes.slice(first, first + revisionsMax).map((change) => ({
      revision: change.revision,
      events: change.keys.map((key) => this.eventAt(key, change.revision)),
    }));
  }

  /** Keys that changed from that revision on, some more than once; undefined when part of that is compacted. */
  changedKeys(fromRevision: number): readonly string[] | undefined {
    if (fromRevision < this.compacted) return undefined;
    const changed: string[] = [];
    for (let index = lowerBound(this.changes, fromRevision); index < this.changes.length; index += 1) {
      changed.push(...(this.changes[index]?.keys ?? []));
    }
    return changed;
  }

  /** Does again what a record says. @throws IntarsiaError INTERNAL when records are missing before it */
  apply(record: StoreRecord, nowMs: number): void {
    switch (record.type) {
      case 'revision':
        this.expectRevision(record.revision);
        this.currentRevision = record.revision;
        for (const mutation of record.mutations) this.mutate(mutation, record.revision);
        this.noteChanges(record.mutations);
        return;
      case 'grant':
        this.leases.grant(record.lease, record.ttlSeconds, nowMs);
        return;
      case 'revoke': {
        const keys = this.leases.remove(record.lease);
        if (record.revision === 0) return;
        this.expectRevision(record.revision);
        this.currentRevision = record.revision;
        const mutations = keys.map((key): Mutation => ({ type: 'delete', key }));
        for (const mutation of mutations) this.mutate(mutation, record.revision);
        this.noteChanges(mutations);
        return;
      }
      case 'compact':
        this.forget(record.revision);
        return;
      case 'base':
        invariant(this.changes.length === 0 && this.currentRevision === 1, 'a base is the first record of a store');
        this.cluster = record.cluster;
        this.currentRevision = record.revision;
        this.compacted = record.revision;
        return;
      case 'entry':
        this.histories.append(record.entry);
        this.leases.attach(record.entry.key, record.entry.lease);
        return;
      default:
        unreachable(record);
    }
  }

  /** Records that make this state again: a base at the compacted revision, the leases, and the history since. */
  *snapshot(): Generator<StoreRecord> {
    const base = Math.max(1, this.compacted);
    yield { type: 'base', cluster: this.cluster, revision: base };
    for (const lease of this.leases.all()) yield { type: 'grant', lease: lease.id, ttlSeconds: lease.ttlSeconds };
    for (const entry of this.histories.range('\0', '\0', base)) yield { type: 'entry', entry };
    for (const { revision, keys } of this.changes) {
      if (revision <= base) continue;
      const mutations = keys.map((key): Mutation => {
        const version = this.histories.at(key, revision);
        return version === undefined
          ? { type: 'delete', key }
          : { type: 'put', key, value: version.value, lease: version.lease };
      });
      yield { type: 'revision', revision, mutations };
    }
  }

  private choose(txn: Txn, branches: Map<Txn, boolean>): void {
    const holds = txn.compares.every((compare) => compareHolds(compare, this.histories));
    branches.set(txn, holds);
    for (const operation of holds ? txn.success : txn.failure) {
      if (operation.type === 'txn') this.choose(operation.txn, branches);
    }
  }

  /** Everything that can refuse the writes of the chosen branches, before the first of them is done. */
  private checkWrites(txn: Txn, branches: ReadonlyMap<Txn, boolean>): void {
    for (const operation of this.chosen(txn, branches)) {
      if (operation.type === 'txn') {
        this.checkWrites(operation.txn, branches);
      } else if (operation.type === 'range') {
        const revision = operation.query.revision ?? 0;
        if (revision > 0 && revision < this.compacted) throw compactedRefusal();
        if (revision > this.currentRevision) {
          throw new StoreRefusal('OUT_OF_RANGE', 'mvcc: required revision is a future revision');
        }
      } else if (operation.type === 'put') {
        this.checkPut(operation);
      }
    }
  }

  private checkPut(put: Operation & { readonly type: 'put' }): void {
    if (put.lease !== '0' && !this.leases.has(put.lease)) {
      throw new StoreRefusal('NOT_FOUND', 'requested lease not found');
    }
    const wantsPresent = put.keepValue === true || put.keepLease === true;
    if (wantsPresent && this.histories.at(put.key) === undefined) {
      throw new StoreRefusal('INVALID_ARGUMENT', 'key not found');
    }
    if (this.histories.bytes + put.key.length + put.value.length > this.limits.bytesMax) {
      throw new StoreRefusal('RESOURCE_EXHAUSTED', 'mvcc: database space exceeded');
    }
  }

  private chosen(txn: Txn, branches: ReadonlyMap<Txn, boolean>): readonly Operation[] {
    return branches.get(txn) === true ? txn.success : txn.failure;
  }

  private run(txn: Txn, branches: ReadonlyMap<Txn, boolean>, mutations: Mutation[]): TxnAnswer {
    const answers = this.chosen(txn, branches).map((operation): OperationAnswer => {
      switch (operation.type) {
        case 'range':
          return this.range(operation.query);
        case 'put':
          return this.put(operation, mutations);
        case 'delete': {
          const doomed = this.histories.range(operation.key, operation.end);
          for (const { key } of doomed) this.do({ type: 'delete', key }, mutations);
          return { type: 'delete', deleted: doomed.length, previous: operation.previous === true ? doomed : [] };
        }
        case 'txn':
          return { type: 'txn', answer: this.run(operation.txn, branches, mutations) };
        default:
          return unreachable(operation);
      }
    });
    return { succeeded: branches.get(txn) === true, answers };
  }

  private put(operation: Operation & { readonly type: 'put' }, mutations: Mutation[]): OperationAnswer {
    const { key } = operation;
    const present = this.histories.at(key);
    const value = operation.keepValue === true ? (present?.value ?? noBytes) : operation.value;
    const lease = operation.keepLease === true ? (present?.lease ?? '0') : operation.lease;
    this.do({ type: 'put', key, value, lease }, mutations);
    return { type: 'put', previous: operation.previous === true ? present : undefined };
  }

  private do(mutation: Mutation, mutations: Mutation[]): void {
    this.mutate(mutation, this.currentRevision + 1);
    mutations.push(mutation);
  }

  private mutate(mutation: Mutation, revision: number): void {
    const { key } = mutation;
    if (mutation.type === 'delete') {
      this.leases.attach(key, '0');
      this.histories.append(tombstone(key, revision));
      return;
    }
    const present = this.histories.at(key);
    this.leases.attach(key, mutation.lease);
    this.histories.append({
      key,
      value: mutation.value,
      createRevision: present?.createRevision ?? revision,
      modRevision: revision,
      version: (present?.version ?? 0) + 1,
      lease: mutation.lease,
    });
  }

  private noteChanges(mutations: readonly Mutation[]): void {
    this.changes.push({ revision: this.currentRevision, keys: mutations.map((mutation) => mutation.key) });
  }

  private eventAt(key: string, revision: number): StoreEvent {
    const entry = this.histories.at(key, revision);
    const previous = this.histories.at(key, revision - 1);
    return entry === undefined
      ? { type: 'delete', entry: tombstone(key, revision), previous }
      : { type: 'put', entry, previous };
  }

  private forget(revision: number): void {
    const kept = lowerBound(this.changes, revision + 1);
    const keys = new Set<string>();
    for (const change of this.changes.slice(0, kept)) for (const key of change.keys) keys.add(key);
    this.histories.compact(keys, revision);
    // The events of the compacted revision itself are still told: who saw everything before it has missed nothing.
    this.changes = this.changes.slice(lowerBound(this.changes, revision));
    this.compacted = revision;
  }

  private expectRevision(revision: number): void {
    if (revision === this.currentRevision + 1) return;
    throw intarsiaError(
      'INTERNAL',
      `the store is at revision ${this.currentRevision} and the next record is of revision ${revision}`,
      { revision: this.currentRevision, next: revision },
    );
  }
}

function tombstone(key: string, revision: number): StoredVersion {
  return { key, value: noBytes, createRevision: 0, modRevision: revision, version: 0, lease: '0' };
}

function compactedRefusal(): StoreRefusal {
  return new StoreRefusal('OUT_OF_RANGE', 'mvcc: required revision has been compacted');
}

function lowerBound(changes: readonly { readonly revision: number }[], revision: number): number {
  let low = 0;
  let high = changes.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((changes[middle]?.revision ?? 0) < revision) low = middle + 1;
    else high = middle;
  }
  return low;
}
