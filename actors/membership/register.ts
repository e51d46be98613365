/** Puts a host's record into the store, or finds out why it cannot be there. Safe to repeat after any failure. */
import { intarsiaError } from '#core/errors.js';
import { judgeRecord, type RecordHolder } from '#core/grid/registration.js';
import { readHostRecord, writeMember } from '#core/grid/member-text.js';
import type { Generation, HostRecord } from '#core/grid/records.js';
import type { Store, StoreEntry } from '#ports/store.js';

export type RegisterOutcome =
  | { readonly type: 'registered'; readonly generation: Generation }
  /** Another process has the name, and its lease has not ended. */
  | { readonly type: 'held'; readonly holder: RecordHolder };

interface RegisterPorts {
  readonly store: Store;
  readonly key: string;
  readonly record: HostRecord;
  readonly lease: string;
  /** Whether this process was not in the grid before. */
  readonly isFirst: boolean;
  /** Moment by which each call must end. */
  readonly deadlineMs: () => number;
}

/** A record may be replaced under our hands so often before we give up for now. */
const attemptsMax = 5;

/** @throws what the store throws. */
export async function register(ports: RegisterPorts): Promise<RegisterOutcome> {
  const { store, key, record, lease, isFirst, deadlineMs } = ports;
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const created = await store.transact(
      {
        conditions: [{ key, test: 'absent' }],
        operations: [{ type: 'put', key, value: writeMember(record), lease }],
      },
      { deadlineMs: deadlineMs() },
    );
    if (created.ok) return { type: 'registered', generation: created.revision };
    const { entry } = await store.get(key, { deadlineMs: deadlineMs() });
    if (entry === undefined) continue;
    const holder = holderOf(entry, record);
    const verdict = judgeRecord(holder, { ...record, lease, isFirst });
    if (verdict === 'ours') return { type: 'registered', generation: entry.createRevision };
    if (verdict === 'wait' && holder !== undefined) return { type: 'held', holder };
    // Deleted first, so that the record that follows has a new create revision: a new generation.
    await store.transact(
      {
        conditions: [{ key, test: 'modRevision', equals: entry.modRevision }],
        operations: [{ type: 'delete', key }],
      },
      { deadlineMs: deadlineMs() },
    );
  }
  throw intarsiaError('STORE_UNAVAILABLE', `the record of host ${record.host} changed ${attemptsMax} times meanwhile`);
}

function holderOf(entry: StoreEntry, record: HostRecord): RecordHolder | undefined {
  const read = readHostRecord(entry.value, record.host);
  if (!read.ok) return undefined;
  return { process: read.value.process, linkAddress: read.value.linkAddress, lease: entry.lease };
}
