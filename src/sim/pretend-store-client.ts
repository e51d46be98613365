/** One host's client of the pretend store: the Store port, with both legs of every call on the virtual clock. */
import { intarsiaError, messageOf } from '#core/errors.js';
import type { IntarsiaError } from '#core/errors.js';
import { isInRange } from '#core/store/byte-text.js';
import type { StoreMachine } from '#core/store/machine.js';
import { checkedKey, prefixRange, textEntry, txnOf } from '#core/store/port-shapes.js';
import { StoreRefusal } from '#core/store/requests.js';
import type { Clock, Timer } from '#ports/clock.js';
import { storeKeyBytesMax, storeValueBytesMax } from '#ports/store.js';
import type {
  Store,
  StoreCallOptions,
  StoreEntry,
  StoreLease,
  StoreSnapshot,
  StoreTransaction,
  StoreTransactionOutcome,
  StoreWatch,
  StoreWatchEvent,
} from '#ports/store.js';
import { PretendLease } from './pretend-store-lease.js';
import { PretendWatch } from './pretend-store-watch.js';
import type { PretendStoreParty, PretendStoreWorld, StoreNews } from './pretend-store-world.js';

const bounds = { keyBytesMax: storeKeyBytesMax, valueBytesMax: storeValueBytesMax };

export class PretendStoreClient implements Store, PretendStoreParty {
  readonly host: string;
  readonly clock: Clock;
  readonly world: PretendStoreWorld;
  private readonly watches = new Set<PretendWatch>();
  private readonly leases = new Set<PretendLease>();
  private readonly calls = new Set<(error: IntarsiaError) => void>();
  private cluster: string | undefined;
  private gone: 'closed' | 'crashed' | undefined;

  constructor(world: PretendStoreWorld, host: string, clock: Clock) {
    this.world = world;
    this.host = host;
    this.clock = clock;
  }

  async get(
    key: string,
    options: StoreCallOptions,
  ): Promise<{ readonly revision: number; readonly entry: StoreEntry | undefined }> {
    const bytes = checkedKey(key, storeKeyBytesMax);
    return this.call(options, (machine) => {
      const entry = machine.range({ key: bytes, end: '' }).entries[0];
      return { revision: machine.revision, entry: entry === undefined ? undefined : textEntry(entry) };
    });
  }

  async range(prefix: string, options: StoreCallOptions): Promise<StoreSnapshot> {
    return this.call(options, (machine) => ({
      revision: machine.revision,
      entries: machine.range(prefixRange(prefix)).entries.map(textEntry),
    }));
  }

  async transact(transaction: StoreTransaction, options: StoreCallOptions): Promise<StoreTransactionOutcome> {
    const txn = txnOf(transaction, bounds);
    const broken = this.world.takeOutcome(this.host);
    return this.call(
      options,
      (machine) => {
        if (txn.success.length > 0) this.checkRoom();
        const { answer, revision } = machine.transact(txn);
        return { ok: answer.succeeded, revision };
      },
      broken,
    );
  }

  watch(prefix: string, fromRevision: number, onEvent: (event: StoreWatchEvent) => void): StoreWatch {
    const { key, end } = prefixRange(prefix);
    const covers = (candidate: string): boolean => isInRange(candidate, key, end);
    const watch = new PretendWatch(this, { covers, fromRevision, onEvent, cluster: this.cluster });
    this.watches.add(watch);
    watch.pump();
    return watch;
  }

  async lease(ttlMs: number, onLost: (reason: string) => void, options: StoreCallOptions): Promise<StoreLease> {
    const sentMs = this.clock.nowMs();
    const { id, ttlSeconds } = await this.call(options, (machine) => {
      this.checkRoom();
      const lease = this.world.newLeaseId();
      const seconds = Math.max(1, Math.ceil(ttlMs / 1000));
      machine.grant(lease, seconds, this.world.clock.nowMs());
      return { id: lease, ttlSeconds: seconds };
    });
    const lease = new PretendLease(this, { id, ttlMs: ttlSeconds * 1000, sentMs, onLost });
    this.leases.add(lease);
    return lease;
  }

  async close(): Promise<void> {
    this.end('closed');
    for (const fail of this.calls) fail(this.closedError());
    this.calls.clear();
    return Promise.resolve();
  }

  /** Ends without a word: no callback is called again and no call under way is ever answered. */
  crash(): void {
    this.end('crashed');
    this.calls.clear();
  }

