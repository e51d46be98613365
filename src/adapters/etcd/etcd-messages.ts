/** Between etcd3's messages and the shapes of the port. */
import { CompareResult, CompareTarget } from 'etcd3';
import type { ICompare, IKeyValue, IRequestOp } from 'etcd3';
import { intarsiaError } from '#core/errors.js';
import { bytesOfByteText } from '#core/store/byte-text.js';
import type { Compare, Operation } from '#core/store/requests.js';
import type { StoreEntry } from '#ports/store.js';

/** Tells one store from another one in its place. Outside of every grid's prefix. */
export const markKey = '/intarsia/store';

export function entryOf(message: IKeyValue): StoreEntry {
  const entry = {
    key: message.key.toString('utf8'),
    value: message.value.toString('utf8'),
    createRevision: Number(message.create_revision),
    modRevision: Number(message.mod_revision),
  };
  return message.lease === '0' ? entry : { ...entry, lease: message.lease };
}

export function compareMessage(compare: Compare): ICompare {
  const base = { key: bufferOf(compare.key), result: CompareResult.Equal };
  if (compare.target === 'value') return { ...base, target: CompareTarget.Value, value: Buffer.from(compare.value) };
  if (compare.target === 'create')
    return { ...base, target: CompareTarget.Create, create_revision: String(compare.number) };
  if (compare.target === 'mod') return { ...base, target: CompareTarget.Mod, mod_revision: String(compare.number) };
  throw intarsiaError('INTERNAL', `no condition of the port compares a key's ${compare.target}`);
}

export function operationMessage(operation: Operation): IRequestOp {
  if (operation.type === 'put') {
    const { key, value, lease } = operation;
    return { request_put: { key: bufferOf(key), value: Buffer.from(value), lease } };
  }
  if (operation.type === 'delete') {
    return { request_delete_range: { key: bufferOf(operation.key), range_end: bufferOf(operation.end) } };
  }
  throw intarsiaError('INTERNAL', `no operation of the port is a ${operation.type}`);
}

export function bufferOf(text: string): Buffer {
  return Buffer.from(bytesOfByteText(text));
}
