/**
 * One call from the user's view: attempts on several endpoints until there is an answer, an error that no retry can help,
 * the deadline, or a cancellation. Everything a call needs is decided here; what the bytes mean is decided elsewhere.
 */
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { Clock } from '#ports/clock.js';
import type { Random } from '#ports/random.js';
import { GrpcChannel, type CallFailure, type CallOutcome } from '#adapters/grpc/client-channel.js';
import { EndpointPicker, type EndpointState, type EndpointVerdict } from './endpoint-picker.js';
import type { CompleteClientOptions } from './options.js';
import { errorOfFailure, verdictOf } from './remote-error.js';
import { backoffMs, RetryBudget } from './retry-budget.js';

/** What every call of the client understands. */
export interface CallOptions {
  /** Milliseconds this call may take, all attempts together. Default: the client's `timeoutMs`. */
  readonly timeoutMs?: number;
  /** Moment after which nobody wants the answer. The earlier of this and `timeoutMs` counts. */
  readonly deadline?: Date;
  /** Cancels the call: it ends with CANCELLED at once, and the server is told. */
  readonly signal?: AbortSignal;
}

export interface CallRequest {
  /** `/package.Service/Method`. */
  readonly path: string;
  readonly message: Uint8Array;
  /** Whether repeating it does no harm. False: one attempt. */
  readonly idempotent: boolean;
}

/** Counts since the client was made. */
export interface CallStatistics {
  readonly calls: number;
  readonly attempts: number;
  readonly retries: number;
  /** Retries that the budget refused. */
  readonly retriesRefused: number;
  readonly inFlight: number;
}

export class Caller {
  readonly #options: CompleteClientOptions;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #picker: EndpointPicker;
  readonly #budget: RetryBudget;
  /** By endpoint and connection; opened when first used. */
  readonly #channels: (GrpcChannel | undefined)[][];
  readonly #nextConnection: number[];
  #closed = false;
  #inFlight = 0;
  #calls = 0;
  #attempts = 0;
  #retriesRefused = 0;

  constructor(options: CompleteClientOptions, clock: Clock, random: Random) {
    this.#options = options;
    this.#clock = clock;
    this.#random = random;
    this.#picker = new EndpointPicker(options.endpoints.length, options.balancing, options.ejection);
    this.#budget = new RetryBudget(options.retry);
    this.#channels = options.endpoints.map(() => Array.from({ length: options.connections }, () => undefined));
    this.#nextConnection = options.endpoints.map(() => 0);
  }

