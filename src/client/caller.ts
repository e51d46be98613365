/**
 * One call from the user's view: attempts on several endpoints until there is an answer, an error that no retry can help,
 * the deadline, or a cancellation. Everything a call needs is decided here; what the bytes mean is decided elsewhere.
 */
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { Clock } from '#ports/clock.js';
import type { Random } from '#ports/random.js';
import { GrpcChannel, type CallFailure } from '#adapters/grpc/client-channel.js';
import { AttemptRace, type SettledAttempt } from './attempt-race.js';
import { AttemptTimes } from './attempt-times.js';
import { Discovery } from './discovery.js';
import { EndpointPicker, type EndpointState, type EndpointVerdict } from './endpoint-picker.js';
import type { CompleteClientOptions, EndpointOptions } from './options.js';
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
  /** What takes alike long: the model's name for inference; absent for calls whose time says nothing. */
  readonly kind?: string;
}

/** Counts since the client was made. */
export interface CallStatistics {
  readonly calls: number;
  readonly attempts: number;
  readonly retries: number;
  /** Retries that the budget refused. */
  readonly retriesRefused: number;
  /** Attempts that took longer than such calls do, so that another endpoint was asked beside them. */
  readonly overdue: number;
  readonly inFlight: number;
}

interface AttemptContext {
  readonly request: CallRequest;
  /** Attempts so far. */
  readonly attempt: number;
  readonly tried: Set<number>;
  readonly deadlineMs: number;
  readonly startMs: number;
}

interface KnownEndpoint {
  readonly endpoint: EndpointOptions;
  /** The user named it. */
  readonly isNamed: boolean;
  /** Opened when first used. */
  readonly channels: (GrpcChannel | undefined)[];
  /** The connection for the next call. */
  next: number;
}

export class Caller {
  readonly #options: CompleteClientOptions;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #picker: EndpointPicker;
  readonly #budget: RetryBudget;
  readonly #times = new AttemptTimes();
  readonly #discovery: Discovery | undefined;
  /** By number. */
  readonly #endpoints = new Map<number, KnownEndpoint>();
  #nextIndex = 0;
  #overdue = 0;
  #closed = false;
  #inFlight = 0;
  #calls = 0;
  #attempts = 0;
  #retriesRefused = 0;

