/** intarsia.grid.v1: the service of proto/grid.proto over the GridAdmin port. Bound only where there is a grid. */
import type { IMessageType } from '@protobuf-ts/runtime';
import type { sendUnaryData, ServerUnaryCall, ServerWritableStream } from '@grpc/grpc-js';
import type { ApiGroup } from '#core/api-group.js';
import { asIntarsiaError, intarsiaError } from '#core/errors.js';
import * as gen from '#gen/grid.js';
import type { GridAdmin, GridCall } from '#ports/grid-admin.js';
import type { PolicyBook } from '#ports/policy-admin.js';
import { headerOf, monotonicDeadline, type GrpcContext } from './context.js';
import { decoded } from './methods.js';
import { statusOf, streamErrorOf } from './status.js';

const service = '/intarsia.grid.v1.Grid';

/** The message as a port's plain data fits it: nobody writes to it. */
type Frozen<Value> = Value extends readonly (infer Item)[]
  ? readonly Frozen<Item>[]
  : Value extends object
    ? { readonly [Key in keyof Value]: Frozen<Value[Key]> }
    : Value;

export interface GridUnaryMethod {
  readonly path: string;
  readonly group: ApiGroup;
  answer(admin: GridAdmin, bytes: Uint8Array, call: GridCall): Promise<Uint8Array>;
}

/** Every answer of one request. */
export const gridUnaryMethods: readonly GridUnaryMethod[] = [
  // Whoever may send requests may know where to.
  method('Discover', 'metadata', gen.DiscoverRequest, gen.DiscoverResponse, (admin) => admin.discover()),
  method('Status', 'grid', gen.StatusRequest, gen.StatusResponse, (admin, _request, call) => admin.status(call)),
  method('Deploy', 'grid', gen.DeployRequest, gen.DeployResponse, (admin, request, call) =>
    admin.deploy(request, call),
  ),
  method('Undeploy', 'grid', gen.UndeployRequest, gen.UndeployResponse, (admin, request, call) =>
    admin.undeploy(request, call),
  ),
  method('Order', 'grid', gen.OrderRequest, gen.OrderResponse, (admin, request, call) => {
    const { order } = request;
    if (order !== 'cordon' && order !== 'uncordon' && order !== 'drain') {
      throw intarsiaError('INVALID_ARGUMENT', `order must be cordon, uncordon or drain; it is '${order.slice(0, 80)}'`);
    }
    return admin.order({ ...request, order }, call);
  }),
  method('Profiles', 'grid', gen.ProfilesRequest, gen.ProfilesResponse, (admin, request, call) =>
    admin.profiles(request, call),
  ),
  method('Policies', 'grid', gen.PoliciesRequest, gen.PolicyBook, async (admin, _request, call) =>
    policyBook(await admin.policies(call)),
  ),
  method('OrderPolicy', 'grid', gen.OrderPolicyRequest, gen.OrderPolicyResponse, async (admin, request, call) => {
    const step = policySteps.find((each) => each === request.step);
    if (step === undefined) {
      const given = request.step.slice(0, 80);
      throw intarsiaError('INVALID_ARGUMENT', `step must be one of ${policySteps.join(', ')}; it is '${given}'`);
    }
    const { book, ...outcome } = await admin.orderPolicy({ ...request, step }, call);
    return { ...outcome, book: policyBook(book) };
  }),
];

const policySteps = ['next', 'shadow', 'share', 'all', 'rollback'] as const;

function policyBook({ revision, pointer, versions, sightings }: PolicyBook): Frozen<gen.PolicyBook> {
  return {
    revision,
    pointer,
    versions: versions.map(({ batching, ...version }) => ({
      ...version,
      evaluated: version.evaluation !== undefined,
      batchingSha256: batching?.sha256 ?? '',
      batchingBytes: batching?.bytes ?? 0,
    })),
    sightings: sightings.map(({ host, refused, figures, groups }) => ({ host, refused, ...figures, groups })),
  };
}

export const watchHostsPath = `${service}/WatchHosts`;
export const watchEventsPath = `${service}/WatchEvents`;

function method<Request extends object, Response extends object>(
  name: string,
  group: ApiGroup,
  request: IMessageType<Request>,
  response: IMessageType<Response>,
  handle: (admin: GridAdmin, request: Request, call: GridCall) => Frozen<Response> | Promise<Frozen<Response>>,
): GridUnaryMethod {
  return {
    path: `${service}/${name}`,
    group,
    answer: async (admin, bytes, call) => encoded(response, await handle(admin, decoded(request, bytes), call)),
  };
}

