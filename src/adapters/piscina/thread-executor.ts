/**
 * An executor in worker threads of the host itself: one hop cheaper than a process, and a crash of the engine takes the
 * host with it. For tests, for tools, and for hosts that choose speed over isolation.
 *
 * A thread that sits on one request for too long is quarantined: left alone, counted, never ended, because ending it
 * inside ONNX Runtime would abort the host. The executor is then lost and its owner starts another.
 */
import { defaultEngineOptions, type EngineOptions } from '#core/engine-options.js';
import { asIntarsiaError, intarsiaError, IntarsiaError, messageOf } from '#core/errors.js';
import { runFrame } from '#core/executor-frame.js';
import { encodeFrame, joinRanges, type Allocate } from '#core/frame.js';
import type { SessionId } from '#core/ids.js';
import { InFlight } from '#core/in-flight.js';
import { Loss } from '#core/loss.js';
import type { ExecutionProvider } from '#core/provider.js';
import { SessionLanes } from '#core/session-lanes.js';
import { formatMs } from '#core/units.js';
import type {
  Executor,
  ExecutorDescription,
  ExecutorUsage,
  LoadedSession,
  LoadRequest,
  RunRequest,
  RunResult,
} from '#ports/executor.js';
import { WorkerPool } from './worker-pool.js';

export interface ThreadExecutorOptions {
  readonly provider: ExecutionProvider;
  /** Settings of the engine; what is missing gets its default. */
  readonly engine?: Partial<Omit<EngineOptions, 'provider'>>;
  /** Threads it may start, 1 to 64, default 4. A session lives in one of them. */
  readonly lanes?: number;
  /** Milliseconds one run may take before its thread counts as hung, default 600,000. */
  readonly runMsMax?: number;
  /** Milliseconds one load may take before its thread counts as hung, default 1,800,000. */
  readonly loadMsMax?: number;
  /** Milliseconds between two looks for hung threads, default 1,000. */
  readonly watchMs?: number;
  /** Requests in flight, default 1,024. At the bound: RESOURCE_EXHAUSTED. */
  readonly inFlightMax?: number;
  /** Built entry file of the threads. */
  readonly workerPath?: string;
}

let quarantined = 0;

/** Threads of this process that are left alone because they do not come back. A host that keeps some should be restarted. */
export function quarantinedThreads(): number {
  return quarantined;
}

/** Ends a pool's thread: at once when it is idle, else when it comes back, if ever. */
async function retire(pool: WorkerPool): Promise<void> {
  const hung = pool.busy > 0;
  if (hung) quarantined += 1;
  await pool.idle();
  if (hung) quarantined -= 1;
  await pool.close();
}

/** @throws DEVICE_UNAVAILABLE when the engine does not work here. */
export async function startThreadExecutor(options: ThreadExecutorOptions): Promise<Executor> {
  const executor = new ThreadExecutor({
    ...options,
    engine: { ...defaultEngineOptions, ...options.engine, provider: options.provider },
    lanes: options.lanes ?? 4,
    runMsMax: options.runMsMax ?? 600_000,
    loadMsMax: options.loadMsMax ?? 1_800_000,
    inFlightMax: options.inFlightMax ?? 1_024,
    watchMs: options.watchMs ?? 1_000,
  });
  try {
    await executor.start();
  } catch (error) {
    throw intarsiaError(
      'DEVICE_UNAVAILABLE',
      `executor thread for ${options.provider} did not start: ${messageOf(error)}`,
      {
        provider: options.provider,
      },
    );
  }
  return executor;
}

interface Settings {
  readonly provider: ExecutionProvider;
  readonly engine: EngineOptions;
  readonly lanes: number;
  readonly runMsMax: number;
  readonly loadMsMax: number;
  readonly inFlightMax: number;
  readonly watchMs: number;
  readonly workerPath?: string;
}

interface Lane {
  readonly pool: WorkerPool;
  readonly flights: InFlight<unknown>;
}

/** Uninitialised memory with a buffer of its own, never from Node's shared pool, so that it can be transferred. */
const allocateRaw: Allocate = (bytes) => new Uint8Array(Buffer.allocUnsafeSlow(bytes).buffer);

class ThreadExecutor implements Executor {
  readonly #settings: Settings;
  /** One pool of one thread a lane, so that a session's runs find the thread that holds it. */
  readonly #lanes: Lane[] = [];
  readonly #sessions: SessionLanes<SessionId>;
  readonly #loss = new Loss();
  readonly #watch: NodeJS.Timeout;
  #engine = '';
  #closing = false;

  constructor(settings: Settings) {
    this.#settings = settings;
    this.#sessions = new SessionLanes(settings.lanes);
    this.#watch = setInterval(() => this.#quarantineWhenStuck(), settings.watchMs);
    this.#watch.unref();
  }

  get description(): ExecutorDescription {
    return {
      provider: this.#settings.provider,
      isolation: 'thread',
      emulated: false,
      engine: this.#engine,
      // A session lives in one lane.
      concurrency: 1,
    };
  }

