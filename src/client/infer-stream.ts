/**
 * Many requests over one stream: cheaper a request than calls of their own, answered in the order the server finishes.
 *
 * Bounded: at most `windowMax` requests are on their way; `send` waits for room. An answer that nobody reads holds back
 * the ones behind it, down to the server (HTTP/2 flow control). An error belongs to one item and leaves the stream open;
 * the end of the connection ends the stream with an error, and every request on its way with it.
 */
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import { decodeInferResponse } from '#core/inference-wire.js';
import type { InferResponseMessage } from '#core/inference-message.js';
import { WireReader, wireType } from '#core/wire.js';
import type { CallFailure, ChannelStream, GrpcChannel } from '#adapters/grpc/client-channel.js';
import { InferResult } from './infer-result.js';
import { codeOfText, errorOfFailure, isErrorCode } from './remote-error.js';

/** One answer of a stream: a result, or the error of one request. `id` is the request's. */
export type StreamItem =
  | { readonly ok: true; readonly id: string; readonly result: InferResult }
  | { readonly ok: false; readonly id: string; readonly error: IntarsiaError };

export interface StreamLimits {
  /** Requests on their way at once. */
  readonly windowMax: number;
}

export interface StreamOpening {
  readonly channel: GrpcChannel;
  readonly endpoint: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly deadlineWallMs: number;
  readonly limits: StreamLimits;
  readonly signal: AbortSignal | undefined;
  /** Called once, when the stream is over; the failure says why when it did not end in good order. */
  readonly onEnd: (failure: CallFailure | undefined, error: IntarsiaError | undefined) => void;
}

const streamPath = '/inference.GRPCInferenceService/ModelStreamInfer';
/** Answers kept for a reader who is behind, before the connection is held back. */
const bufferedMax = 16;
/** Sends that may wait for room at once. */
const waitingSendersMax = 10_000;

export class InferStream implements AsyncIterable<StreamItem> {
  readonly #call: ChannelStream;
  readonly #opening: StreamOpening;
  readonly #items: StreamItem[] = [];
  readonly #waitingReaders: { resolve(result: IteratorResult<StreamItem>): void; reject(error: Error): void }[] = [];
  readonly #waitingSenders: (() => void)[] = [];
  #onWay = 0;
  #writable = true;
  #finished = false;
  #cancelled = false;
  #over = false;
  #failure: IntarsiaError | undefined;
  #failureTold = false;
  #paused = false;

  constructor(opening: StreamOpening) {
    this.#opening = opening;
    this.#call = opening.channel.stream(
      streamPath,
      { metadata: opening.metadata, deadlineWallMs: opening.deadlineWallMs },
      {
        message: (bytes) => this.#receive(bytes),
        drained: () => {
          this.#writable = true;
          this.#wakeSenders();
        },
        end: (failure) => this.#end(failure),
      },
    );
    opening.signal?.addEventListener('abort', this.#abort, { once: true });
    if (opening.signal?.aborted === true) this.#abort();
  }

  /** Requests sent and not answered. */
  get inFlight(): number {
    return this.#onWay;
  }

