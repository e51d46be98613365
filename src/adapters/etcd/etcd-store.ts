/**
 * The Store port over etcd's API, by the npm package etcd3: for etcd and for the embedded store alike. Of that package only
 * its calls and streams are used. Time limits, keep-alives, reconnects and the search for gaps are here, on the monotonic
 * clock, because the package's own lost leases and watches (etcd3#110, #176) and its deadlines follow the wall clock.
 *
 * A store that was wiped may have the address, the cluster id and in time even the revision of the one before. So every
 * store carries a random mark under a key of its own (`markKey`); another mark means another store.
 */
import { randomUUID } from 'node:crypto';
import { CompareResult, CompareTarget, Etcd3 } from 'etcd3';
import type { IOptions, IRequestOp } from 'etcd3';
import { intarsiaError } from '#core/errors.js';
import type { IntarsiaError } from '#core/errors.js';
import { checkedKey, prefixRange, txnOf } from '#core/store/port-shapes.js';
import type { Clock } from '#ports/clock.js';
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
import type { EtcdConnection } from './etcd-connection.js';
import { portError } from './etcd-errors.js';
import { bufferOf, compareMessage, entryOf, markKey, operationMessage } from './etcd-messages.js';
import { EtcdLeases } from './etcd-leases.js';
import { EtcdWatch } from './etcd-watch.js';

export interface EtcdStoreOptions {
  /** `host:port` or `http(s)://host:port`, at least one, all of one store. */
  readonly endpoints: readonly string[];
  readonly clock: Clock;
  /** PEM texts for TLS; with endpoints that say https. `certificate` and `key` for stores that ask for them. */
  readonly tls?: { readonly authority: string; readonly certificate?: string; readonly key?: string };
  /** For stores that ask for a user and a password; the embedded store takes any user and its token as password. */
  readonly auth?: { readonly username: string; readonly password: string };
  /** Calls under way at most; default 1,000. Beyond it STORE_UNAVAILABLE. */
  readonly callsMax?: number;
}

const bounds = { keyBytesMax: storeKeyBytesMax, valueBytesMax: storeValueBytesMax };
/** Runs the call, no more: retries and circuits are the callers' business. */
const plainPolicy = { execute: async <Result>(call: () => Result): Promise<Awaited<Result>> => await call() };

export class EtcdStore implements Store, EtcdConnection {
  readonly clock: Clock;
  readonly etcd: Etcd3;
  private readonly callsMax: number;
  private readonly leases: EtcdLeases;
  private readonly watches = new Set<EtcdWatch>();
  private readonly calls = new Set<(error: IntarsiaError) => void>();
  private mark: string | undefined;
  private marking: Promise<number> | undefined;
  private closed = false;

  constructor(options: EtcdStoreOptions) {
    if (options.endpoints.length === 0) {
      throw intarsiaError('CONFIG_INVALID', 'a coordination store needs at least one endpoint; got none');
    }
    this.clock = options.clock;
    this.callsMax = options.callsMax ?? 1000;
    this.etcd = new Etcd3(etcdOptions(options));
    this.leases = new EtcdLeases(this);
  }

  async get(
    key: string,
    options: StoreCallOptions,
  ): Promise<{ readonly revision: number; readonly entry: StoreEntry | undefined }> {
    const bytes = bufferOf(checkedKey(key, storeKeyBytesMax));
    const response = await this.call(options, 'read', () => this.etcd.kv.range({ key: bytes }));
    const [entry] = response.kvs;
    return {
      revision: Number(response.header.revision),
      entry: entry === undefined ? undefined : entryOf(entry),
    };
  }

  async range(prefix: string, options: StoreCallOptions): Promise<StoreSnapshot> {
    const { key, end } = prefixRange(prefix);
    const request = { key: bufferOf(key), range_end: bufferOf(end) };
    const response = await this.call(options, 'read', () => this.etcd.kv.range(request));
    const entries = response.kvs.map(entryOf).filter((entry) => entry.key !== markKey);
    return { revision: Number(response.header.revision), entries };
  }

  async transact(transaction: StoreTransaction, options: StoreCallOptions): Promise<StoreTransactionOutcome> {
    const txn = txnOf(transaction, bounds);
    const request = {
      compare: txn.compares.map(compareMessage),
      success: txn.success.map(operationMessage),
      failure: [],
    };
    const writes = txn.success.length > 0 ? 'write' : 'read';
    const response = await this.call(options, writes, () => this.etcd.kv.txn(request));
    return { ok: response.succeeded, revision: Number(response.header.revision) };
  }

  watch(prefix: string, fromRevision: number, onEvent: (event: StoreWatchEvent) => void): StoreWatch {
    const watch = new EtcdWatch(this, { ...prefixRange(prefix), fromRevision, onEvent });
    this.watches.add(watch);
    return watch;
  }

