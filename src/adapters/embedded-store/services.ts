/** etcd's services over the durable store: what each unary call means. Streams are in watch-stream.ts and server.ts. */
import { randomBytes, timingSafeEqual, createHash } from 'node:crypto';
import { StoreRefusal } from '#core/store/requests.js';
import type { Operation, OperationAnswer, StoreRecord } from '#core/store/requests.js';
import type { StoreMachine } from '#core/store/machine.js';
import {
  AlarmRequest,
  AlarmResponse,
  AuthenticateRequest,
  AuthenticateResponse,
  CompactionRequest,
  CompactionResponse,
  DeleteRangeRequest,
  DeleteRangeResponse,
  LeaseGrantRequest,
  LeaseGrantResponse,
  LeaseLeasesRequest,
  LeaseLeasesResponse,
  LeaseRevokeRequest,
  LeaseRevokeResponse,
  LeaseTimeToLiveRequest,
  LeaseTimeToLiveResponse,
  MemberListRequest,
  MemberListResponse,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  StatusRequest,
  StatusResponse,
  TxnRequest,
  TxnResponse,
} from '#gen/etcd.js';
import type { ResponseHeader } from '#gen/etcd.js';
import type { DurableStore } from './durable-store.js';
import {
  deleteOf,
  deleteResponse,
  putOf,
  putResponse,
  rangeQueryOf,
  rangeResponse,
  txnOf,
  txnResponse,
} from './messages.js';
import { bytesOfByteText } from '#core/store/byte-text.js';

/** The only member there is. */
export const memberId = '1';
/** What clients are told: the version of etcd whose API this is. */
const apiVersion = '3.4.0';

export interface StoreServicesContext {
  readonly store: DurableStore;
  /** Where clients reach it, `http://host:port`. */
  readonly clientUrl: () => string;
  readonly nowMs: () => number;
  /** Clients must authenticate with it as password; undefined: nobody must. */
  readonly token: string | undefined;
  /** What Authenticate hands out; dies with the process, as etcd's simple tokens do. */
  readonly session: string;
}

interface MessageType<Message> {
  fromBinary(bytes: Uint8Array): Message;
  toBinary(message: Message): Uint8Array;
}

export interface UnaryService {
  readonly path: string;
  readonly open: boolean;
  readonly request: MessageType<unknown>;
  readonly response: MessageType<unknown>;
  readonly handle: (request: unknown) => Promise<unknown>;
}

export function headerAt(store: DurableStore, revision: number): ResponseHeader {
  return { clusterId: store.machine.cluster, memberId, revision, raftTerm: 1 };
}

/** Whether a text is the secret, in constant time. */
export function isSecret(text: string, secret: string): boolean {
  const digest = (value: string): Buffer => createHash('sha256').update(value).digest();
  return timingSafeEqual(digest(text), digest(secret));
}