  /** One request and its answer, each taking its time. */
  call<Result>(
    options: StoreCallOptions,
    work: (machine: StoreMachine) => Result,
    broken?: 'outcome-unknown' | 'request-lost',
  ): Promise<Result> {
    return new Promise<Result>((resolve, reject) => this.send(options, work, { resolve, reject }, broken));
  }

  /** The same without a promise, for what must go on while only the clock runs. */
  send<Result>(
    options: StoreCallOptions,
    work: (machine: StoreMachine) => Result,
    answer: { readonly resolve: (result: Result) => void; readonly reject: (error: unknown) => void },
    broken?: 'outcome-unknown' | 'request-lost',
  ): void {
    if (this.gone === 'crashed') return;
    if (this.gone === 'closed') {
      answer.reject(this.closedError());
      return;
    }
    const settle = (end: () => void): void => {
      if (!this.calls.delete(fail)) return;
      deadline.cancel();
      end();
    };
    const fail = (error: IntarsiaError): void => settle(() => answer.reject(error));
    const deadline: Timer = this.clock.scheduleAt(options.deadlineMs, () =>
      fail(intarsiaError('DEADLINE_EXCEEDED', 'the coordination store did not answer before the deadline')),
    );
    this.calls.add(fail);
    const { clock } = this.world;
    clock.schedule(this.world.latencyMs(), () => {
      if (!this.calls.has(fail) || this.isAbsent(fail) || broken === 'request-lost') return;
      const end = this.attempt(work, answer);
      this.world.changed();
      if (broken === 'outcome-unknown') return;
      clock.schedule(this.world.latencyMs(), () => {
        if (!this.calls.has(fail) || this.isAbsent(fail)) return;
        settle(end);
      });
    });
  }

  /** Something changed: sends every watch what it has not seen. */
  pump(news: StoreNews): void {
    for (const watch of this.watches) watch.follow(news);
  }

  disconnect(): void {
    for (const watch of this.watches) watch.disconnect();
  }

  /** How many there were. */
  breakWatches(): number {
    const watches = [...this.watches];
    for (const watch of watches) watch.lose('changes were missed');
    return watches.length;
  }

  leaseIds(): string[] {
    return [...this.leases].map((lease) => lease.id);
  }

  forget(part: StoreWatch | StoreLease): void {
    if (part instanceof PretendWatch) this.watches.delete(part);
    else if (part instanceof PretendLease) this.leases.delete(part);
  }

  /** Notes which store answers; another one than before ends every watch and every lease. */
  meet(machine: StoreMachine): void {
    if (this.cluster === machine.cluster) return;
    const before = this.cluster;
    this.cluster = machine.cluster;
    if (before === undefined) return;
    for (const watch of [...this.watches]) watch.lose('the store is another one: it was wiped or replaced');
    for (const lease of [...this.leases]) lease.lose('the store is another one: it was wiped or replaced');
  }

  /** What was thrown at the store, as the port says it. */
  private attempt<Result>(
    work: (machine: StoreMachine) => Result,
    answer: { readonly resolve: (result: Result) => void; readonly reject: (error: unknown) => void },
  ): () => void {
    const { machine } = this.world;
    try {
      const result = work(machine);
      return () => {
        this.meet(machine);
        answer.resolve(result);
      };
    } catch (thrown) {
      return () => answer.reject(thrown instanceof StoreRefusal ? portError(thrown) : thrown);
    }
  }

  private isAbsent(fail: (error: IntarsiaError) => void): boolean {
    const absence = this.world.absenceOf(this.host);
    if (absence === undefined) return false;
    this.world.noteAbsence(absence);
    if (absence === 'refused') {
      fail(intarsiaError('STORE_UNAVAILABLE', 'the coordination store cannot be reached', { host: this.host }));
    }
    return true;
  }

  private checkRoom(): void {
    if (this.world.refusesWrites()) throw intarsiaError('STORAGE_FULL', 'the disk of the coordination store is full');
  }

  private end(how: 'closed' | 'crashed'): void {
    this.gone ??= how;
    for (const watch of [...this.watches]) watch.cancel();
    for (const lease of [...this.leases]) lease.abandon();
  }

  private closedError(): IntarsiaError {
    return intarsiaError('STORE_UNAVAILABLE', 'the client of the coordination store is closed');
  }
}

function portError(refusal: StoreRefusal): IntarsiaError {
  switch (refusal.status) {
    case 'RESOURCE_EXHAUSTED':
      return intarsiaError('STORAGE_FULL', messageOf(refusal));
    case 'NOT_FOUND':
      return intarsiaError('NOT_FOUND', messageOf(refusal));
    default:
      return intarsiaError('INVALID_ARGUMENT', messageOf(refusal));
  }
}
