/** ModelInfer: one request, one answer, no promise in between. */
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { InferRequestMessage, InferResponseMessage } from '#core/inference-message.js';
import { decodeInferRequest, encodeInferResponse, type EncodedMessage } from '#core/inference-wire.js';
import type { Caller, InferGateway, InferReply, InferTicket } from '#ports/inference-gateway.js';
import type { GrpcContext } from './context.js';
import type { InferCall, InferCallHandler } from './infer-call.js';

/** Parameters of Triton's own that a gRPC request may carry. */
const reservedParameters: ReadonlySet<string> = new Set(['triton_enable_empty_final_response']);

export function handleInfer(context: GrpcContext, call: InferCall): void {
  call.listen(new SingleInfer(context, call));
}

/** Who calls. @throws UNAUTHENTICATED, PERMISSION_DENIED. */
export function callerOf(context: GrpcContext, call: InferCall): Caller {
  return context.access.authorize('inference', 'grpc', (name) => call.header(name));
}

/** The circumstances of a request, the same for single calls and for messages of a stream. */
export function circumstancesOf(
  caller: Caller,
  call: InferCall,
  deadlineMs: number,
  messageBytes: number,
): Parameters<InferGateway['infer']>[1] {
  return {
    caller,
    deadlineMs,
    messageBytes,
    sloMs: sloOf(call.header('x-slo-ttft-ms')),
    traceparent: call.header('traceparent'),
    reservedParameters,
  };
}

/** Gives the memory of a request back that nobody reads any more, unless the answer is made of it. */
export function forgetRequest(call: InferCall, request: Uint8Array, answer: InferResponseMessage): void {
  if (answer.outputs.every(({ data }) => data.buffer !== request.buffer)) call.forget(request);
}

/** A hope, not a demand: what is not a number is no hope. */
function sloOf(header: string | undefined): number {
  if (header === undefined) return 0;
  const value = Number(header);
  return value > 0 && value < Infinity ? value : 0;
}

class SingleInfer implements InferCallHandler, InferReply {
  readonly #context: GrpcContext;
  readonly #call: InferCall;
  readonly #startedMs: number;
  #ticket: InferTicket | undefined;
  #request: Uint8Array | undefined;

  constructor(context: GrpcContext, call: InferCall) {
    this.#context = context;
    this.#call = call;
    this.#startedMs = context.gateway.nowMs();
  }

  message(bytes: Uint8Array): void {
    if (this.#request !== undefined) {
      this.fail(intarsiaError('INVALID_ARGUMENT', 'ModelInfer takes one request a call; this call sent a second one'));
      this.lost();
      return;
    }
    this.#request = bytes;
    const { gateway } = this.#context;
    let caller: Caller;
    let deadlineMs: number;
    let message: InferRequestMessage;
    try {
      caller = callerOf(this.#context, this.#call);
      deadlineMs = this.#startedMs + this.#call.timeoutMs();
      message = decodeInferRequest(bytes);
    } catch (error) {
      this.fail(asIntarsiaError(error));
      return;
    }
    this.#ticket = gateway.infer(message, circumstancesOf(caller, this.#call, deadlineMs, bytes.byteLength), this);
  }

  end(): void {
    if (this.#request === undefined)
      this.fail(intarsiaError('INVALID_ARGUMENT', 'the call has ended without a request'));
  }

  drain(): void {
    // One answer: nothing waits.
  }

  lost(): void {
    this.#ticket?.cancel();
  }

  succeed(answer: InferResponseMessage, requestIsRead: boolean): void {
    let encoded: EncodedMessage;
    try {
      encoded = encodeInferResponse(answer);
    } catch (error) {
      this.fail(asIntarsiaError(error));
      return;
    }
    if (requestIsRead && this.#request !== undefined) forgetRequest(this.#call, this.#request, answer);
    this.#call.finish(encoded, answer.release);
  }

  fail(error: IntarsiaError): void {
    this.#call.fail(error);
  }
}
