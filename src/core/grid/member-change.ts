/** What membership needs of an entry and a change in the store; those of the store port fit. */
import type { Generation } from './records.js';

export interface StoreEntryLike {
  readonly key: string;
  readonly value: string;
  readonly createRevision: Generation;
}

export type MemberChange =
  { readonly type: 'put'; readonly entry: StoreEntryLike } | { readonly type: 'delete'; readonly key: string };