  constructor(options: CompleteClientOptions, clock: Clock, random: Random) {
    this.#options = options;
    this.#clock = clock;
    this.#random = random;
    this.#picker = new EndpointPicker(0, options.balancing, options.ejection, random);
    this.#budget = new RetryBudget(options.retry);
    for (const endpoint of options.endpoints) this.#know(endpoint, true);
    if (options.discovery) {
      this.#discovery = new Discovery({
        clock,
        refreshMs: options.discoveryMs,
        ask: (endpoint, path, message, timeoutMs) => this.#ask(endpoint, path, message, timeoutMs),
        askable: () => this.#askable(),
        secured: (endpoint) => (options.maySend(endpoint) ? endpoint : undefined),
        found: (endpoints) => this.#use(endpoints),
      });
    }
  }

  get statistics(): CallStatistics {
    return {
      calls: this.#calls,
      attempts: this.#attempts,
      retries: Math.max(0, this.#attempts - this.#calls),
      retriesRefused: this.#retriesRefused,
      overdue: this.#overdue,
      inFlight: this.#inFlight,
    };
  }

  get endpoints(): readonly { readonly name: string; readonly inFlight: number; readonly ejected: boolean }[] {
    const nowMs = this.#clock.nowMs();
    return this.#picker.states
      .filter(({ role }) => role !== 'retired')
      .map((state) => ({
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
    this.#discovery?.called();
    const race = new AttemptRace(this.#clock, (late) => this.#late(late));
    const abort = (): void => race.cancel();
    options.signal?.addEventListener('abort', abort, { once: true });
    try {
      return await this.#run(race, request, deadlineMs, options.signal);
    } finally {
      options.signal?.removeEventListener('abort', abort);
      race.end();
      this.#inFlight -= 1;
    }
  }

  async #run(
    race: AttemptRace,
    request: CallRequest,
    deadlineMs: number,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array> {
    const kind = request.kind ?? request.path;
    /** Where it failed or takes too long. */
    const tried = new Set<number>();
    let attempt = 0;
    /** When the newest attempt is overdue. */
    let overdueMs = Infinity;
    const begin = (): void => {
      attempt += 1;
      this.#checkAlive(deadlineMs, signal, attempt);
      const endpoint = this.#start(race, request, tried, deadlineMs);
      const nowMs = this.#clock.nowMs();
      const couldRepeat = request.idempotent && attempt < this.#options.attemptsMax;
      overdueMs =
        couldRepeat && this.#picker.hasAnother(tried, endpoint.index)
          ? nowMs + this.#times.limitMs(kind, deadlineMs - nowMs)
          : Infinity;
    };
    begin();
    for (;;) {
      const settled = await race.next(overdueMs - this.#clock.nowMs());
      if (settled === undefined) {
        overdueMs = Infinity;
        if (this.#anotherBeside(race, tried)) begin();
        continue;
      }
      const { endpoint, startMs } = settled.attempt;
      const nowMs = this.#clock.nowMs();
      if (settled.outcome.ok) {
        this.#picker.release(endpoint, 'healthy', nowMs);
        this.#budget.succeeded();
        this.#times.learn(kind, nowMs - startMs);
        return settled.outcome.message;
      }
      const context = { request, attempt, tried, deadlineMs, startMs };
      if (race.running.size > 0) {
        // Somebody else may still answer.
        if (this.#repeatable(endpoint, settled.outcome.failure, context) && !race.hasInTime) begin();
        continue;
      }
      const waitMs = this.#judge(endpoint, settled.outcome.failure, context);
      if (waitMs > 0) await this.#wait(waitMs, signal, attempt);
      begin();
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
    return this.#endpoints.get(index)?.endpoint.name ?? '';
  }

  close(): void {
    this.#closed = true;
    this.#discovery?.close();
    for (const { channels } of this.#endpoints.values()) for (const channel of channels) channel?.close();
  }

  #start(race: AttemptRace, request: CallRequest, tried: ReadonlySet<number>, deadlineMs: number): EndpointState {
    const endpoint = this.#picker.acquire(tried, this.#clock.nowMs(), race.running.size > 0);
    this.#attempts += 1;
    const channel = this.#channel(endpoint.index);
    const deadlineWallMs = this.#clock.wallMs() + (deadlineMs - this.#clock.nowMs());
    const { metadata } = this.#options;
    race.start(endpoint, (done) => channel.call(request.path, request.message, { metadata, deadlineWallMs }, done));
    return endpoint;
  }

  /** The attempts under way take too long. Whether another endpoint may be asked beside them. */
  #anotherBeside(race: AttemptRace, tried: Set<number>): boolean {
    const nowMs = this.#clock.nowMs();
    for (const attempt of race.running) {
      if (attempt.overdue) continue;
      attempt.overdue = true;
      tried.add(attempt.endpoint.index);
      this.#picker.suspect(attempt.endpoint, nowMs);
      this.#overdue += 1;
      this.#budget.failed();
    }
    this.#discovery?.failed();
    if (this.#budget.allowsRetry) return true;
    this.#retriesRefused += 1;
    return false;
  }

  /** An attempt failed while another one is under way. @throws the error when no retry could help. */
  #repeatable(endpoint: EndpointState, failure: CallFailure, context: AttemptContext): boolean {
    const { attempt, tried } = context;
    const error = this.#failed(endpoint, failure, context);
    if (!error.retryable) throw withAttempts(error, attempt);
    this.#budget.failed();
    tried.add(endpoint.index);
    return attempt < this.#options.attemptsMax && this.#budget.allowsRetry;
  }

  /** The error of a failed attempt; its endpoint is given back with what the failure says about it. */
  #failed(endpoint: EndpointState, failure: CallFailure, { startMs }: AttemptContext): IntarsiaError {
    const error = errorOfFailure(failure, this.endpointName(endpoint.index));
    const nowMs = this.#clock.nowMs();
    const verdict = verdictOf(failure, error, nowMs - startMs);
    this.#picker.release(endpoint, verdict, nowMs);
    if (verdict === 'failed') this.#discovery?.failed();
    return error;
  }

  /** An attempt that nobody waited for has ended. */
  #late({ attempt, outcome }: SettledAttempt): void {
    const { endpoint, startMs } = attempt;
    const nowMs = this.#clock.nowMs();
    const verdict: EndpointVerdict = outcome.ok
      ? 'healthy'
      : verdictOf(outcome.failure, errorOfFailure(outcome.failure, ''), nowMs - startMs);
    this.#picker.release(endpoint, verdict, nowMs);
  }

  /** Milliseconds to wait before the next attempt. @throws the error when there is to be none. */
  #judge(endpoint: EndpointState, failure: CallFailure, context: AttemptContext): number {
    const { request, attempt, tried, deadlineMs } = context;
    const error = this.#failed(endpoint, failure, context);
    const nowMs = this.#clock.nowMs();
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

  /** The number of an endpoint, new or known. */
  #know(endpoint: EndpointOptions, isNamed: boolean): EndpointState {
    for (const [index, known] of this.#endpoints) {
      const state = this.#picker.states.find((each) => each.index === index);
      if (known.endpoint.target === endpoint.target && state !== undefined && !isNamed) return state;
    }
    const index = this.#nextIndex;
    this.#nextIndex += 1;
    const channels = Array.from({ length: this.#options.connections }, () => undefined);
    this.#endpoints.set(index, { endpoint, isNamed, channels, next: 0 });
    return this.#picker.add(index);
  }

  /** The gateways of the grid take the calls from now on; what the user named is kept for when none of them can. */
  #use(endpoints: readonly EndpointOptions[]): void {
    if (endpoints.length === 0 || this.#closed) return;
    const used = new Set(endpoints.map((endpoint) => this.#know(endpoint, false)));
    for (const state of this.#picker.states) {
      const known = this.#endpoints.get(state.index);
      state.role = used.has(state) ? 'used' : known?.isNamed === true ? 'spare' : 'retired';
      if (state.role !== 'retired' || state.inFlight > 0) continue;
      this.#picker.remove(state.index);
      this.#endpoints.delete(state.index);
      for (const channel of known?.channels ?? []) channel?.close();
    }
  }

  /** Whom to ask for the others: first who takes calls now. */
  #askable(): readonly EndpointOptions[] {
    const nowMs = this.#clock.nowMs();
    const badness = (state: EndpointState): number =>
      (state.ejectedUntilMs > nowMs ? 2 : 0) + (state.role === 'used' ? 0 : 1);
    const states = this.#picker.states.filter(({ role }) => role !== 'retired');
    return [...states]
      .sort((a, b) => badness(a) - badness(b))
      .flatMap(({ index }) => this.#endpoints.get(index)?.endpoint ?? []);
  }

  #ask(endpoint: EndpointOptions, path: string, message: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    if (this.#closed) return Promise.reject(intarsiaError('UNAVAILABLE', 'this client is closed'));
    const isKnown = [...this.#endpoints.values()].some((known) => known.endpoint.target === endpoint.target);
    const state = this.#know(endpoint, false);
    // Its connection is open by the time it is used.
    if (!isKnown) state.role = 'retired';
    const { metadata } = this.#options;
    const deadlineWallMs = this.#clock.wallMs() + timeoutMs;
    return new Promise((resolve, reject) => {
      this.#channel(state.index).call(path, message, { metadata, deadlineWallMs }, (outcome) => {
        if (outcome.ok) resolve(outcome.message);
        else reject(errorOfFailure(outcome.failure, endpoint.name));
      });
    });
  }

  #channel(endpointIndex: number): GrpcChannel {
    const known = this.#endpoints.get(endpointIndex);
    if (known === undefined) throw intarsiaError('INTERNAL', `there is no endpoint number ${endpointIndex}`);
    const { endpoint, channels } = known;
    const index = known.next;
    known.next = (index + 1) % channels.length;
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
