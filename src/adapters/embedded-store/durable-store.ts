/**
 * The machine of the embedded store with its file: nobody hears of a change before it is durable, reads included. Requests
 * that come while the disk is busy share the next write (group commit).
 *
 * When the disk is full, what was not written is undone by reading the file again: writes are refused, reads, watches and
 * keep-alives go on, and the next write tries again. Any other failure of the disk ends the store (`onFatal`): after a
 * failed fsync nobody knows what the file holds.
 */
import { intarsiaError, messageOf } from '#core/errors.js';
import { StoreMachine } from '#core/store/machine.js';
import type { StoreLimits } from '#core/store/machine.js';
import { encodeRecord } from '#core/store/record-codec.js';
import { StoreRefusal } from '#core/store/requests.js';
import type { StoreRecord } from '#core/store/requests.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { Log } from '#ports/log.js';
import { LogFile } from './log-file.js';

export interface DurableStoreOptions {
  readonly folder: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly limits: Partial<StoreLimits>;
  /** The file is begun again with a snapshot when it has grown by so many bytes (and by the snapshot's size). */
  readonly logBytesMax: number;
  /** A new store's identity: 64 random bits, decimal. */
  readonly newCluster: () => string;
  readonly onFatal: (error: unknown) => void;
}

interface Waiter {
  readonly writes: boolean;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Leases are looked at this often, ms. */
const tickMs = 250;
/** A tick that is later than this, ms, means that the store stood still and could hear nobody. */
const standstillMs = 1000;
/** Time without ending leases after a full disk, ms. */
const fullPauseMs = 5000;

export class DurableStore {
  machine: StoreMachine;
  /** What is durable and may be told. */
  durableRevision: number;
  private readonly options: DurableStoreOptions;
  private readonly file: LogFile;
  private readonly listeners = new Set<() => void>();
  private pending: Uint8Array[] = [];
  private waiters: Waiter[] = [];
  private flushing: Promise<void> | undefined;
  private recovering: Promise<void> | undefined;
  private tick: Timer | undefined;
  private lastTickMs: number;
  private fullUntilMs = -Infinity;
  private trimFromMs = -Infinity;
  private ended = false;

  private constructor(options: DurableStoreOptions, file: LogFile, machine: StoreMachine) {
    this.options = options;
    this.file = file;
    this.machine = machine;
    this.durableRevision = machine.revision;
    this.lastTickMs = options.clock.nowMs();
    this.planTick();
  }

  /** @throws FAILED_PRECONDITION when the file is damaged */
  static async open(options: DurableStoreOptions): Promise<DurableStore> {
    const machine = new StoreMachine('0', options.limits);
    const fresh = options.newCluster();
    const { file, cutBytes } = await LogFile.open(
      options.folder,
      () => new StoreMachine(fresh, options.limits).snapshot(),
      (record) => machine.apply(record, options.clock.nowMs()),
    );
    if (cutBytes > 0) {
      options.log.warn('the store file ended in the middle of a write, which is cut off', {
        path: file.path,
        cutBytes,
      });
    }
    return new DurableStore(options, file, machine);
  }

  /** Bytes of the file. */
  get fileBytes(): number {
    return this.file.durableBytes;
  }

  /**
   * Runs one request on the machine; its result comes when everything it can have seen is durable.
   * @throws what the work throws; StoreRefusal RESOURCE_EXHAUSTED when the disk is full, UNAVAILABLE when the store ends
   */
  async run<Result>(
    work: (
      machine: StoreMachine,
      nowMs: number,
    ) => { readonly result: Result; readonly records: readonly StoreRecord[] },
  ): Promise<Result> {
    while (this.recovering !== undefined) await this.recovering;
    if (this.ended) throw new StoreRefusal('UNAVAILABLE', 'the store is ending');
    const { result, records } = work(this.machine, this.options.clock.nowMs());
    for (const record of records) this.pending.push(encodeRecord(record));
    if (records.length > 0 || this.flushing !== undefined) await this.durable(records.length > 0);
    return result;
  }

