/** What desks read of the grid's store for one call, and how long they wait for it. */
import { intarsiaError } from '#core/errors.js';
import { DesiredState, prefixOf, type Folder } from '#core/grid/desired-state.js';
import { readLeader } from '#core/grid/election.js';
import type { GridKeys } from '#core/grid/keys.js';
import type { Clock } from '#ports/clock.js';
import type { Store, StoreCallOptions, StoreSnapshot } from '#ports/store.js';

/** The store, and where in it the grid is. */
export interface StoreOfGrid {
  readonly store: Store;
  readonly keys: GridKeys;
}

/** Longest wait for the store where the caller gave no deadline, ms. */
export const storeCallMsMax = 10_000;

/** Attempts at a write that others write at the same time. */
export const writeAttemptsMax = 5;

/** Until when a call waits for the store. */
export function storeDeadline(clock: Clock, { deadlineMs }: StoreCallOptions): StoreCallOptions {
  return { deadlineMs: Math.min(deadlineMs, clock.nowMs() + storeCallMsMax) };
}

/** What is wanted and what is there, as the store has it now. @throws what the store throws. */
export async function readDesired({ store, keys }: StoreOfGrid, until: StoreCallOptions): Promise<DesiredState> {
  const state = new DesiredState(keys, () => {});
  const folders: readonly Folder[] = ['deployments', 'rollouts', 'assignments', 'actual', 'models', 'verifications'];
  const snapshots = await Promise.all(folders.map((folder) => store.range(prefixOf(keys, folder), until)));
  for (const [index, folder] of folders.entries()) {
    for (const entry of (snapshots[index] as StoreSnapshot).entries) state.set(folder, entry.key, entry);
  }
  return state;
}

/** The host that leads; empty when nobody does. */
export async function readLeaderName({ store, keys }: StoreOfGrid, until: StoreCallOptions): Promise<string> {
  const { entry } = await store.get(keys.leader, until);
  return entry === undefined ? '' : (readLeader(entry.value)?.host ?? '');
}

/** Somebody else writes the same all the time. */
export function changedMeanwhile(what: string): Error {
  return intarsiaError('UNAVAILABLE', `${what} is being changed by somebody else; try again`, {});
}
