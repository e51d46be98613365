/** A gRPC server of a few lines that does what a test tells it: the other end of the client's tests. */
import { Metadata, Server, ServerCredentials } from '@grpc/grpc-js';
import type { handleBidiStreamingCall, handleUnaryCall, sendUnaryData, ServerUnaryCall } from '@grpc/grpc-js';
import { grpcStatus } from '#core/errors.js';
import type { GrpcStatusName } from '#core/errors.js';
import {
  decodeInferRequest,
  encodeInferResponse,
  encodeStreamInferError,
  encodeStreamInferResponse,
} from '#core/inference-wire.js';
import { noParameters } from '#core/inference-message.js';
import type { InferParameter, InferRequestMessage, InferResponseMessage } from '#core/inference-message.js';

/** What a unary handler may answer with. */
export class StatusError extends Error {
  readonly status: GrpcStatusName;
  readonly fields: Readonly<Record<string, string>>;

  constructor(status: GrpcStatusName, message: string, fields: Readonly<Record<string, string>> = {}) {
    super(message);
    this.status = status;
    this.fields = fields;
  }
}

export interface Incoming {
  readonly bytes: Uint8Array;
  readonly metadata: Metadata;
  /** Wall clock ms, or Infinity. */
  readonly deadline: number;
  /** Resolves when the client cancels. */
  readonly cancelled: Promise<void>;
}

export type UnaryHandler = (call: Incoming) => Promise<Uint8Array> | Uint8Array;
/** Answers one message of a stream. */
export type StreamHandler = (
  request: InferRequestMessage,
) => Promise<Uint8Array | StatusError> | Uint8Array | StatusError;

export interface PretendServer {
  readonly endpoint: string;
  /** Calls seen, by method. */
  readonly seen: Map<string, number>;
  stop(): void;
}

const asIs = (bytes: Buffer): Buffer => bytes;

export async function startPretendServer(handlers: {
  readonly unary?: Readonly<Record<string, UnaryHandler>>;
  readonly stream?: StreamHandler;
}): Promise<PretendServer> {
  const server = new Server({ 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 });
  const seen = new Map<string, number>();
  const count = (method: string): void => void seen.set(method, (seen.get(method) ?? 0) + 1);
  const definition: Record<string, object> = {};
  const implementation: Record<string, handleUnaryCall<Buffer, Buffer> | handleBidiStreamingCall<Buffer, Buffer>> = {};
  for (const [method, handler] of Object.entries(handlers.unary ?? {})) {
    definition[method] = methodOf(method, false);
    implementation[method] = (call: ServerUnaryCall<Buffer, Buffer>, reply: sendUnaryData<Buffer>) => {
      count(method);
      const cancelled = new Promise<void>((resolve) => call.once('cancelled', () => resolve()));
      const deadline = Number(call.getDeadline());
      Promise.resolve()
        .then(() => handler({ bytes: call.request, metadata: call.metadata, deadline, cancelled }))
        .then(
          (answer) => reply(null, Buffer.from(answer)),
          (error: unknown) => reply(serviceError(error)),
        );
    };
  }
  const streamHandler = handlers.stream;
  if (streamHandler !== undefined) {
    definition['ModelStreamInfer'] = methodOf('ModelStreamInfer', true);
    const handle: handleBidiStreamingCall<Buffer, Buffer> = (call) => {
      count('ModelStreamInfer');
      let open = 0;
      let ended = false;
      call.on('data', (bytes: Buffer) => {
        count('message');
        open += 1;
        void Promise.resolve(streamHandler(decodeInferRequest(bytes))).then((answer) => {
          open -= 1;
          if (answer instanceof StatusError) call.emit('error', serviceError(answer));
          else call.write(Buffer.from(answer));
          if (ended && open === 0) call.end();
        });
      });
      call.on('end', () => {
        ended = true;
        if (open === 0) call.end();
      });
      call.on('error', () => {});
    };
    implementation['ModelStreamInfer'] = handle;
  }
  if (Object.keys(definition).length > 0) server.addService(definition as never, implementation);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  return { endpoint: `127.0.0.1:${port}`, seen, stop: () => server.forceShutdown() };
}

function methodOf(method: string, isStream: boolean): object {
  return {
    path: `/inference.GRPCInferenceService/${method}`,
    requestStream: isStream,
    responseStream: isStream,
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  };
}

function serviceError(error: unknown): { code: number; details: string; metadata: Metadata } {
  const metadata = new Metadata();
  if (!(error instanceof StatusError)) return { code: grpcStatus.UNKNOWN, details: String(error), metadata };
  for (const [name, value] of Object.entries(error.fields)) metadata.set(name, value);
  return { code: grpcStatus[error.status], details: error.message, metadata };
}

/** An answer that gives each input back under its own name. */
export function echoOf(
  request: InferRequestMessage,
  parameters: ReadonlyMap<string, InferParameter> = noParameters,
): InferResponseMessage {
  return {
    modelName: request.modelName,
    modelVersion: request.modelVersion === '' ? '1' : request.modelVersion,
    id: request.id,
    parameters,
    outputs: request.inputs,
    rawContents: true,
  };
}

export const echo: UnaryHandler = ({ bytes }) => encodeInferResponse(echoOf(decodeInferRequest(bytes))).toBytes();

export const streamEcho: StreamHandler = (request) => encodeStreamInferResponse(echoOf(request)).toBytes();

export function streamError(message: string, id: string, code = ''): Uint8Array {
  return encodeStreamInferError(message, id, code).toBytes();
}