export function handleGridUnary(
  context: GrpcContext,
  admin: GridAdmin,
  method: GridUnaryMethod,
): (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) => void {
  const answerTo = async (call: ServerUnaryCall<Buffer, Buffer>): Promise<Uint8Array> => {
    const caller = context.access.authorize(method.group, 'grpc', (name) => headerOf(call.metadata, name));
    return method.answer(admin, call.request, { caller, deadlineMs: monotonicDeadline(context, call.getDeadline()) });
  };
  return (call, callback) => {
    answerTo(call).then(
      (bytes) => callback(null, asBuffer(bytes)),
      (error: unknown) => callback(statusOf(asIntarsiaError(error))),
    );
  };
}

export function handleWatchHosts(
  context: GrpcContext,
  admin: GridAdmin,
  call: ServerWritableStream<Buffer, Buffer>,
): void {
  serveStream(call, () => {
    context.access.authorize('metadata', 'grpc', (name) => headerOf(call.metadata, name));
    decoded(gen.DiscoverRequest, call.request);
    // A reader that is slow gets the newest when it is ready again: each message is the whole.
    let waiting: Buffer | undefined;
    let blocked = false;
    const send = (bytes: Buffer): void => {
      if (blocked) waiting = bytes;
      else blocked = !call.write(bytes);
    };
    call.on('drain', () => {
      blocked = false;
      const next = waiting;
      waiting = undefined;
      if (next !== undefined) send(next);
    });
    return admin.watchHosts((hosts) => send(asBuffer(encoded(gen.DiscoverResponse, hosts))));
  });
}

export const prepareSplitPath = `${service}/PrepareSplit`;

export function handlePrepareSplit(
  context: GrpcContext,
  admin: GridAdmin,
  call: ServerWritableStream<Buffer, Buffer>,
): void {
  serveStream(call, () => {
    const caller = context.access.authorize('grid', 'grpc', (name) => headerOf(call.metadata, name));
    const request = decoded(gen.PrepareSplitRequest, call.request);
    const deadlineMs = monotonicDeadline(context, call.getDeadline());
    let isOver = false;
    const send = (progress: Frozen<gen.PrepareSplitProgress>): void => {
      if (!isOver) call.write(asBuffer(encoded(gen.PrepareSplitProgress, progress)));
    };
    admin
      .prepareSplit(request, { caller, deadlineMs }, (share, words) => send({ share, words }))
      .then(
        (result) => {
          send({ share: 1, words: '', result });
          if (!isOver) call.end();
        },
        (error: unknown) => {
          if (!isOver) call.emit('error', streamErrorOf(asIntarsiaError(error)));
        },
      );
    return () => {
      isOver = true;
    };
  });
}

/** Events that a slow reader may leave waiting; beyond it the stream ends, and the reader begins again where it was. */
const eventsWaitingMax = 1000;

export function handleWatchEvents(
  context: GrpcContext,
  admin: GridAdmin,
  call: ServerWritableStream<Buffer, Buffer>,
): void {
  serveStream(call, () => {
    context.access.authorize('grid', 'grpc', (name) => headerOf(call.metadata, name));
    const { after, follow } = decoded(gen.WatchEventsRequest, call.request);
    let waiting = 0;
    call.on('drain', () => {
      waiting = 0;
    });
    return admin.watchEvents(
      { after, follow },
      {
        event: (event) => {
          waiting = call.write(asBuffer(encoded(gen.Event, event))) ? 0 : waiting + 1;
          if (waiting > eventsWaitingMax) {
            const error = intarsiaError('RESOURCE_EXHAUSTED', `more than ${eventsWaitingMax} events wait to be read`);
            call.emit('error', streamErrorOf(error));
          }
        },
        end: (error) => {
          if (error === undefined) call.end();
          else call.emit('error', streamErrorOf(asIntarsiaError(error)));
        },
      },
    );
  });
}

/** Begins a stream of answers, and ends what feeds it when the client goes. */
function serveStream(call: ServerWritableStream<Buffer, Buffer>, begin: () => () => void): void {
  try {
    const stop = begin();
    call.on('cancelled', stop);
    call.on('close', stop);
    call.on('error', stop);
  } catch (error) {
    call.emit('error', streamErrorOf(asIntarsiaError(error)));
  }
}

function encoded<Message extends object>(type: IMessageType<Message>, message: Frozen<Message>): Uint8Array {
  // The encoder reads and never writes.
  return type.toBinary(type.create(message as Parameters<typeof type.create>[0]));
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