  get statistics(): CallStatistics {
    return {
      calls: this.#calls,
      attempts: this.#attempts,
      retries: Math.max(0, this.#attempts - this.#calls),
      retriesRefused: this.#retriesRefused,
      inFlight: this.#inFlight,
    };
  }

  get endpoints(): readonly { readonly name: string; readonly inFlight: number; readonly ejected: boolean }[] {
    const nowMs = this.#clock.nowMs();
    return this.#picker.states.map((state) => ({
      name: this.endpointName(state.index),
      inFlight: state.inFlight,
      ejected: state.ejectedUntilMs > nowMs,
    }));
  }

  /** Moment (ms, the clock's) after which a call with these options ends. @throws INVALID_ARGUMENT on a bad timeout. */
  deadlineMs(options: CallOptions): number {
    const timeoutMs = options.timeoutMs ?? this.#options.timeoutMs;
    if (!(timeoutMs > 0)) {
      throw intarsiaError('INVALID_ARGUMENT', `timeoutMs must be above 0 ms; it is ${timeoutMs}`);
    }
    const untilMs = options.deadline === undefined ? Infinity : options.deadline.getTime() - this.#clock.wallMs();
    return this.#clock.nowMs() + Math.min(timeoutMs, untilMs);
  }

  /**
   * The answer's bytes.
   * @throws what the server said, as an IntarsiaError; DEADLINE_EXCEEDED, CANCELLED, UNAVAILABLE (no endpoint reachable),
   * RESOURCE_EXHAUSTED (`inFlightMax`). `details.attempts` tells how often it was tried.
   */
  async call(request: CallRequest, options: CallOptions): Promise<Uint8Array> {
    const deadlineMs = this.deadlineMs(options);
    this.admit();
    this.#calls += 1;
    const tried = new Set<number>();
    try {
      for (let attempt = 1; ; attempt += 1) {
        this.#checkAlive(deadlineMs, options.signal, attempt);
        const endpoint = this.#picker.acquire(tried, this.#clock.nowMs());
        this.#attempts += 1;
        const startMs = this.#clock.nowMs();
        const outcome = await this.#attempt(endpoint, request, deadlineMs, options.signal);
        if (outcome.ok) {
          this.#picker.release(endpoint, 'healthy', this.#clock.nowMs());
          this.#budget.succeeded();
          return outcome.message;
        }
        const waitMs = this.#judge(endpoint, outcome.failure, { request, attempt, tried, deadlineMs, startMs });
        if (waitMs > 0) await this.#wait(waitMs, options.signal, attempt);
      }
    } finally {
      this.#inFlight -= 1;
    }
  }

  /** Counts a call in. Whoever admits calls `leave` once. @throws RESOURCE_EXHAUSTED at the bound, UNAVAILABLE when closed. */
  admit(): void {
    if (this.#closed) throw intarsiaError('UNAVAILABLE', 'this client is closed');
    const { inFlightMax } = this.#options;
    if (this.#inFlight >= inFlightMax) {
      throw intarsiaError(
        'RESOURCE_EXHAUSTED',
        `${inFlightMax} calls are on their way already, the client's inFlightMax; wait for some of them`,
        { inFlightMax },
      );
    }
    this.#inFlight += 1;
  }

  leave(): void {
    this.#inFlight -= 1;
  }

  /** An endpoint and one of its connections, for a stream. Give it back with `releaseEndpoint`. */
  acquireEndpoint(): { readonly endpoint: EndpointState; readonly channel: GrpcChannel } {
    const endpoint = this.#picker.acquire(new Set(), this.#clock.nowMs());
    return { endpoint, channel: this.#channel(endpoint.index) };
  }

  releaseEndpoint(endpoint: EndpointState, verdict: EndpointVerdict): void {
    this.#picker.release(endpoint, verdict, this.#clock.nowMs());
  }

  endpointName(index: number): string {
    return this.#options.endpoints[index]?.name ?? '';
  }

  close(): void {
    this.#closed = true;
    for (const channels of this.#channels) for (const channel of channels) channel?.close();
  }

  #attempt(
    endpoint: EndpointState,
    request: CallRequest,
    deadlineMs: number,
    signal: AbortSignal | undefined,
  ): Promise<CallOutcome> {
    const channel = this.#channel(endpoint.index);
    const deadlineWallMs = this.#clock.wallMs() + (deadlineMs - this.#clock.nowMs());
    return new Promise((resolve) => {
      const abort = (): void => call.cancel();
      const call = channel.call(
        request.path,
        request.message,
        { metadata: this.#options.metadata, deadlineWallMs },
        (outcome) => {
          signal?.removeEventListener('abort', abort);
          resolve(outcome);
        },
      );
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  /** Milliseconds to wait before the next attempt. @throws the error when there is to be none. */
  #judge(
    endpoint: EndpointState,
    failure: CallFailure,
    context: {
      readonly request: CallRequest;
      readonly attempt: number;
      readonly tried: Set<number>;
      readonly deadlineMs: number;
      readonly startMs: number;
    },
  ): number {
    const { request, attempt, tried, deadlineMs, startMs } = context;
    const error = errorOfFailure(failure, this.endpointName(endpoint.index));
    const nowMs = this.#clock.nowMs();
    this.#picker.release(endpoint, verdictOf(failure, error, nowMs - startMs), nowMs);
    if (!error.retryable) throw withAttempts(error, attempt);
    this.#budget.failed();
    if (!request.idempotent || attempt >= this.#options.attemptsMax) throw withAttempts(error, attempt);
    if (!this.#budget.allowsRetry) {
      this.#retriesRefused += 1;
      throw withAttempts(error, attempt);
    }
    tried.add(endpoint.index);
    const pushback = failure.metadata['grpc-retry-pushback-ms'];
    // A server may ask for a pause, or, with a negative number, for no retry at all.
    if (pushback !== undefined && !(Number(pushback) >= 0)) throw withAttempts(error, attempt);
    const waitMs =
      pushback !== undefined
        ? Number(pushback)
        : this.#picker.hasUntried(tried, nowMs)
          ? 0
          : backoffMs(this.#options.retry, attempt + 1, this.#random);
    if (nowMs + waitMs >= deadlineMs) throw withAttempts(error, attempt);
    return waitMs;
  }

  #checkAlive(deadlineMs: number, signal: AbortSignal | undefined, attempt: number): void {
    if (signal?.aborted === true) throw cancelled(attempt - 1);
    if (this.#closed) throw intarsiaError('UNAVAILABLE', 'this client is closed');
    if (this.#clock.nowMs() >= deadlineMs) {
      throw intarsiaError('DEADLINE_EXCEEDED', `the deadline passed before attempt ${attempt}`, {
        attempts: attempt - 1,
      });
    }
  }

  #wait(waitMs: number, signal: AbortSignal | undefined, attempt: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        timer.cancel();
        reject(cancelled(attempt));
      };
      const timer = this.#clock.schedule(waitMs, () => {
        signal?.removeEventListener('abort', abort);
        resolve();
      });
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  #channel(endpointIndex: number): GrpcChannel {
    const channels = this.#channels[endpointIndex];
    const endpoint = this.#options.endpoints[endpointIndex];
    if (channels === undefined || endpoint === undefined) {
      throw intarsiaError('INTERNAL', `there is no endpoint number ${endpointIndex}`);
    }
    const index = this.#nextConnection[endpointIndex] ?? 0;
    this.#nextConnection[endpointIndex] = (index + 1) % channels.length;
    const open = channels[index];
    if (open !== undefined) return open;
    const opened = new GrpcChannel({
      target: endpoint.target,
      ...(endpoint.tls === undefined ? {} : { tls: endpoint.tls }),
      messageBytesMax: this.#options.messageBytesMax,
      windowBytes: this.#options.windowBytes,
      connectBackoffMsMax: 5000,
    });
    channels[index] = opened;
    return opened;
  }
}

function cancelled(attempts: number): IntarsiaError {
  return intarsiaError('CANCELLED', 'the call was cancelled by its caller', { attempts });
}

function withAttempts(error: IntarsiaError, attempts: number): IntarsiaError {
  const { code, message, details } = asIntarsiaError(error);
  return intarsiaError(code, message, { ...details, attempts });
}