  lease(ttlMs: number, onLost: (reason: string) => void, options: StoreCallOptions): Promise<StoreLease> {
    return this.leases.grant(ttlMs, onLost, options);
  }

  close(): Promise<void> {
    if (this.closed) return Promise.resolve();
    this.closed = true;
    for (const watch of [...this.watches]) watch.cancel();
    this.leases.close();
    for (const fail of this.calls) fail(closedError());
    this.etcd.close();
    return Promise.resolve();
  }

  forget(watch: StoreWatch): void {
    if (watch instanceof EtcdWatch) this.watches.delete(watch);
  }

  /**
   * One call with a deadline on the monotonic clock. Before the first one the store's mark is read.
   * @throws IntarsiaError as the port says
   */
  async call<Result>(options: StoreCallOptions, kind: 'read' | 'write', work: () => Promise<Result>): Promise<Result> {
    return this.timed(options, kind, async (isOver) => {
      if (this.mark === undefined) await this.identify();
      // The deadline may have passed meanwhile: what nobody waits for is not sent.
      if (isOver()) throw intarsiaError('DEADLINE_EXCEEDED', 'the deadline passed before the call was sent');
      return work();
    });
  }

  /**
   * Reads the store's mark, and makes it in a new store. When it is another one than before, every watch and every lease is
   * lost. Returns the store's revision.
   */
  identify(): Promise<number> {
    this.marking ??= this.readMark().finally(() => {
      this.marking = undefined;
    });
    return this.marking;
  }

  private async readMark(): Promise<number> {
    const key = Buffer.from(markKey);
    const fresh: IRequestOp = { request_put: { key, value: Buffer.from(randomUUID()) } };
    const first = await this.etcd.kv.range({ key });
    let { kvs, header } = first;
    if (kvs.length === 0) {
      const made = await this.etcd.kv.txn({
        compare: [{ key, target: CompareTarget.Create, result: CompareResult.Equal, create_revision: '0' }],
        success: [fresh],
        failure: [],
      });
      ({ kvs, header } = await this.etcd.kv.range({ key }));
      if (kvs.length === 0)
        throw intarsiaError('STORE_UNAVAILABLE', `the store's mark ${markKey} went away`, { made: made.succeeded });
    }
    const mark = String(kvs[0]?.value);
    const before = this.mark;
    this.mark = mark;
    if (before !== undefined && before !== mark) {
      const reason = 'the store is another one: it was wiped or replaced';
      for (const watch of [...this.watches]) watch.lose(reason);
      this.leases.loseAll(reason);
    }
    return Number(header.revision);
  }

  private timed<Result>(
    options: StoreCallOptions,
    kind: 'read' | 'write',
    work: (isOver: () => boolean) => Promise<Result>,
  ): Promise<Result> {
    return new Promise<Result>((resolve, reject) => {
      if (this.closed) {
        reject(closedError());
        return;
      }
      if (this.calls.size >= this.callsMax) {
        const message = `${this.calls.size} calls to the coordination store are under way; the limit is ${this.callsMax}`;
        reject(intarsiaError('STORE_UNAVAILABLE', message, { calls: this.calls.size, callsMax: this.callsMax }));
        return;
      }
      const settle = (end: () => void): void => {
        if (!this.calls.delete(fail)) return;
        deadline.cancel();
        end();
      };
      const fail = (error: IntarsiaError): void => settle(() => reject(error));
      const deadline = this.clock.scheduleAt(options.deadlineMs, () =>
        fail(intarsiaError('DEADLINE_EXCEEDED', 'the coordination store did not answer before the deadline')),
      );
      this.calls.add(fail);
      work(() => !this.calls.has(fail)).then(
        (result) => settle(() => resolve(result)),
        (error: unknown) => settle(() => reject(portError(error, kind))),
      );
    });
  }
}

function etcdOptions(options: EtcdStoreOptions): IOptions {
  const policy = plainPolicy as unknown as NonNullable<NonNullable<IOptions['faultHandling']>['global']>;
  const base: IOptions = {
    hosts: [...options.endpoints],
    faultHandling: { host: () => policy, global: policy },
    grpcOptions: {
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.min_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 2000,
      // etcd refuses clients that ask more often than every 5 s.
      'grpc.keepalive_time_ms': 10_000,
      'grpc.keepalive_timeout_ms': 5000,
      // A store that was replaced at the same address is met anew.
      'grpc.use_local_subchannel_pool': 1,
    },
  };
  if (options.auth !== undefined) base.auth = { ...options.auth };
  if (options.tls !== undefined) {
    const { authority, certificate, key } = options.tls;
    base.credentials = { rootCertificate: Buffer.from(authority) };
    if (key !== undefined) base.credentials.privateKey = Buffer.from(key);
    if (certificate !== undefined) base.credentials.certChain = Buffer.from(certificate);
  }
  return base;
}

function closedError(): IntarsiaError {
  return intarsiaError('STORE_UNAVAILABLE', 'the client of the coordination store is closed');
}
