/**
 * What the store machine is asked and answers: etcd's KV requests as plain values. Keys are byte texts, values bytes,
 * revisions numbers, lease ids decimal texts of 64-bit numbers (they exceed what a number holds).
 */
import type { GrpcStatusName } from '../errors.js';

/** A value under a key, as it was at some revision. */
export interface StoredVersion {
  readonly key: string;
  readonly value: Uint8Array;
  readonly createRevision: number;
  readonly modRevision: number;
  /** Puts since it was created; 0 marks a deletion. */
  readonly version: number;
  /** `0` without a lease. */
  readonly lease: string;
}

export type SortTarget = 'key' | 'version' | 'create' | 'mod' | 'value';

export interface RangeQuery {
  readonly key: string;
  /** Exclusive; empty: the one key; `\0`: from the key on. */
  readonly end: string;
  /** Entries in the answer at most; 0: no limit. */
  readonly limit?: number;
  /** As of that revision; 0: now. */
  readonly revision?: number;
  readonly sortTarget?: SortTarget;
  readonly sortOrder?: 'none' | 'ascend' | 'descend';
  readonly keysOnly?: boolean;
  readonly countOnly?: boolean;
  /** Bounds of revisions; 0 does not bound. */
  readonly modRevisionMin?: number;
  readonly modRevisionMax?: number;
  readonly createRevisionMin?: number;
  readonly createRevisionMax?: number;
}

export interface RangeAnswer {
  readonly type: 'range';
  readonly entries: readonly StoredVersion[];
  /** More than the limit allowed. */
  readonly more: boolean;
  /** Keys in the range, whatever limit and bounds. */
  readonly count: number;
}

export type Compare = {
  readonly key: string;
  readonly end: string;
  readonly result: 'equal' | 'greater' | 'less' | 'not-equal';
} & (
  | { readonly target: 'version' | 'create' | 'mod'; readonly number: number }
  | { readonly target: 'value'; readonly value: Uint8Array }
  | { readonly target: 'lease'; readonly lease: string }
);

export type Operation =
  | { readonly type: 'range'; readonly query: RangeQuery }
  | {
      readonly type: 'put';
      readonly key: string;
      readonly value: Uint8Array;
      readonly lease: string;
      readonly previous?: boolean;
      readonly keepValue?: boolean;
      readonly keepLease?: boolean;
    }
  | { readonly type: 'delete'; readonly key: string; readonly end: string; readonly previous?: boolean }
  | { readonly type: 'txn'; readonly txn: Txn };

export interface Txn {
  readonly compares: readonly Compare[];
  readonly success: readonly Operation[];
  readonly failure: readonly Operation[];
}

export type OperationAnswer =
  | RangeAnswer
  | { readonly type: 'put'; readonly previous: StoredVersion | undefined }
  | { readonly type: 'delete'; readonly deleted: number; readonly previous: readonly StoredVersion[] }
  | { readonly type: 'txn'; readonly answer: TxnAnswer };

export interface TxnAnswer {
  readonly succeeded: boolean;
  readonly answers: readonly OperationAnswer[];
}

/** A change to one key. */
export type Mutation =
  | { readonly type: 'put'; readonly key: string; readonly value: Uint8Array; readonly lease: string }
  | { readonly type: 'delete'; readonly key: string };

/** What happened, to be written down before it is answered: applying the records of a store in order makes it again. */
export type StoreRecord =
  | { readonly type: 'revision'; readonly revision: number; readonly mutations: readonly Mutation[] }
  | { readonly type: 'grant'; readonly lease: string; readonly ttlSeconds: number }
  /** The lease ended; its keys were deleted at `revision`, 0 when it had none. */
  | { readonly type: 'revoke'; readonly lease: string; readonly revision: number }
  | { readonly type: 'compact'; readonly revision: number }
  /** The first record of a snapshot: everything before is as if it had never been. */
  | { readonly type: 'base'; readonly cluster: string; readonly revision: number }
  /** An entry as it was at the base's revision. */
  | { readonly type: 'entry'; readonly entry: StoredVersion };

/** Why a store refused a request, with etcd's words and status, so that its clients understand. */
export class StoreRefusal extends Error {
  readonly status: GrpcStatusName;

  constructor(status: GrpcStatusName, message: string) {
    super(`etcdserver: ${message}`);
    this.name = 'StoreRefusal';
    this.status = status;
  }
}
