/**
 * An executor in a process of its own: whatever a model or a driver does there, the host lives.
 *
 * The host speaks with the process through socket pairs: one for control and heartbeats, one a lane (a worker thread with
 * its sessions). A process that exits, breaks the protocol, stops answering heartbeats or sits on one request for too
 * long is killed, and everything in flight is rejected with EXECUTOR_LOST. Starting another is the owner's business.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { BufferPool } from '#core/buffer-pool.js';
import { defaultEngineOptions, type EngineOptions } from '#core/engine-options.js';
import { intarsiaError, messageOf, type IntarsiaError } from '#core/errors.js';
import { executorFrameKind, failureIn, jsonFrame, jsonHeader } from '#core/executor-frame.js';
import type { Frame, OutgoingFrame } from '#core/frame.js';
import type { SessionId } from '#core/ids.js';
import { InFlight } from '#core/in-flight.js';
import { Loss } from '#core/loss.js';
import type { ExecutionProvider } from '#core/provider.js';
import { SessionLanes } from '#core/session-lanes.js';
import { formatMs, GiB, MiB } from '#core/units.js';
import type {
  Executor,
  ExecutorDescription,
  ExecutorUsage,
  LoadedSession,
  LoadRequest,
  RunRequest,
  RunResult,
} from '#ports/executor.js';
import { executorEnvironment } from './environment.js';
import { allocateRaw } from './allocate-raw.js';
import { FrameSocket } from './frame-socket.js';
import { firstLaneFd, type ExecutorPong, type ProcessSetup } from './process-protocol.js';
import { runThrough } from './run-frames.js';
import { SharedArea } from './shared-area.js';
import { StderrTail } from './stderr-tail.js';

export interface ProcessExecutorOptions {
  readonly provider: ExecutionProvider;
  /** Settings of the engine; what is missing gets its default. */
  readonly engine?: Partial<Omit<EngineOptions, 'provider'>>;
  /**
   * Worker threads it may start, 1 to 64, default 4. A session lives in one of them; each costs about 10 MB once used.
   * More: loading or running one model holds up fewer others.
   */
  readonly lanes?: number;
  /** Milliseconds between two heartbeats, 10 to 60,000, default 1,000. */
  readonly heartbeatMs?: number;
  /** Milliseconds without an answer to heartbeats after which the process is killed, default 10,000. */
  readonly hangMs?: number;
  /** Milliseconds one run may take before the process counts as hung, default 600,000. */
  readonly runMsMax?: number;
  /** Milliseconds one load may take before the process counts as hung, default 1,800,000. */
  readonly loadMsMax?: number;
  /** Milliseconds until the process must be up, default 60,000. */
  readonly startMsMax?: number;
  /** Bytes of one request or answer, default 4 GiB. */
  readonly frameBytesMax?: number;
  /** Requests in flight, default 1,024. At the bound: RESOURCE_EXHAUSTED. */
  readonly inFlightMax?: number;
  /** Variables added to the filtered environment of the host. */
  readonly env?: Readonly<Record<string, string>>;
  /** Built entry file of the process. */
  readonly entryPath?: string;
}

type Settings = Required<Omit<ProcessExecutorOptions, 'engine'>> & { readonly engine: EngineOptions };

/** JavaScript memory of the process; tensors and models lie outside of it. */
const heapMiBMax = 512;
/** Bytes of results kept while nobody uses them; what is longer than half of it is not kept at all. */
const freeBytesMax = 16 * MiB;
/** Milliseconds an idle process may take to exit before it is killed. */
const exitMsMax = 5_000;

/** @throws DEVICE_UNAVAILABLE when the process does not come up or its engine does not work here. */
export async function startProcessExecutor(options: ProcessExecutorOptions): Promise<Executor> {
  const settings: Settings = {
    provider: options.provider,
    engine: { ...defaultEngineOptions, ...options.engine, provider: options.provider },
    lanes: options.lanes ?? 4,
    heartbeatMs: options.heartbeatMs ?? 1_000,
    hangMs: options.hangMs ?? 10_000,
    runMsMax: options.runMsMax ?? 600_000,
    loadMsMax: options.loadMsMax ?? 1_800_000,
    startMsMax: options.startMsMax ?? 60_000,
    frameBytesMax: options.frameBytesMax ?? 4 * GiB,
    inFlightMax: options.inFlightMax ?? 1_024,
    env: options.env ?? {},
    entryPath: options.entryPath ?? builtEntryPath(),
  };
  const executor = new ProcessExecutor(settings);
  try {
    await executor.start();
  } catch (error) {
    executor.kill(messageOf(error));
    throw intarsiaError(
      'DEVICE_UNAVAILABLE',
      `executor process for ${options.provider} did not start: ${messageOf(error)}`,
      {
        provider: options.provider,
      },
    );
  }
  return executor;
}

