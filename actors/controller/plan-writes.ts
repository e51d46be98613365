/**
 * The transactions that bring a reconciliation into the store. Each names the leader's epoch and what every key was when it
 * was read: a transaction that arrives late, or from a leader of before, does nothing. Rollouts go first, since the numbers
 * of new copies are in them.
 */
import type { LeaderFence } from '#core/grid/election.js';
import type { GridKeys } from '#core/grid/keys.js';
import type { ReconcileOutput } from '#core/grid/reconcile.js';
import { gridEventsMax, type GridEvent } from '#core/grid/records.js';
import type { StoreCondition, StoreOperation, StoreTransaction } from '#ports/store.js';

/** Keys of one transaction: with the leader's, as many conditions as the store takes. */
const keysMax = 60;

export interface WriteSources {
  readonly keys: GridKeys;
  readonly fence: LeaderFence;
  /** Revision of a key as it was read; undefined when it was absent. */
  readonly revisionOf: (key: string) => number | undefined;
  readonly eventSequence: number;
  readonly wallMs: number;
}

export function planWrites(output: ReconcileOutput, sources: WriteSources): readonly StoreTransaction[] {
  const { keys, fence, revisionOf } = sources;
  const writes: { readonly condition: StoreCondition | undefined; readonly operation: StoreOperation }[] = [];
  const write = (key: string, record: unknown): void => {
    const revision = revisionOf(key);
    if (record === undefined && revision === undefined) return;
    writes.push({
      condition: revision === undefined ? { key, test: 'absent' } : { key, test: 'modRevision', equals: revision },
      operation: record === undefined ? { type: 'delete', key } : { type: 'put', key, value: JSON.stringify(record) },
    });
  };
  for (const [name, record] of output.rollouts) write(keys.rollout(name), record);
  for (const [host, record] of output.assignments) write(keys.assignment(host), record);
  for (const event of eventsOf(output, sources)) {
    const key = `${keys.events}${event.sequence % gridEventsMax}`;
    writes.push({ condition: undefined, operation: { type: 'put', key, value: JSON.stringify(event) } });
  }
  const transactions: StoreTransaction[] = [];
  for (let from = 0; from < writes.length; from += keysMax) {
    const part = writes.slice(from, from + keysMax);
    transactions.push({
      conditions: [fence, ...part.flatMap(({ condition }) => (condition === undefined ? [] : [condition]))],
      operations: part.map(({ operation }) => operation),
    });
  }
  return transactions;
}

/** At most so many of one look: of a thousand that happen at once, the first tell enough. */
const eventsOfOneMax = 100;

function eventsOf({ events }: ReconcileOutput, { eventSequence, wallMs }: WriteSources): readonly GridEvent[] {
  return events.slice(0, eventsOfOneMax).map(({ level, subject, text }, index) => {
    return { format: 1, sequence: eventSequence + index + 1, wallMs, level, subject, text };
  });
}
