/**
 * Between the shapes of the Store port, which speaks in texts, and those of the machine, which speaks in bytes; and the
 * port's bounds, checked before anything is sent.
 */
import { intarsiaError } from '../errors.js';
import { byteText, prefixEnd, textOfByteText } from './byte-text.js';
import type { Compare, Operation, StoredVersion, Txn } from './requests.js';

/** Conditions of a transaction at most. */
export const storeConditionsMax = 64;
/** Operations of a transaction at most. */
export const storeOperationsMax = 128;

interface TextEntry {
  readonly key: string;
  readonly value: string;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly lease?: string;
}
type TextCondition =
  | { readonly key: string; readonly test: 'absent' }
  | { readonly key: string; readonly test: 'createRevision' | 'modRevision'; readonly equals: number }
  | { readonly key: string; readonly test: 'value'; readonly equals: string };
type TextOperation =
  | { readonly type: 'put'; readonly key: string; readonly value: string; readonly lease?: string }
  | { readonly type: 'delete'; readonly key: string }
  | { readonly type: 'delete-prefix'; readonly prefix: string };
export interface TextTransaction {
  readonly conditions: readonly TextCondition[];
  readonly operations: readonly TextOperation[];
}
export interface TextBounds {
  readonly keyBytesMax: number;
  readonly valueBytesMax: number;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export function textEntry(version: StoredVersion): TextEntry {
  const { createRevision, modRevision, lease } = version;
  const entry = { key: textOfByteText(version.key), value: decoder.decode(version.value), createRevision, modRevision };
  return lease === '0' ? entry : { ...entry, lease };
}

/** The key as a byte text. @throws INVALID_ARGUMENT when it is empty or too long */
export function checkedKey(key: string, bytesMax: number): string {
  const bytes = byteText(key);
  if (bytes.length > 0 && bytes.length <= bytesMax) return bytes;
  throw intarsiaError('INVALID_ARGUMENT', `a store key has 1 to ${bytesMax} bytes; this one has ${bytes.length}`, {
    bytes: bytes.length,
    bytesMax,
  });
}

/** The range of all keys with that prefix; the empty prefix is every key. */
export function prefixRange(prefix: string): { readonly key: string; readonly end: string } {
  const start = byteText(prefix);
  return start === '' ? { key: '\0', end: '\0' } : { key: start, end: prefixEnd(start) };
}

/** @throws INVALID_ARGUMENT for a key, a value or a transaction beyond its bound */
export function txnOf(transaction: TextTransaction, bounds: TextBounds): Txn {
  const { conditions, operations } = transaction;
  checkCount('conditions', conditions.length, storeConditionsMax);
  checkCount('operations', operations.length, storeOperationsMax);
  const compares = conditions.map((condition): Compare => {
    const key = checkedKey(condition.key, bounds.keyBytesMax);
    const base = { key, end: '', result: 'equal' } as const;
    if (condition.test === 'absent') return { ...base, target: 'create', number: 0 };
    if (condition.test === 'value') return { ...base, target: 'value', value: encoder.encode(condition.equals) };
    return { ...base, target: condition.test === 'createRevision' ? 'create' : 'mod', number: condition.equals };
  });
  return { compares, success: operations.map((operation) => operationOf(operation, bounds)), failure: [] };
}

function operationOf(operation: TextOperation, bounds: TextBounds): Operation {
  if (operation.type === 'delete-prefix') return { type: 'delete', ...prefixRange(operation.prefix) };
  const key = checkedKey(operation.key, bounds.keyBytesMax);
  if (operation.type === 'delete') return { type: 'delete', key, end: '' };
  const value = encoder.encode(operation.value);
  if (value.length > bounds.valueBytesMax) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `the value of store key ${operation.key} has ${value.length} bytes; the limit is ${bounds.valueBytesMax}`,
      { key: operation.key, bytes: value.length, bytesMax: bounds.valueBytesMax },
    );
  }
  return { type: 'put', key, value, lease: operation.lease ?? '0' };
}

function checkCount(what: string, count: number, countMax: number): void {
  if (count <= countMax) return;
  throw intarsiaError(
    'INVALID_ARGUMENT',
    `a store transaction has at most ${countMax} ${what}; this one has ${count}`,
    {
      count,
      countMax,
    },
  );
}
