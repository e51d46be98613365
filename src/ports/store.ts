/**
 * The coordination store: a small, ordered, watched map of texts, shared by all hosts of a grid. etcd, or the embedded
 * store; both are reached by one client, and one contract suite holds for both and for the pretend store of simulations.
 *
 * Promises:
 * - Every change has a revision; revisions grow by one per successful transaction and are the same for all readers.
 *   What was answered as written survives a restart of the store.
 * - A transaction is all or nothing: its conditions are checked and its operations done at one revision.
 * - A watch delivers every change of its keys from its revision on, once and in order, or ends with `lost`: then the
 *   reader reads the range again and watches from there. It reconnects by itself as long as nothing was missed.
 * - A lease that is not kept alive ends within its time to live plus one second after the store can tell; its keys are then
 *   deleted at one revision. The holder is told of the loss at the latest when, by its own monotonic clock, the time to live
 *   has passed since it sent the last keep-alive that was answered.
 * - Used for admission, ordered views, leases and ownership; never to detect failures for traffic.
 * Failures: STORE_UNAVAILABLE (retryable), DEADLINE_EXCEEDED (the outcome of a write is then unknown), STORAGE_FULL,
 * PERMISSION_DENIED, INVALID_ARGUMENT (a key, value or transaction beyond its bound).
 */

export interface StoreEntry {
  readonly key: string;
  readonly value: string;
  readonly createRevision: number;
  readonly modRevision: number;
  /** Lease it ends with; absent without one. */
  readonly lease?: string;
}

export interface StoreSnapshot {
  /** Of the whole store at the moment of the read: watch from `revision + 1`. */
  readonly revision: number;
  /** By key, ascending. */
  readonly entries: readonly StoreEntry[];
}

export type StoreCondition =
  | { readonly key: string; readonly test: 'absent' }
  | { readonly key: string; readonly test: 'createRevision' | 'modRevision'; readonly equals: number }
  | { readonly key: string; readonly test: 'value'; readonly equals: string };

export type StoreOperation =
  | { readonly type: 'put'; readonly key: string; readonly value: string; readonly lease?: string }
  | { readonly type: 'delete'; readonly key: string }
  | { readonly type: 'delete-prefix'; readonly prefix: string };

export interface StoreTransaction {
  /** All must hold; none means always. At most 64. */
  readonly conditions: readonly StoreCondition[];
  /** At most 128, each key at most once. */
  readonly operations: readonly StoreOperation[];
}

export type StoreTransactionOutcome =
  | { readonly ok: true; readonly revision: number }
  /** A condition did not hold; nothing was done. */
  | { readonly ok: false; readonly revision: number };

export type StoreChange =
  | { readonly type: 'put'; readonly entry: StoreEntry }
  | { readonly type: 'delete'; readonly key: string; readonly modRevision: number };

export type StoreWatchEvent =
  /** All changes of one revision to the watched keys. */
  | { readonly type: 'changes'; readonly revision: number; readonly changes: readonly StoreChange[] }
  /** Nothing before `revision` is still to come: proof of freshness, sent now and then. */
  | { readonly type: 'progress'; readonly revision: number }
  /** The store cannot be reached (false) or can again (true); nothing was missed. */
  | { readonly type: 'connected'; readonly connected: boolean }
  /** Changes were missed: compacted, or the store is another one (wiped). The watch is over: read again. */
  | { readonly type: 'lost'; readonly reason: string };

export interface StoreWatch {
  cancel(): void;
}

export interface StoreLease {
  readonly id: string;
  readonly ttlMs: number;
  /** Ends the lease and deletes its keys. Further calls do nothing. */
  revoke(): Promise<void>;
  /** Stops keeping it alive without revoking it, as a crash would. */
  abandon(): void;
}

export interface StoreCallOptions {
  /** Moment on the monotonic clock, ms, by which the call ends. */
  readonly deadlineMs: number;
}

export interface Store {
  /** One key; undefined entry when it is absent. A linearizable read. */
  get(
    key: string,
    options: StoreCallOptions,
  ): Promise<{ readonly revision: number; readonly entry: StoreEntry | undefined }>;
  /** All keys that begin with the prefix. A linearizable read. */
  range(prefix: string, options: StoreCallOptions): Promise<StoreSnapshot>;
  transact(transaction: StoreTransaction, options: StoreCallOptions): Promise<StoreTransactionOutcome>;
  /** Watches all keys that begin with the prefix. `onEvent` is never called synchronously. */
  watch(prefix: string, fromRevision: number, onEvent: (event: StoreWatchEvent) => void): StoreWatch;
  /** A new lease, kept alive until it is revoked, abandoned or lost. `onLost` is called at most once. */
  lease(ttlMs: number, onLost: (reason: string) => void, options: StoreCallOptions): Promise<StoreLease>;
  close(): Promise<void>;
}

/** Longest key in bytes; beyond it INVALID_ARGUMENT. */
export const storeKeyBytesMax = 512;
/** Longest value in bytes; beyond it INVALID_ARGUMENT. */
export const storeValueBytesMax = 1_048_576;