  async start(): Promise<void> {
    this.#engine = (await this.#lane(0).pool.run({ type: 'describe' })).engine;
  }

  async load(request: LoadRequest): Promise<LoadedSession> {
    this.#refuseWhenGone();
    if (this.#sessions.laneOf(request.session) !== undefined) {
      throw intarsiaError('ALREADY_EXISTS', `session ${request.session} is loaded already`);
    }
    const lane = this.#lane(this.#sessions.place(request.session));
    try {
      return await this.#settle(lane, this.#settings.loadMsMax, () => lane.pool.run({ type: 'load', request }));
    } catch (error) {
      this.#sessions.remove(request.session);
      throw error;
    }
  }

  async run(request: RunRequest): Promise<RunResult> {
    this.#refuseWhenGone();
    const index = this.#sessions.laneOf(request.session);
    if (index === undefined) throw intarsiaError('NOT_FOUND', `session ${request.session} is not loaded`);
    const lane = this.#lane(index);
    return this.#settle(lane, this.#settings.runMsMax, () => {
      const frame = joinRanges(encodeFrame(runFrame(0, request), allocateRaw), allocateRaw);
      return lane.pool.run({ type: 'run', frame }, [frame.buffer]);
    });
  }

  async unload(session: SessionId): Promise<void> {
    const index = this.#sessions.laneOf(session);
    if (index === undefined || this.#loss.reason !== undefined) return;
    const lane = this.#lane(index);
    await this.#settle(lane, this.#settings.loadMsMax, () => lane.pool.run({ type: 'unload', session }));
    this.#sessions.remove(session);
  }

  /** Memory and processor time of threads cannot be told from the host's. */
  usage(): ExecutorUsage {
    return {};
  }

  onLost(listener: (reason: IntarsiaError) => void): void {
    this.#loss.listen(listener);
  }

  async close(options: { readonly graceMs: number }): Promise<void> {
    if (this.#loss.reason !== undefined || this.#closing) return;
    this.#closing = true;
    const idle = Promise.all(this.#lanes.map((lane) => lane.flights.idle())).then(() => true);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<false>((resolve) => {
      timer = setTimeout(() => resolve(false), options.graceMs);
    });
    const drained = await Promise.race([idle, late]);
    clearTimeout(timer);
    if (!drained) {
      this.#lose(`it was closed, and its work was not done within ${formatMs(options.graceMs)}`);
      return;
    }
    clearInterval(this.#watch);
    for (const lane of this.#lanes) {
      await lane.pool.run({ type: 'dispose' });
      await lane.pool.close();
    }
  }

  #lane(index: number): Lane {
    const present = this.#lanes[index];
    if (present !== undefined) return present;
    const pool = new WorkerPool({
      setup: { engine: this.#settings.engine },
      threads: 1,
      idle: 'wait',
      ...(this.#settings.workerPath === undefined ? {} : { workerPath: this.#settings.workerPath }),
    });
    const lane: Lane = { pool, flights: new InFlight<unknown>(this.#settings.inFlightMax) };
    this.#lanes[index] = lane;
    return lane;
  }

  /** Counts the task as in flight until it ends, or until the executor is lost. */
  async #settle<Value>(lane: Lane, msMax: number, start: () => Promise<Value>): Promise<Value> {
    const value = await lane.flights.add(Math.ceil(msMax / this.#settings.watchMs), (number) => {
      start().then(
        (answer) => lane.flights.resolve(number, answer),
        (error: unknown) => {
          // A plain Error is the thread's own end, not an answer of the engine.
          if (!(error instanceof IntarsiaError)) this.#lose(`a thread died: ${messageOf(error)}`);
          lane.flights.reject(number, asIntarsiaError(error));
        },
      );
    });
    return value as Value;
  }

  #quarantineWhenStuck(): void {
    if (!this.#lanes.some((lane) => lane.flights.beat())) return;
    const { runMsMax, loadMsMax } = this.#settings;
    this.#lose(`it took longer than ${formatMs(runMsMax)} for one run, or than ${formatMs(loadMsMax)} for one load`);
  }

  /** Rejects what is in flight, ends the idle threads and leaves the busy ones alone. */
  #lose(how: string): void {
    if (this.#loss.reason !== undefined) return;
    clearInterval(this.#watch);
    const reason = intarsiaError('EXECUTOR_LOST', `executor thread for ${this.#settings.provider} is gone: ${how}`, {
      provider: this.#settings.provider,
    });
    for (const lane of this.#lanes) {
      void retire(lane.pool);
      lane.flights.rejectAll(reason);
    }
    this.#loss.happen(reason);
  }

  #refuseWhenGone(): void {
    if (this.#loss.reason !== undefined) throw this.#loss.reason;
    if (this.#closing) throw intarsiaError('DEVICE_UNAVAILABLE', 'the executor is closing');
  }
}
