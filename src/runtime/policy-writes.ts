/**
 * Writes the pointer of policies together with the event that tells of it, in one transaction: by compare-and-swap, so that of two
 * who change it at once one is refused. Events are a ring with a running number, which the leader writes too: an event takes
 * the next number only while that slot is what it was when it was read. It stands in a slot of its own beside it: the leader, who
 * may not have seen it yet, would otherwise write its next event over it.
 */
import { intarsiaError } from '#core/errors.js';
import type { GridKeys } from '#core/grid/keys.js';
import { gridEventsMax, type GridEvent } from '#core/grid/records.js';
import type { PolicyPointer } from '#core/scheduling/promotion.js';
import type { Store, StoreCondition, StoreEntry, StoreOperation } from '#ports/store.js';

export interface PolicyWrite {
  readonly store: Store;
  readonly keys: GridKeys;
  /** Absent: only the event is written. */
  readonly pointer?: PolicyPointer;
  /** Revision of the pointer's key that it was made from; undefined when there was none. */
  readonly revision?: number | undefined;
  /** Further operations of the same transaction. */
  readonly operations?: readonly StoreOperation[];
  readonly event: Omit<GridEvent, 'format' | 'sequence'>;
  /** Monotonic, ms. */
  readonly deadlineMs: number;
}

const attemptsMax = 8;
/** Slots for events of policies; the one that is written over is the oldest, or nearly. */
const policyEventsMax = 64;

/** @returns False when somebody else changed the pointer meanwhile: nothing was written. @throws UNAVAILABLE, and what the store throws. */
export async function writeWithEvent(write: PolicyWrite): Promise<boolean> {
  const { store, keys, pointer, revision, operations = [], event, deadlineMs } = write;
  const key = keys.policyPointer;
  const isUnchanged: readonly StoreCondition[] =
    pointer === undefined
      ? []
      : [revision === undefined ? { key, test: 'absent' } : { key, test: 'modRevision', equals: revision }];
  const put: readonly StoreOperation[] =
    pointer === undefined ? [] : [{ type: 'put', key, value: JSON.stringify(pointer) }];
  for (let attempt = 1; attempt <= attemptsMax; attempt += 1) {
    const { entries } = await store.range(keys.events, { deadlineMs });
    const sequence = 1 + entries.reduce((most, { value }) => Math.max(most, sequenceOf(value)), 0);
    const leadersSlot = `${keys.events}${sequence % gridEventsMax}`;
    const slot = `${keys.events}policy-${sequence % policyEventsMax}`;
    const told: GridEvent = { format: 1, sequence, ...event };
    const { ok } = await store.transact(
      {
        conditions: [...isUnchanged, isStill(leadersSlot, entries), isStill(slot, entries)],
        operations: [...put, ...operations, { type: 'put', key: slot, value: JSON.stringify(told) }],
      },
      { deadlineMs },
    );
    if (ok) return true;
    if (pointer === undefined) continue;
    const { entry } = await store.get(key, { deadlineMs });
    if (entry?.modRevision !== revision) return false;
  }
  throw intarsiaError('UNAVAILABLE', `events of the grid are being written by others: ${attemptsMax} attempts`, {});
}

function isStill(key: string, entries: readonly StoreEntry[]): StoreCondition {
  const entry = entries.find((each) => each.key === key);
  return entry === undefined ? { key, test: 'absent' } : { key, test: 'modRevision', equals: entry.modRevision };
}

/** 0 for what is no event. */
function sequenceOf(text: string): number {
  try {
    const { sequence } = JSON.parse(text) as Partial<GridEvent>;
    return typeof sequence === 'number' && Number.isSafeInteger(sequence) ? sequence : 0;
  } catch {
    return 0;
  }
}
