/**
 * ModelInfer: bytes in, bytes out, one callback. The frame is written by our own encoder: the library asks the serialised
 * answer for its `byteLength` and to `copy` itself behind the frame's head, which an `EncodedMessage` does without ever
 * being a buffer of its own, so that tensors are copied once.
 */
import type { Metadata, sendUnaryData, ServerUnaryCall } from '@grpc/grpc-js';
import { asIntarsiaError, type IntarsiaError } from '#core/errors.js';
import type { InferRequestMessage, InferResponseMessage } from '#core/inference-message.js';
import { decodeInferRequest, encodeInferResponse, type EncodedMessage } from '#core/inference-wire.js';
import type { Access, Caller, InferGateway, InferReply } from '#ports/inference-gateway.js';
import { statusOf } from './status.js';

/** What the handlers of one server share. */
export interface GrpcContext {
  readonly gateway: InferGateway;
  readonly access: Access;
  /** Wall clock, ms since 1970: the library's deadlines count on it. */
  readonly wallMs: () => number;
}

/** Parameters of Triton's own that a gRPC request may carry. */
const reservedParameters: ReadonlySet<string> = new Set(['triton_enable_empty_final_response']);

export function handleInfer(
  context: GrpcContext,
  call: ServerUnaryCall<Buffer, EncodedMessage>,
  callback: sendUnaryData<EncodedMessage>,
): void {
  const reply = new UnaryReply(callback);
  let caller: Caller;
  let message: InferRequestMessage;
  try {
    caller = context.access.authorize('inference', 'grpc', (name) => headerOf(call.metadata, name));
    message = decodeInferRequest(plainBytes(call.request));
  } catch (error) {
    reply.fail(asIntarsiaError(error));
    return;
  }
  const ticket = context.gateway.infer(message, inferCallOf(context, caller, call, call.request.byteLength), reply);
  if (!reply.answered) call.on('cancelled', () => ticket.cancel());
}

/** The circumstances of a request, the same for single calls and for messages of a stream. */
export function inferCallOf(
  context: GrpcContext,
  caller: Caller,
  call: { readonly metadata: Metadata; getDeadline(): Date | number },
  messageBytes: number,
): Parameters<InferGateway['infer']>[1] {
  return {
    caller,
    deadlineMs: monotonicDeadline(context, call.getDeadline()),
    messageBytes,
    sloMs: sloOf(headerOf(call.metadata, 'x-slo-ttft-ms')),
    traceparent: headerOf(call.metadata, 'traceparent'),
    reservedParameters,
  };
}

/** The same bytes as a plain Uint8Array: a Buffer's `slice` does not copy, which would surprise whoever gets a view. */
export function plainBytes(bytes: Buffer): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A header's first value as text. */
export function headerOf(metadata: Metadata, name: string): string | undefined {
  const [value] = metadata.get(name);
  return value === undefined || typeof value === 'string' ? value : value.toString('latin1');
}

/** The library's deadline (wall clock) on the host's monotonic clock. */
export function monotonicDeadline(context: GrpcContext, deadline: Date | number): number {
  const wallMs = typeof deadline === 'number' ? deadline : deadline.getTime();
  return wallMs === Infinity ? Infinity : context.gateway.nowMs() + (wallMs - context.wallMs());
}

/** A hope, not a demand: what is not a number is no hope. */
function sloOf(header: string | undefined): number {
  if (header === undefined) return 0;
  const value = Number(header);
  return value > 0 && value < Infinity ? value : 0;
}

class UnaryReply implements InferReply {
  answered = false;
  readonly #callback: sendUnaryData<EncodedMessage>;

  constructor(callback: sendUnaryData<EncodedMessage>) {
    this.#callback = callback;
  }

  succeed(answer: InferResponseMessage): void {
    let encoded: EncodedMessage;
    try {
      encoded = encodeInferResponse(answer);
    } catch (error) {
      this.fail(asIntarsiaError(error));
      return;
    }
    this.answered = true;
    this.#callback(null, encoded);
  }

  fail(error: IntarsiaError): void {
    this.answered = true;
    this.#callback(statusOf(error));
  }
}
