/** Between etcd's messages and the requests of the store machine. */
import { byteTextOfBytes, bytesOfByteText } from '#core/store/byte-text.js';
import type { StoreEvent } from '#core/store/machine.js';
import { StoreRefusal } from '#core/store/requests.js';
import type {
  Compare as MachineCompare,
  Operation,
  OperationAnswer,
  RangeAnswer,
  RangeQuery,
  StoredVersion,
  Txn,
  TxnAnswer,
} from '#core/store/requests.js';
import {
  Compare_CompareTarget,
  Event_EventType,
  RangeRequest_SortOrder,
  RangeRequest_SortTarget,
  Compare_CompareResult,
} from '#gen/etcd.js';
import type {
  Compare,
  DeleteRangeRequest,
  DeleteRangeResponse,
  Event,
  KeyValue,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  RequestOp,
  ResponseHeader,
  ResponseOp,
  TxnRequest,
  TxnResponse,
} from '#gen/etcd.js';

const sortTargets = {
  [RangeRequest_SortTarget.KEY]: 'key',
  [RangeRequest_SortTarget.VERSION]: 'version',
  [RangeRequest_SortTarget.CREATE]: 'create',
  [RangeRequest_SortTarget.MOD]: 'mod',
  [RangeRequest_SortTarget.VALUE]: 'value',
} as const;
const sortOrders = {
  [RangeRequest_SortOrder.NONE]: 'none',
  [RangeRequest_SortOrder.ASCEND]: 'ascend',
  [RangeRequest_SortOrder.DESCEND]: 'descend',
} as const;
const compareResults = {
  [Compare_CompareResult.EQUAL]: 'equal',
  [Compare_CompareResult.GREATER]: 'greater',
  [Compare_CompareResult.LESS]: 'less',
  [Compare_CompareResult.NOT_EQUAL]: 'not-equal',
} as const;

export function rangeQueryOf(request: RangeRequest): RangeQuery {
  return {
    key: byteTextOfBytes(request.key),
    end: byteTextOfBytes(request.rangeEnd),
    limit: request.limit,
    revision: request.revision,
    sortTarget: sortTargets[request.sortTarget],
    sortOrder: sortOrders[request.sortOrder],
    keysOnly: request.keysOnly,
    countOnly: request.countOnly,
    modRevisionMin: request.minModRevision,
    modRevisionMax: request.maxModRevision,
    createRevisionMin: request.minCreateRevision,
    createRevisionMax: request.maxCreateRevision,
  };
}

export function putOf(request: PutRequest): Operation {
  return {
    type: 'put',
    key: byteTextOfBytes(request.key),
    // A copy: the message's buffer is not kept for it.
    value: Uint8Array.from(request.value),
    lease: request.lease,
    previous: request.prevKv,
    keepValue: request.ignoreValue,
    keepLease: request.ignoreLease,
  };
}

export function deleteOf(request: DeleteRangeRequest): Operation {
  const [key, end] = [byteTextOfBytes(request.key), byteTextOfBytes(request.rangeEnd)];
  return { type: 'delete', key, end, previous: request.prevKv };
}

/** @throws StoreRefusal INVALID_ARGUMENT for an operation or a condition that names nothing */
export function txnOf(request: TxnRequest): Txn {
  return {
    compares: request.compare.map(compareOf),
    success: request.success.map(operationOf),
    failure: request.failure.map(operationOf),
  };
}

function operationOf({ request }: RequestOp): Operation {
  switch (request.oneofKind) {
    case 'requestRange':
      return { type: 'range', query: rangeQueryOf(request.requestRange) };
    case 'requestPut':
      return putOf(request.requestPut);
    case 'requestDeleteRange':
      return deleteOf(request.requestDeleteRange);
    case 'requestTxn':
      return { type: 'txn', txn: txnOf(request.requestTxn) };
    default:
      throw new StoreRefusal('INVALID_ARGUMENT', 'key is not provided');
  }
}

function compareOf(compare: Compare): MachineCompare {
  const { targetUnion: union } = compare;
  const base = {
    key: byteTextOfBytes(compare.key),
    end: byteTextOfBytes(compare.rangeEnd),
    result: compareResults[compare.result],
  };
  switch (compare.target) {
    case Compare_CompareTarget.VERSION:
      return { ...base, target: 'version', number: union.oneofKind === 'version' ? union.version : 0 };
    case Compare_CompareTarget.CREATE:
      return { ...base, target: 'create', number: union.oneofKind === 'createRevision' ? union.createRevision : 0 };
    case Compare_CompareTarget.MOD:
      return { ...base, target: 'mod', number: union.oneofKind === 'modRevision' ? union.modRevision : 0 };
    case Compare_CompareTarget.VALUE:
      return { ...base, target: 'value', value: union.oneofKind === 'value' ? union.value : new Uint8Array(0) };
    case Compare_CompareTarget.LEASE:
      return { ...base, target: 'lease', lease: union.oneofKind === 'lease' ? union.lease : '0' };
  }
}

export function keyValue(version: StoredVersion): KeyValue {
  return { ...version, key: bytesOfByteText(version.key) };
}

export function eventMessage(event: StoreEvent, withPrevious: boolean): Event {
  const message: Event = {
    type: event.type === 'put' ? Event_EventType.PUT : Event_EventType.DELETE,
    kv: keyValue(event.entry),
  };
  if (withPrevious && event.previous !== undefined) message.prevKv = keyValue(event.previous);
  return message;
}

export function rangeResponse(answer: RangeAnswer, header: ResponseHeader): RangeResponse {
  return { header, kvs: answer.entries.map(keyValue), more: answer.more, count: answer.count };
}

export function putResponse(answer: OperationAnswer & { readonly type: 'put' }, header: ResponseHeader): PutResponse {
  return answer.previous === undefined ? { header } : { header, prevKv: keyValue(answer.previous) };
}

export function deleteResponse(
  answer: OperationAnswer & { readonly type: 'delete' },
  header: ResponseHeader,
): DeleteRangeResponse {
  return { header, deleted: answer.deleted, prevKvs: answer.previous.map(keyValue) };
}

export function txnResponse(answer: TxnAnswer, header: ResponseHeader): TxnResponse {
  return { header, succeeded: answer.succeeded, responses: answer.answers.map((one) => responseOp(one, header)) };
}

function responseOp(answer: OperationAnswer, header: ResponseHeader): ResponseOp {
  switch (answer.type) {
    case 'range':
      return { response: { oneofKind: 'responseRange', responseRange: rangeResponse(answer, header) } };
    case 'put':
      return { response: { oneofKind: 'responsePut', responsePut: putResponse(answer, header) } };
    case 'delete':
      return { response: { oneofKind: 'responseDeleteRange', responseDeleteRange: deleteResponse(answer, header) } };
    case 'txn':
      return { response: { oneofKind: 'responseTxn', responseTxn: txnResponse(answer.answer, header) } };
  }
}
