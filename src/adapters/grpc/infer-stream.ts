/**
 * ModelStreamInfer: many requests and answers on one stream, answered as they are done.
 *
 * Reading stops while too many requests of the stream are in flight or the client does not take its answers, so that a
 * stream holds a bounded number of requests whatever the client does. Errors travel in `error_message` and the stream
 * stays open; a client that sends `triton_grpc_error: true` gets a status instead, as does one that asked for MLServer's
 * shape (`intarsia-stream-dialect: mlserver`), which has no place for an error.
 */
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { InferParameter, InferRequestMessage, InferResponseMessage } from '#core/inference-message.js';
import {
  decodeInferRequest,
  encodeInferResponse,
  encodeStreamInferError,
  encodeStreamInferResponse,
  type EncodedMessage,
} from '#core/inference-wire.js';
import type { Caller, InferReply, InferTicket } from '#ports/inference-gateway.js';
import type { GrpcContext } from './context.js';
import type { InferCall, InferCallHandler } from './infer-call.js';
import { callerOf, circumstancesOf, forgetRequest } from './infer-handlers.js';

export interface StreamOptions {
  /** Requests of one stream in flight; beyond it the stream is not read. */
  readonly requestsMax: number;
}

/** Longest timer, ms; a client that gives the stream longer gives it for ever. */
const timerMsMax = 2 ** 31 - 1;

export function handleStreamInfer(context: GrpcContext, options: StreamOptions, call: InferCall): void {
  try {
    call.listen(new InferStreamHandler(context, options, call));
  } catch (error) {
    call.fail(asIntarsiaError(error));
  }
}

class InferStreamHandler implements InferCallHandler {
  readonly #context: GrpcContext;
  readonly #requestsMax: number;
  readonly #call: InferCall;
  readonly #caller: Caller;
  readonly #deadlineMs: number;
  readonly #deadline: NodeJS.Timeout | undefined;
  readonly #bare: boolean;
  readonly #errorsAsStatus: boolean;
  readonly #tickets = new Set<StreamReply>();
  #mustDrain = false;
  #readAll = false;

  /** @throws UNAUTHENTICATED, PERMISSION_DENIED, INVALID_ARGUMENT. */
  constructor(context: GrpcContext, options: StreamOptions, call: InferCall) {
    this.#context = context;
    this.#requestsMax = options.requestsMax;
    this.#call = call;
    this.#caller = callerOf(context, call);
    this.#bare = call.header('intarsia-stream-dialect') === 'mlserver';
    this.#errorsAsStatus = this.#bare || call.header('triton_grpc_error') === 'true';
    const timeoutMs = call.timeoutMs();
    this.#deadlineMs = context.gateway.nowMs() + timeoutMs;
    if (timeoutMs <= timerMsMax) {
      this.#deadline = setTimeout(() => this.#endWith(deadlinePassed(timeoutMs)), timeoutMs);
    }
  }

  message(bytes: Uint8Array): void {
    const reply = new StreamReply(this, bytes);
    this.#tickets.add(reply);
    let message: InferRequestMessage;
    try {
      message = decodeInferRequest(bytes);
    } catch (error) {
      reply.fail(asIntarsiaError(error));
      return;
    }
    reply.id = message.id;
    const circumstances = circumstancesOf(this.#caller, this.#call, this.#deadlineMs, bytes.byteLength);
    reply.ticket = this.#context.gateway.infer(message, circumstances, reply);
    this.#readOrWait();
  }

  end(): void {
    this.#readAll = true;
    this.#endWhenDone();
  }

  drain(): void {
    this.#mustDrain = false;
    this.#readOrWait();
  }

  /** The client is gone, or the call is over: nobody waits for what is in flight. */
  lost(): void {
    clearTimeout(this.#deadline);
    for (const reply of [...this.#tickets]) reply.ticket?.cancel();
    this.#tickets.clear();
  }

  succeed(reply: StreamReply, answer: InferResponseMessage, requestIsRead: boolean): void {
    const parameters = new Map<string, InferParameter>(answer.parameters);
    parameters.set('triton_final_response', { kind: 'bool', value: true });
    const marked = { ...answer, parameters };
    if (requestIsRead) forgetRequest(this.#call, reply.request, answer);
    this.#write(this.#bare ? encodeInferResponse(marked) : encodeStreamInferResponse(marked), answer.release);
    this.#forget(reply);
  }

  fail(reply: StreamReply, error: IntarsiaError): void {
    if (this.#call.isOver) this.#tickets.delete(reply);
    else if (this.#errorsAsStatus) {
      this.#tickets.delete(reply);
      this.#endWith(error);
    } else {
      this.#write(encodeStreamInferError(error.message, reply.id, error.code));
      this.#forget(reply);
    }
  }

  #write(message: EncodedMessage, release?: () => void): void {
    if (!this.#call.send(message, release)) this.#mustDrain = true;
  }

  #forget(reply: StreamReply): void {
    this.#tickets.delete(reply);
    this.#readOrWait();
    this.#endWhenDone();
  }

  #readOrWait(): void {
    if (this.#mustDrain || this.#tickets.size >= this.#requestsMax) this.#call.pause();
    else this.#call.resume();
  }

  #endWhenDone(): void {
    if (!this.#readAll || this.#tickets.size > 0) return;
    clearTimeout(this.#deadline);
    this.#call.finish();
  }

  #endWith(error: IntarsiaError): void {
    this.#call.fail(error);
    this.lost();
  }
}

class StreamReply implements InferReply {
  id = '';
  ticket: InferTicket | undefined;
  readonly request: Uint8Array;
  readonly #stream: InferStreamHandler;

  constructor(stream: InferStreamHandler, request: Uint8Array) {
    this.request = request;
    this.#stream = stream;
  }

  succeed(answer: InferResponseMessage, requestIsRead: boolean): void {
    try {
      this.#stream.succeed(this, answer, requestIsRead);
    } catch (error) {
      this.#stream.fail(this, asIntarsiaError(error));
    }
  }

  fail(error: IntarsiaError): void {
    this.#stream.fail(this, error);
  }
}

function deadlinePassed(timeoutMs: number): IntarsiaError {
  return intarsiaError('DEADLINE_EXCEEDED', `the deadline of the stream passed after ${Math.round(timeoutMs)} ms`);
}
