/** Which transactions a store takes, when their conditions hold, and which entries a range answers: etcd's rules. */
import { isInRange } from './byte-text.js';
import type { KeyHistories } from './key-histories.js';
import { StoreRefusal } from './requests.js';
import type { Compare, Operation, RangeAnswer, RangeQuery, StoredVersion, Txn } from './requests.js';

/** @throws StoreRefusal INVALID_ARGUMENT: too many operations, a key missing or written twice */
export function checkTxn(txn: Txn, operationsMax: number, depth = 0): void {
  const most = Math.max(txn.compares.length, txn.success.length, txn.failure.length);
  if (most > operationsMax) throw new StoreRefusal('INVALID_ARGUMENT', 'too many operations in txn request');
  if (depth > 8) throw new StoreRefusal('INVALID_ARGUMENT', 'transactions are nested more than 8 deep');
  if (txn.compares.some((compare) => compare.key === '')) throw noKey();
  for (const branch of [txn.success, txn.failure]) {
    checkKeys(branch, operationsMax, depth);
    checkWrittenOnce(branch);
  }
}

function checkKeys(branch: readonly Operation[], operationsMax: number, depth: number): void {
  for (const operation of branch) {
    if (operation.type === 'txn') {
      checkTxn(operation.txn, operationsMax, depth + 1);
    } else if (operation.type === 'put') {
      if (operation.key === '') throw noKey();
      if (operation.keepValue === true && operation.value.length > 0) {
        throw new StoreRefusal('INVALID_ARGUMENT', 'value is provided');
      }
      if (operation.keepLease === true && operation.lease !== '0') {
        throw new StoreRefusal('INVALID_ARGUMENT', 'lease is provided');
      }
    } else if ((operation.type === 'range' ? operation.query.key : operation.key) === '') {
      throw noKey();
    }
  }
}

interface Written {
  readonly puts: Set<string>;
  readonly deletes: { readonly key: string; readonly end: string }[];
}

/** No key is put twice, or put and deleted, by what may happen in one branch. */
function checkWrittenOnce(branch: readonly Operation[]): Written {
  const written: Written = { puts: new Set(), deletes: [] };
  for (const operation of branch) if (operation.type === 'delete') written.deletes.push(operation);
  for (const operation of branch) {
    if (operation.type === 'put') addWritten(written, { puts: new Set([operation.key]), deletes: [] });
    if (operation.type !== 'txn') continue;
    // Only one of the two happens, so they may write the same keys; both must agree with what surrounds them.
    const [success, failure] = [checkWrittenOnce(operation.txn.success), checkWrittenOnce(operation.txn.failure)];
    const puts = new Set([...success.puts, ...failure.puts]);
    addWritten(written, { puts, deletes: [...success.deletes, ...failure.deletes] });
  }
  return written;
}

function addWritten(written: Written, more: Written): void {
  for (const key of more.puts) {
    if (written.puts.has(key) || isDeleted(key, written.deletes)) throw duplicate();
  }
  for (const key of written.puts) if (isDeleted(key, more.deletes)) throw duplicate();
  for (const key of more.puts) written.puts.add(key);
  written.deletes.push(...more.deletes);
}

function isDeleted(key: string, deletes: Written['deletes']): boolean {
  return deletes.some(({ key: start, end }) => isInRange(key, start, end));
}

/** Whether a condition holds for every key of its range; a range without keys holds, one absent key has all zeros. */
export function compareHolds(compare: Compare, histories: KeyHistories): boolean {
  const present = histories.range(compare.key, compare.end);
  if (present.length > 0) return present.every((entry) => holds(compare, entry));
  if (compare.end !== '') return true;
  // What is absent has no value to compare; its numbers are 0.
  return compare.target !== 'value' && holds(compare, undefined);
}

function holds(compare: Compare, entry: StoredVersion | undefined): boolean {
  const order = orderOf(compare, entry);
  switch (compare.result) {
    case 'equal':
      return order === 0;
    case 'not-equal':
      return order !== 0;
    case 'greater':
      return order > 0;
    case 'less':
      return order < 0;
  }
}

function orderOf(compare: Compare, entry: StoredVersion | undefined): number {
  switch (compare.target) {
    case 'version':
      return (entry?.version ?? 0) - compare.number;
    case 'create':
      return (entry?.createRevision ?? 0) - compare.number;
    case 'mod':
      return (entry?.modRevision ?? 0) - compare.number;
    case 'value':
      return compareBytes(entry?.value ?? new Uint8Array(0), compare.value);
    case 'lease': {
      const [left, right] = [BigInt(entry?.lease ?? '0'), BigInt(compare.lease)];
      return left < right ? -1 : left > right ? 1 : 0;
    }
  }
}

/** Bounds, order, limit and shape of a range's answer. */
export function pickEntries(found: readonly StoredVersion[], query: RangeQuery): RangeAnswer {
  const count = found.length;
  if (query.countOnly === true) return { type: 'range', entries: [], more: false, count };
  const bounds = [
    query.modRevisionMin ?? 0,
    query.modRevisionMax ?? 0,
    query.createRevisionMin ?? 0,
    query.createRevisionMax ?? 0,
  ] as const;
  let entries = bounds.every((bound) => bound === 0)
    ? found
    : found.filter(
        (entry) =>
          (bounds[0] === 0 || entry.modRevision >= bounds[0]) &&
          (bounds[1] === 0 || entry.modRevision <= bounds[1]) &&
          (bounds[2] === 0 || entry.createRevision >= bounds[2]) &&
          (bounds[3] === 0 || entry.createRevision <= bounds[3]),
      );
  entries = sorted(entries, query);
  const limit = query.limit ?? 0;
  const more = limit > 0 && entries.length > limit;
  if (more) entries = entries.slice(0, limit);
  if (query.keysOnly === true) entries = entries.map((entry) => ({ ...entry, value: new Uint8Array(0) }));
  return { type: 'range', entries, more, count };
}

function sorted(entries: readonly StoredVersion[], query: RangeQuery): readonly StoredVersion[] {
  const target = query.sortTarget ?? 'key';
  // As etcd: a target without an order sorts upwards; keys are in order already.
  const order = query.sortOrder ?? 'none';
  if (target === 'key') return order === 'descend' ? [...entries].reverse() : entries;
  const direction = order === 'descend' ? -1 : 1;
  const by = (a: StoredVersion, b: StoredVersion): number => {
    switch (target) {
      case 'version':
        return a.version - b.version;
      case 'create':
        return a.createRevision - b.createRevision;
      case 'mod':
        return a.modRevision - b.modRevision;
      case 'value':
        return compareBytes(a.value, b.value);
    }
  };
  return [...entries].sort((a, b) => direction * by(a, b));
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const shared = Math.min(a.length, b.length);
  for (let index = 0; index < shared; index += 1) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

function noKey(): StoreRefusal {
  return new StoreRefusal('INVALID_ARGUMENT', 'key is not provided');
}

function duplicate(): StoreRefusal {
  return new StoreRefusal('INVALID_ARGUMENT', 'duplicate key given in txn request');
}