  /** Called after every change that became durable. Returns what ends it. */
  onDurable(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  /** Writes down what waits and closes the file. */
  async close(): Promise<void> {
    this.ended = true;
    this.tick?.cancel();
    await this.recovering;
    await this.flushing;
    await this.file.close();
  }

  private durable(writes: boolean): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      this.waiters.push({ writes, resolve, reject });
      this.flushing ??= this.flush().finally(() => {
        this.flushing = undefined;
      });
    });
  }

  private async flush(): Promise<void> {
    // One turn later, so that requests of the same turn share the write.
    await Promise.resolve();
    while (this.waiters.length > 0) {
      const { pending, waiters } = this;
      const revision = this.machine.revision;
      this.pending = [];
      this.waiters = [];
      try {
        if (pending.length > 0) await this.file.append(pending);
      } catch (error) {
        await this.undo([...waiters, ...this.waiters], error);
        continue;
      }
      this.durableRevision = revision;
      for (const waiter of waiters) waiter.resolve();
      for (const listener of this.listeners) listener();
      if (pending.length > 0) await this.trim();
    }
  }

  /** Back to what is durable. */
  private async undo(waiters: readonly Waiter[], error: unknown): Promise<void> {
    this.waiters = [];
    this.pending = [];
    const isFull = ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(String((error as NodeJS.ErrnoException).code));
    if (!isFull) {
      this.fail(waiters, error);
      return;
    }
    this.fullUntilMs = this.options.clock.nowMs() + fullPauseMs;
    this.options.log.error('the disk of the store is full: writes are refused', { path: this.file.path });
    this.recovering = this.recover();
    try {
      await this.recovering;
    } catch (recoveryError) {
      this.fail(waiters, recoveryError);
      return;
    } finally {
      this.recovering = undefined;
    }
    for (const { writes, reject } of waiters) {
      reject(
        writes
          ? new StoreRefusal('RESOURCE_EXHAUSTED', 'mvcc: database space exceeded')
          : new StoreRefusal('UNAVAILABLE', 'the disk is full; read again'),
      );
    }
  }

  private async recover(): Promise<void> {
    await this.file.cutBack();
    const machine = new StoreMachine('0', this.options.limits);
    await this.file.reread((record) => machine.apply(record, this.options.clock.nowMs()));
    machine.restoreLeaseMoments(this.machine.leaseMoments());
    this.machine = machine;
  }

  private fail(waiters: readonly Waiter[], error: unknown): void {
    this.ended = true;
    this.tick?.cancel();
    for (const { reject } of waiters) reject(new StoreRefusal('UNAVAILABLE', 'the disk of the store failed'));
    this.options.onFatal(
      intarsiaError('INTERNAL', `the disk of the coordination store failed at ${this.file.path}`, {}, error),
    );
  }

  /** Keeps history and file bounded. Runs between writes, when nothing waits for the disk. */
  private async trim(): Promise<void> {
    const due = this.machine.compactionDue();
    if (due !== undefined && due <= this.durableRevision) this.pending.push(encodeRecord(this.machine.compact(due)));
    const grown = this.file.durableBytes - this.file.snapshotBytes;
    if (grown < this.options.logBytesMax || grown < this.file.snapshotBytes) return;
    if (this.options.clock.nowMs() < this.trimFromMs) return;
    // Whatever is pending is part of the state that is written, and durable with it.
    const { pending, waiters } = this;
    const revision = this.machine.revision;
    const records = [...this.machine.snapshot()];
    this.pending = [];
    this.waiters = [];
    try {
      await this.file.replace(records);
    } catch (error) {
      // The old file is whole and goes on; a snapshot is tried again later.
      this.pending = [...pending, ...this.pending];
      this.waiters = [...waiters, ...this.waiters];
      this.trimFromMs = this.options.clock.nowMs() + fullPauseMs;
      this.options.log.warn('the store file could not begin again with a snapshot', { reason: messageOf(error) });
      return;
    }
    this.durableRevision = revision;
    for (const waiter of waiters) waiter.resolve();
    for (const listener of this.listeners) listener();
  }

  private planTick(): void {
    this.tick = this.options.clock.schedule(tickMs, () => {
      const nowMs = this.options.clock.nowMs();
      const late = nowMs - this.lastTickMs - tickMs;
      if (late > standstillMs) this.machine.extendLeases(late);
      this.lastTickMs = nowMs;
      this.expire(nowMs);
      this.planTick();
    });
  }

  private expire(nowMs: number): void {
    if (this.recovering !== undefined || nowMs < this.fullUntilMs || this.machine.nextExpiryMs() > nowMs) return;
    this.run((machine) => ({
      result: undefined,
      records: machine.expired(nowMs).map((lease) => machine.revoke(lease)),
    })).catch((error: unknown) => {
      // A full disk: the leases are there again and are tried again. Anything else has ended the store already.
      if (!(error instanceof StoreRefusal)) this.options.onFatal(error);
    });
  }
}