  /**
   * Sends an encoded request; resolves once it is handed to the connection, which may mean waiting for room.
   * @throws the error that ended the stream, or FAILED_PRECONDITION after `end`, CANCELLED after `cancel`.
   */
  async sendEncoded(message: Uint8Array): Promise<void> {
    while (!this.#over && !this.#finished && !this.#hasRoom) {
      if (this.#waitingSenders.length >= waitingSendersMax) {
        throw intarsiaError(
          'RESOURCE_EXHAUSTED',
          `${waitingSendersMax} sends wait for room in this stream: await each send`,
        );
      }
      await new Promise<void>((resolve) => this.#waitingSenders.push(resolve));
    }
    if (this.#cancelled) throw intarsiaError('CANCELLED', 'this stream was cancelled by its caller');
    if (this.#finished) throw intarsiaError('FAILED_PRECONDITION', 'this stream was ended: nothing more can be sent');
    if (this.#over) throw this.#failure ?? intarsiaError('UNAVAILABLE', 'the server has ended this stream');
    this.#onWay += 1;
    this.#writable = this.#call.write(message);
  }

  /** Nothing more will be sent. What is on its way is still answered, then iteration ends. */
  end(): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#call.finish();
    this.#wakeSenders();
  }

  /** Gives up: requests on their way are cancelled on the server. */
  cancel(): void {
    this.#cancelled = true;
    this.#finished = true;
    this.#call.cancel();
  }

  /** Items in the order of their arrival. Leaving the loop early cancels the stream. */
  [Symbol.asyncIterator](): AsyncIterator<StreamItem> {
    return {
      next: () => this.#next(),
      return: () => {
        if (!this.#over) this.cancel();
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }

  get #hasRoom(): boolean {
    return this.#writable && this.#onWay < this.#opening.limits.windowMax;
  }

  #next(): Promise<IteratorResult<StreamItem>> {
    const item = this.#items.shift();
    if (item !== undefined) {
      if (this.#paused && this.#items.length < bufferedMax / 2) {
        this.#paused = false;
        this.#call.resume();
      }
      return Promise.resolve({ done: false, value: item });
    }
    if (!this.#over) {
      return new Promise((resolve, reject) => this.#waitingReaders.push({ resolve, reject }));
    }
    if (this.#failure !== undefined && !this.#failureTold) {
      this.#failureTold = true;
      return Promise.reject(this.#failure);
    }
    return Promise.resolve({ done: true, value: undefined });
  }

  #receive(bytes: Uint8Array): void {
    let item: StreamItem;
    let isLast: boolean;
    try {
      const { error, response } = decodeStreamMessage(bytes);
      const final = response?.parameters.get('triton_final_response');
      isLast = final?.kind !== 'bool' || final.value;
      item =
        error === ''
          ? {
              ok: true,
              id: response?.id ?? '',
              result: new InferResult(response ?? decodeInferResponse(new Uint8Array(0))),
            }
          : { ok: false, id: response?.id ?? '', error: itemError(error, response, this.#opening.endpoint) };
    } catch (error) {
      // An answer that cannot be read leaves the stream without meaning: nobody knows which request it was for.
      this.#fail(
        intarsiaError('INTERNAL', `endpoint ${this.#opening.endpoint} sent an answer that cannot be read`, {}, error),
      );
      this.#call.cancel();
      return;
    }
    if (isLast && this.#onWay > 0) this.#onWay -= 1;
    const reader = this.#waitingReaders.shift();
    if (reader !== undefined) reader.resolve({ done: false, value: item });
    else {
      this.#items.push(item);
      if (this.#items.length >= bufferedMax && !this.#paused) {
        this.#paused = true;
        this.#call.pause();
      }
    }
    this.#wakeSenders();
  }

  #end(failure: CallFailure | undefined): void {
    if (this.#over) return;
    if (failure !== undefined) this.#fail(errorOfFailure(failure, this.#opening.endpoint), failure);
    else if (this.#onWay > 0) {
      const message = `endpoint ${this.#opening.endpoint} ended the stream with ${this.#onWay} requests unanswered`;
      this.#fail(intarsiaError('UNAVAILABLE', message, { unanswered: this.#onWay }));
    } else this.#close(undefined);
  }

  #fail(error: IntarsiaError, failure?: CallFailure): void {
    if (this.#over) return;
    this.#failure = error;
    this.#close(failure);
  }

  #close(failure: CallFailure | undefined): void {
    this.#over = true;
    this.#opening.signal?.removeEventListener('abort', this.#abort);
    const [first, ...others] = this.#waitingReaders.splice(0);
    if (first !== undefined) {
      if (this.#failure === undefined) first.resolve({ done: true, value: undefined });
      else {
        this.#failureTold = true;
        first.reject(this.#failure);
      }
    }
    for (const reader of others) reader.resolve({ done: true, value: undefined });
    this.#wakeSenders();
    this.#opening.onEnd(failure, this.#failure);
  }

  /** Each looks again at the state itself. */
  #wakeSenders(): void {
    if (this.#hasRoom || this.#over || this.#finished) for (const wake of this.#waitingSenders.splice(0)) wake();
  }

  readonly #abort = (): void => this.cancel();
}

/** A `ModelStreamInferResponse`; an error keeps the id of its request in an otherwise empty answer. */
function decodeStreamMessage(bytes: Uint8Array): {
  readonly error: string;
  readonly response: InferResponseMessage | undefined;
} {
  const reader = new WireReader(bytes);
  let error = '';
  let response: InferResponseMessage | undefined;
  while (reader.next()) {
    if (reader.field === 1 && reader.type === wireType.bytes) error = reader.string();
    else if (reader.field === 2 && reader.type === wireType.bytes) response = decodeInferResponse(reader.bytes());
    else reader.skip();
  }
  return { error, response };
}

function itemError(text: string, response: InferResponseMessage | undefined, endpoint: string): IntarsiaError {
  const named = response?.parameters.get('intarsia_code');
  const code = named?.kind === 'string' && isErrorCode(named.value) ? named.value : codeOfText(text);
  return intarsiaError(code, text, { endpoint });
}
