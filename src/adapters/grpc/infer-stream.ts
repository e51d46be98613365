/**
 * ModelStreamInfer: many requests and answers on one stream, answered as they are done.
 *
 * Reading stops while too many requests of the stream are in flight or the client does not take its answers, so that a
 * stream holds a bounded number of requests whatever the client does. Errors travel in `error_message` and the stream
 * stays open; a client that sends `triton_grpc_error: true` gets a status instead, as does one that asked for MLServer's
 * shape (`intarsia-stream-dialect: mlserver`), which has no place for an error.
 */
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { asIntarsiaError, type IntarsiaError } from '#core/errors.js';
import type { InferParameter, InferRequestMessage, InferResponseMessage } from '#core/inference-message.js';
import {
  decodeInferRequest,
  encodeInferResponse,
  encodeStreamInferError,
  encodeStreamInferResponse,
  type EncodedMessage,
} from '#core/inference-wire.js';
import type { Caller, InferReply, InferTicket } from '#ports/inference-gateway.js';
import { headerOf, inferCallOf, plainBytes, type GrpcContext } from './infer-handlers.js';
import { streamErrorOf } from './status.js';

export interface StreamOptions {
  /** Requests of one stream in flight; beyond it the stream is not read. */
  readonly requestsMax: number;
}

type InferStream = ServerDuplexStream<Buffer, EncodedMessage>;

export function handleStreamInfer(context: GrpcContext, options: StreamOptions, call: InferStream): void {
  try {
    const caller = context.access.authorize('inference', 'grpc', (name) => headerOf(call.metadata, name));
    new InferStreamHandler(context, options, call, caller).start();
  } catch (error) {
    call.emit('error', streamErrorOf(asIntarsiaError(error)));
  }
}

class InferStreamHandler {
  readonly #context: GrpcContext;
  readonly #requestsMax: number;
  readonly #call: InferStream;
  readonly #caller: Caller;
  readonly #bare: boolean;
  readonly #errorsAsStatus: boolean;
  readonly #tickets = new Set<StreamReply>();
  #mustDrain = false;
  #readAll = false;
  #ended = false;

  constructor(context: GrpcContext, options: StreamOptions, call: InferStream, caller: Caller) {
    this.#context = context;
    this.#requestsMax = options.requestsMax;
    this.#call = call;
    this.#caller = caller;
    this.#bare = headerOf(call.metadata, 'intarsia-stream-dialect') === 'mlserver';
    this.#errorsAsStatus = this.#bare || headerOf(call.metadata, 'triton_grpc_error') === 'true';
  }

  start(): void {
    const call = this.#call;
    call.on('data', (bytes: Buffer) => this.#onRequest(bytes));
    call.on('end', () => {
      this.#readAll = true;
      this.#endWhenDone();
    });
    call.on('drain', () => {
      this.#mustDrain = false;
      this.#readOrWait();
    });
    call.on('cancelled', () => this.#abandon());
    call.on('error', () => this.#abandon());
  }

  #onRequest(bytes: Buffer): void {
    if (this.#ended) return;
    const reply = new StreamReply(this);
    this.#tickets.add(reply);
    let message: InferRequestMessage;
    try {
      message = decodeInferRequest(plainBytes(bytes));
    } catch (error) {
      reply.fail(asIntarsiaError(error));
      return;
    }
    reply.id = message.id;
    const inferCall = inferCallOf(this.#context, this.#caller, this.#call, bytes.byteLength);
    reply.ticket = this.#context.gateway.infer(message, inferCall, reply);
    this.#readOrWait();
  }

  succeed(reply: StreamReply, answer: InferResponseMessage): void {
    const parameters = new Map<string, InferParameter>(answer.parameters);
    parameters.set('triton_final_response', { kind: 'bool', value: true });
    const marked = { ...answer, parameters };
    this.#write(this.#bare ? encodeInferResponse(marked) : encodeStreamInferResponse(marked));
    this.#forget(reply);
  }

  fail(reply: StreamReply, error: IntarsiaError): void {
    if (this.#ended) this.#tickets.delete(reply);
    else if (this.#errorsAsStatus) {
      this.#tickets.delete(reply);
      this.#ended = true;
      this.#call.emit('error', streamErrorOf(error));
    } else {
      this.#write(encodeStreamInferError(error.message, reply.id, error.code));
      this.#forget(reply);
    }
  }

  #write(message: EncodedMessage): void {
    if (!this.#ended && !this.#call.write(message)) this.#mustDrain = true;
  }

  #forget(reply: StreamReply): void {
    this.#tickets.delete(reply);
    this.#readOrWait();
    this.#endWhenDone();
  }

  #readOrWait(): void {
    if (this.#ended || this.#readAll) return;
    const wait = this.#mustDrain || this.#tickets.size >= this.#requestsMax;
    if (wait !== this.#call.isPaused()) {
      if (wait) this.#call.pause();
      else this.#call.resume();
    }
  }

  #endWhenDone(): void {
    if (!this.#readAll || this.#ended || this.#tickets.size > 0) return;
    this.#ended = true;
    this.#call.end();
  }

  /** The client is gone: nobody waits for what is in flight. */
  #abandon(): void {
    this.#ended = true;
    for (const reply of [...this.#tickets]) reply.ticket?.cancel();
    this.#tickets.clear();
  }
}

class StreamReply implements InferReply {
  id = '';
  ticket: InferTicket | undefined;
  readonly #stream: InferStreamHandler;

  constructor(stream: InferStreamHandler) {
    this.#stream = stream;
  }

  succeed(answer: InferResponseMessage): void {
    try {
      this.#stream.succeed(this, answer);
    } catch (error) {
      this.#stream.fail(this, asIntarsiaError(error));
    }
  }

  fail(error: IntarsiaError): void {
    this.#stream.fail(this, error);
  }
}