export function unaryServices(context: StoreServicesContext): UnaryService[] {
  const { store } = context;
  const header = (machine: StoreMachine): ResponseHeader => headerAt(store, machine.revision);
  const change = <Result>(
    work: (
      machine: StoreMachine,
      nowMs: number,
    ) => { readonly record: StoreRecord | undefined; readonly result: Result },
  ): Promise<Result> =>
    store.run((machine, nowMs) => {
      const { record, result } = work(machine, nowMs);
      return { result, records: record === undefined ? [] : [record] };
    });
  const one = (operation: Operation): Promise<{ readonly answer: OperationAnswer; readonly header: ResponseHeader }> =>
    change((machine) => {
      const { answer, record } = machine.transact({ compares: [], success: [operation], failure: [] });
      const [first] = answer.answers;
      if (first === undefined) throw new StoreRefusal('INTERNAL', 'an operation without an answer');
      return { record, result: { answer: first, header: header(machine) } };
    });
  return [
    service('KV/Range', RangeRequest, RangeResponse, (request) =>
      change((machine) => ({
        record: undefined,
        result: rangeResponse(machine.range(rangeQueryOf(request)), header(machine)),
      })),
    ),
    service('KV/Put', PutRequest, PutResponse, async (request) => {
      const { answer, header: at } = await one(putOf(request));
      return putResponse(expectType(answer, 'put'), at);
    }),
    service('KV/DeleteRange', DeleteRangeRequest, DeleteRangeResponse, async (request) => {
      const { answer, header: at } = await one(deleteOf(request));
      return deleteResponse(expectType(answer, 'delete'), at);
    }),
    service('KV/Txn', TxnRequest, TxnResponse, (request) =>
      change((machine) => {
        const { answer, record } = machine.transact(txnOf(request));
        return { record, result: txnResponse(answer, header(machine)) };
      }),
    ),
    service('KV/Compact', CompactionRequest, CompactionResponse, (request) =>
      change((machine) => ({ record: machine.compact(request.revision), result: { header: header(machine) } })),
    ),
    service('Lease/LeaseGrant', LeaseGrantRequest, LeaseGrantResponse, (request) =>
      change((machine, nowMs) => {
        const id = request.id === '0' ? newLeaseId() : request.id;
        const ttl = Math.max(1, request.ttl);
        const record = machine.grant(id, ttl, nowMs);
        return { record, result: { header: header(machine), id, ttl, error: '' } };
      }),
    ),
    service('Lease/LeaseRevoke', LeaseRevokeRequest, LeaseRevokeResponse, (request) =>
      change((machine) => ({ record: machine.revoke(request.id), result: { header: header(machine) } })),
    ),
    service('Lease/LeaseTimeToLive', LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, (request) =>
      change((machine, nowMs) => ({ record: undefined, result: timeToLive(machine, request, header(machine), nowMs) })),
    ),
    service('Lease/LeaseLeases', LeaseLeasesRequest, LeaseLeasesResponse, () =>
      change((machine) => ({
        record: undefined,
        result: { header: header(machine), leases: machine.leaseIds().map((id) => ({ id })) },
      })),
    ),
    service('Cluster/MemberList', MemberListRequest, MemberListResponse, () =>
      change((machine) => ({
        record: undefined,
        result: {
          header: header(machine),
          members: [
            { id: memberId, name: 'embedded', peerUrls: [], clientUrls: [context.clientUrl()], isLearner: false },
          ],
        },
      })),
    ),
    service('Maintenance/Status', StatusRequest, StatusResponse, () =>
      change((machine) => ({
        record: undefined,
        result: {
          header: header(machine),
          version: apiVersion,
          dbSize: store.fileBytes,
          dbSizeInUse: machine.bytes,
          leader: memberId,
          raftIndex: machine.revision,
          raftTerm: 1,
          raftAppliedIndex: machine.revision,
          errors: [],
          isLearner: false,
        },
      })),
    ),
    service('Maintenance/Alarm', AlarmRequest, AlarmResponse, () =>
      change((machine) => ({ record: undefined, result: { header: header(machine) } })),
    ),
    service(
      'Auth/Authenticate',
      AuthenticateRequest,
      AuthenticateResponse,
      (request) => {
        const { token, session } = context;
        if (token === undefined) throw new StoreRefusal('FAILED_PRECONDITION', 'authentication is not enabled');
        if (!isSecret(request.password, token)) {
          throw new StoreRefusal('INVALID_ARGUMENT', 'authentication failed, invalid user ID or password');
        }
        return change((machine) => ({ record: undefined, result: { header: header(machine), token: session } }));
      },
      true,
    ),
  ];
}

function service<Request, Response>(
  path: string,
  request: MessageType<Request>,
  response: MessageType<Response>,
  handle: (request: Request) => Promise<Response>,
  open = false,
): UnaryService {
  return {
    path: `/etcdserverpb.${path}`,
    open,
    request,
    response: response,
    // Async, so that what is thrown at once is an answer too.
    handle: async (message) => await handle(message as Request),
  };
}

function timeToLive(
  machine: StoreMachine,
  request: LeaseTimeToLiveRequest,
  header: ResponseHeader,
  nowMs: number,
): LeaseTimeToLiveResponse {
  // As etcd: a lease that is not there has -1 seconds.
  if (!machine.hasLease(request.id)) return { header, id: request.id, ttl: -1, grantedTtl: 0, keys: [] };
  const { remainingMs, grantedSeconds, keys } = machine.timeToLive(request.id, nowMs);
  return {
    header,
    id: request.id,
    ttl: Math.ceil(remainingMs / 1000),
    grantedTtl: grantedSeconds,
    keys: request.keys ? keys.map(bytesOfByteText) : [],
  };
}

function expectType<Type extends OperationAnswer['type']>(
  answer: OperationAnswer,
  type: Type,
): OperationAnswer & { readonly type: Type } {
  if (answer.type === type) return answer as OperationAnswer & { readonly type: Type };
  throw new StoreRefusal('INTERNAL', `an answer of type ${answer.type} instead of ${type}`);
}

/** A positive 63-bit number, decimal. */
function newLeaseId(): string {
  return ((randomBytes(8).readBigUInt64BE() >> 1n) | 1n).toString();
}