interface Lane {
  readonly socket: FrameSocket;
  readonly flights: InFlight<Frame>;
  /** Resolves with the engine's name once its thread serves. */
  readonly opened: Promise<string>;
}

class ProcessExecutor implements Executor {
  readonly #settings: Settings;
  readonly #child: ChildProcess;
  readonly #shared = SharedArea.ofThisHost();
  readonly #results = new BufferPool({ bytesMax: freeBytesMax / 2, freeBytesMax, allocate: allocateRaw });
  readonly #stderr: StderrTail;
  readonly #control: FrameSocket;
  readonly #controls = new InFlight<Frame>(1_024);
  readonly #lanes: Lane[] = [];
  readonly #sessions: SessionLanes<SessionId>;
  readonly #loss = new Loss();
  readonly #exited: Promise<void>;
  readonly #hello: Promise<void>;
  #greeted: () => void = () => {};
  #heartbeat: NodeJS.Timeout | undefined;
  #unanswered = 0;
  #engine = '';
  #closing = false;
  #failure: string | undefined;
  #usage: ExecutorUsage = {};
  #lastPong: { readonly atMs: number; readonly cpuUs: number } | undefined;

  constructor(settings: Settings) {
    this.#settings = settings;
    this.#sessions = new SessionLanes(settings.lanes);
    const setup: ProcessSetup = {
      engine: settings.engine,
      lanes: settings.lanes,
      frameBytesMax: settings.frameBytesMax,
      ...(this.#shared === undefined ? {} : { sharedFd: firstLaneFd + settings.lanes }),
    };
    this.#child = spawn(
      process.execPath,
      [`--max-old-space-size=${heapMiBMax}`, settings.entryPath, JSON.stringify(setup)],
      {
        stdio: [
          'ignore',
          'ignore',
          'pipe',
          'pipe',
          ...Array.from({ length: settings.lanes }, () => 'pipe' as const),
          this.#shared?.fd ?? 'ignore',
        ],
        env: executorEnvironment(process.env, settings.env),
        windowsHide: true,
      },
    );
    this.#stderr = new StderrTail(this.#child.stdio[2] as Socket);
    this.#exited = new Promise((resolve) => {
      this.#child.once('error', (error) => {
        this.#failure ??= error.message;
        this.#gone(null, null);
        resolve();
      });
      this.#child.once('close', (code, signal) => {
        this.#gone(code, signal);
        resolve();
      });
    });
    this.#hello = new Promise((resolve) => (this.#greeted = resolve));
    this.#control = FrameSocket.over(this.#child.stdio[3] as Socket, {
      frameBytesMax: MiB,
      onFrame: (frame) => this.#onControlFrame(frame),
      onEnd: (error, broken) => this.#onSocketEnd(error, broken),
    });
  }

  get description(): ExecutorDescription {
    return {
      provider: this.#settings.provider,
      isolation: 'process',
      emulated: false,
      engine: this.#engine,
      // A session lives in one lane.
      concurrency: 1,
      ...(this.#child.pid === undefined ? {} : { pid: this.#child.pid }),
    };
  }

  async start(): Promise<void> {
    const timer = setTimeout(() => {
      this.kill(`it was not up within ${formatMs(this.#settings.startMsMax)}`);
    }, this.#settings.startMsMax);
    try {
      const lost = new Promise<never>((_, reject) => this.#loss.listen(reject));
      lost.catch(() => {});
      await Promise.race([this.#hello, lost]);
      this.#startHeartbeat();
      this.#engine = await Promise.race([this.#lane(0).opened, lost]);
    } finally {
      clearTimeout(timer);
    }
  }

  async load(request: LoadRequest): Promise<LoadedSession> {
    this.#refuseWhenGone();
    if (this.#sessions.laneOf(request.session) !== undefined) {
      throw intarsiaError('ALREADY_EXISTS', `session ${request.session} is loaded already`);
    }
    const lane = this.#lane(this.#sessions.place(request.session));
    try {
      await lane.opened;
      const frame = await this.#ask(lane, (number) => jsonFrame(executorFrameKind.load, number, request));
      return jsonHeader(frame) as LoadedSession;
    } catch (error) {
      this.#sessions.remove(request.session);
      throw error;
    }
  }

  async run(request: RunRequest): Promise<RunResult> {
    this.#refuseWhenGone();
    const index = this.#sessions.laneOf(request.session);
    const lane = index === undefined ? undefined : this.#lanes[index];
    if (lane === undefined) throw intarsiaError('NOT_FOUND', `session ${request.session} is not loaded`);
    return runThrough(
      {
        area: this.#shared,
        results: this.#results,
        flight: (build) =>
          lane.flights.add(this.#beats(this.#settings.runMsMax), (number) => {
            lane.socket.send(build(number));
          }),
        broken: (what) => this.kill(`it broke the protocol with ${what}`),
      },
      request,
    );
  }

  async unload(session: SessionId): Promise<void> {
    const index = this.#sessions.laneOf(session);
    const lane = index === undefined ? undefined : this.#lanes[index];
    if (lane === undefined || this.#loss.reason !== undefined) return;
    await this.#ask(lane, (number) => jsonFrame(executorFrameKind.unload, number, { session }));
    this.#sessions.remove(session);
  }

  usage(): ExecutorUsage {
    return this.#usage;
  }

  onLost(listener: (reason: IntarsiaError) => void): void {
    this.#loss.listen(listener);
  }

  async close(options: { readonly graceMs: number }): Promise<void> {
    if (this.#loss.reason !== undefined || this.#closing) return this.#exited;
    this.#closing = true;
    const idle = Promise.all(this.#lanes.map((lane) => lane.flights.idle()));
    const drained = await within(options.graceMs, idle);
    if (!drained) {
      this.kill(`it was closed, and its work was not done within ${formatMs(options.graceMs)}`);
      return this.#exited;
    }
    clearInterval(this.#heartbeat);
    for (const lane of this.#lanes) lane.socket.end();
    this.#control.end();
    if (!(await within(exitMsMax, this.#exited))) this.#child.kill('SIGKILL');
    return this.#exited;
  }

  /** Ends the process at once; the reason is what everybody is told. */
  kill(reason: string): void {
    this.#failure ??= reason;
    this.#child.kill('SIGKILL');
  }

  #lane(index: number): Lane {
    const present = this.#lanes[index];
    if (present !== undefined) return present;
    const flights = new InFlight<Frame>(this.#settings.inFlightMax);
    const socket = FrameSocket.over(this.#child.stdio[firstLaneFd + index] as Socket, {
      frameBytesMax: this.#settings.frameBytesMax,
      onFrame: (frame) => this.#onLaneFrame(lane, frame),
      onEnd: (error, broken) => this.#onSocketEnd(error, broken),
    });
    const opened = this.#controls
      .add(Infinity, (number) => {
        this.#control.send(jsonFrame(executorFrameKind.open, number, { lane: index }));
      })
      .then((frame) => (jsonHeader(frame) as { readonly engine: string }).engine);
    const lane: Lane = { socket, flights, opened };
    this.#lanes[index] = lane;
    return lane;
  }

  #ask(lane: Lane, build: (number: number) => OutgoingFrame): Promise<Frame> {
    return lane.flights.add(this.#beats(this.#settings.loadMsMax), (number) => {
      lane.socket.send(build(number));
    });
  }

  #onLaneFrame(lane: Lane, frame: Frame): void {
    switch (frame.kind) {
      case executorFrameKind.resultShared:
      case executorFrameKind.result:
      case executorFrameKind.loaded:
      case executorFrameKind.unloaded:
        lane.flights.resolve(frame.number, frame);
        return;
      case executorFrameKind.failure:
        lane.flights.reject(frame.number, failureIn(frame));
        return;
      default:
        this.kill(`it broke the protocol with a frame of kind ${frame.kind}`);
    }
  }

  #onControlFrame(frame: Frame): void {
    switch (frame.kind) {
      case executorFrameKind.hello:
        this.#greeted();
        return;
      case executorFrameKind.pong:
        this.#onPong(jsonHeader(frame) as ExecutorPong);
        return;
      case executorFrameKind.opened:
        this.#controls.resolve(frame.number, frame);
        return;
      case executorFrameKind.failure:
        this.#controls.reject(frame.number, failureIn(frame));
        return;
      default:
        this.kill(`it broke the protocol with a control frame of kind ${frame.kind}`);
    }
  }

  #onPong(pong: ExecutorPong): void {
    this.#unanswered = 0;
    const nowMs = performance.now();
    const last = this.#lastPong;
    const elapsedUs = last === undefined ? 0 : (nowMs - last.atMs) * 1000;
    this.#usage = {
      memoryBytes: pong.memoryBytes,
      ...(last === undefined || elapsedUs <= 0 ? {} : { cpuCores: (pong.cpuUs - last.cpuUs) / elapsedUs }),
    };
    this.#lastPong = { atMs: nowMs, cpuUs: pong.cpuUs };
  }

  /** Counts beats rather than reading clocks: a host that was itself asleep does not blame the process. */
  #startHeartbeat(): void {
    const { heartbeatMs, hangMs } = this.#settings;
    const unansweredMax = Math.max(1, Math.ceil(hangMs / heartbeatMs));
    this.#heartbeat = setInterval(() => {
      if (this.#unanswered >= unansweredMax) {
        this.kill(`it did not answer ${this.#unanswered} heartbeats in ${formatMs(this.#unanswered * heartbeatMs)}`);
        return;
      }
      if (this.#lanes.some((lane) => lane.flights.beat())) {
        const { runMsMax, loadMsMax } = this.#settings;
        this.kill(`it took longer than ${formatMs(runMsMax)} for one run, or than ${formatMs(loadMsMax)} for one load`);
        return;
      }
      this.#unanswered += 1;
      this.#control.send({ kind: executorFrameKind.ping, number: 0, header: noBytes, payload: [] });
    }, heartbeatMs);
    this.#heartbeat.unref();
  }

  #beats(ms: number): number {
    return Math.ceil(ms / this.#settings.heartbeatMs);
  }

  /** A socket that ends before `close` means that the process dies or misbehaves: make sure of it, then learn why. */
  #onSocketEnd(error: Error | undefined, broken: boolean): void {
    if (broken) {
      this.kill(`it broke the protocol: ${messageOf(error)}`);
      return;
    }
    if (!this.#closing) setTimeout(() => this.#child.kill('SIGKILL'), 1_000).unref();
  }

  #gone(code: number | null, signal: NodeJS.Signals | null): void {
    clearInterval(this.#heartbeat);
    const how =
      this.#failure ?? (signal === null ? `it exited with code ${code ?? 'unknown'}` : `it was ended by ${signal}`);
    const words = this.#stderr.text;
    const reason = intarsiaError(
      'EXECUTOR_LOST',
      `executor process for ${this.#settings.provider} is gone: ${how}${words === '' ? '' : `; its last words: ${words}`}`,
      { provider: this.#settings.provider, ...(this.#child.pid === undefined ? {} : { pid: this.#child.pid }) },
    );
    this.#controls.rejectAll(reason);
    for (const lane of this.#lanes) {
      lane.flights.rejectAll(reason);
      lane.socket.destroy();
    }
    this.#control.destroy();
    if (!this.#closing || this.#failure !== undefined) this.#loss.happen(reason);
  }

  #refuseWhenGone(): void {
    if (this.#loss.reason !== undefined) throw this.#loss.reason;
    if (this.#closing) throw intarsiaError('DEVICE_UNAVAILABLE', 'the executor is closing');
  }
}

const noBytes = new Uint8Array(0);

/** Whether the promise is settled within the time. */
async function within(ms: number, promise: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([promise.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The built entry of the process, also when this file itself runs from source: Node 20 runs no TypeScript. */
function builtEntryPath(): string {
  const entry = import.meta.url.endsWith('.ts')
    ? '../../../dist/src/executor/process-main.js'
    : '../../executor/process-main.js';
  return fileURLToPath(new URL(entry, import.meta.url));
}
