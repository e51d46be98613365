/**
 * Executors on a clock of the caller's: they take the time and memory they are told to, compute what a function says, and
 * fail, crash or refuse when asked. They keep the executor port's promises, so that the device actor runs unchanged.
 *
 * Every run is recorded as it begins, so that a test can say what was batched with what, and when.
 */
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { ExecutionProvider } from '#core/provider.js';
import type { Tensor, TensorSpec } from '#core/tensor.js';
import type { Clock, Timer } from '#ports/clock.js';
import type {
  Executor,
  ExecutorDescription,
  ExecutorFactory,
  ExecutorUsage,
  LoadRequest,
  LoadedSession,
  RunRequest,
  RunResult,
} from '#ports/executor.js';

/** How an artefact behaves. */
export interface PretendModel {
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
  readonly loadMs: number;
  /** Bytes it is measured to take; 0: cannot be told. */
  readonly memoryBytes: number;
  /** Milliseconds of a run with so many items: the first size of the first input. */
  runMs(items: number): number;
  /** Outputs of a run, chunks joined. Throws what the run is to fail with. */
  compute(inputs: readonly Tensor[]): readonly Tensor[];
  /** What a load fails with, or `crash`. Asked at each load. */
  loadFault?(provider: ExecutionProvider): IntarsiaError | 'crash' | undefined;
  /** Whether this run takes the executor down, when it would have ended. */
  runCrashes?(inputs: readonly Tensor[]): boolean;
}

export interface PretendRun {
  readonly artifact: string;
  readonly startedMs: number;
  readonly items: number;
  readonly inputs: readonly Tensor[];
  readonly outputsWanted: readonly string[];
  /** Number of the executor it ran in, from 0. */
  readonly executor: number;
}

export interface PretendOptions {
  readonly clock: Clock;
  /** Behaviour by the path of the artefact. */
  readonly models: ReadonlyMap<string, PretendModel>;
  /** Default cpu. */
  readonly provider?: ExecutionProvider;
  /** Runs that compute at once, default 1. */
  readonly concurrency?: number;
  /** Default 0. */
  readonly startMs?: number;
  /** What a start fails with; asked at each start. */
  readonly startFault?: () => IntarsiaError | undefined;
}

/** A factory of pretend executors, and what they went through. */
export class PretendExecutors {
  readonly started: PretendExecutor[] = [];
  /** Runs in the order in which they began, warm-ups and canaries included. */
  readonly runs: PretendRun[] = [];
  readonly #options: PretendOptions;

  constructor(options: PretendOptions) {
    this.#options = options;
  }

  readonly start: ExecutorFactory = () =>
    new Promise((resolve, reject) => {
      const { clock, startMs = 0 } = this.#options;
      clock.schedule(startMs, () => {
        const fault = this.#options.startFault?.();
        if (fault !== undefined) {
          reject(fault);
          return;
        }
        const executor = new PretendExecutor(this.#options, this.started.length, this.runs);
        this.started.push(executor);
        resolve(executor);
      });
    });

  /** The one that was started last. */
  get current(): PretendExecutor {
    const executor = this.started.at(-1);
    if (executor === undefined) throw intarsiaError('UNAVAILABLE', 'no pretend executor was started yet');
    return executor;
  }
}

interface Work {
  readonly run: () => void;
  readonly reject: (error: IntarsiaError) => void;
}

export class PretendExecutor implements Executor {
  readonly description: ExecutorDescription;
  /** Sessions loaded now: artefact by session. */
  readonly sessions = new Map<string, string>();
  closed = false;
  readonly #options: PretendOptions;
  readonly #number: number;
  readonly #record: PretendRun[];
  readonly #waiting: Work[] = [];
  readonly #inFlight = new Map<Work, Timer>();
  readonly #listeners: ((reason: IntarsiaError) => void)[] = [];
  #lost: IntarsiaError | undefined;
  #computing = 0;

  constructor(options: PretendOptions, number: number, record: PretendRun[]) {
    this.#options = options;
    this.#number = number;
    this.#record = record;
    this.description = {
      provider: options.provider ?? 'cpu',
      isolation: 'inline',
      emulated: true,
      engine: 'pretend 1.0',
      concurrency: options.concurrency ?? 1,
    };
  }

  load(request: LoadRequest): Promise<LoadedSession> {
    const { path } = request.artifact;
    const model = this.#options.models.get(path);
    if (model === undefined) return Promise.reject(intarsiaError('MODEL_INVALID', `there is no artefact ${path}`));
    return this.#after(model.loadMs, () => {
      const fault = model.loadFault?.(this.description.provider);
      if (fault === 'crash') return this.crash(`loading ${path}`);
      if (fault !== undefined) throw fault;
      this.sessions.set(request.session, path);
      const { inputs, outputs, loadMs, memoryBytes } = model;
      return { inputs, outputs, loadMs, memoryBytes, optimization: request.options.optimization, notes: [] };
    });
  }

  run(request: RunRequest): Promise<RunResult> {
    if (this.#lost !== undefined) return Promise.reject(this.#lost);
    const path = this.sessions.get(request.session);
    const model = path === undefined ? undefined : this.#options.models.get(path);
    if (path === undefined || model === undefined) {
      return Promise.reject(intarsiaError('NOT_FOUND', `there is no session ${request.session}`));
    }
    const inputs = request.inputs.map(joined);
    const items = inputs[0]?.shape[0] ?? 1;
    return new Promise((resolve, reject) => {
      const begin = (): void => {
        const startedMs = this.#options.clock.nowMs();
        this.#record.push({
          artifact: path,
          startedMs,
          items,
          inputs,
          outputsWanted: request.outputs,
          executor: this.#number,
        });
        this.#computing += 1;
        const runMs = model.runMs(items);
        this.#after(runMs, () => {
          this.#computing -= 1;
          if (model.runCrashes?.(inputs) === true) return this.crash(`running ${path}`);
          const all = model.compute(inputs);
          const wanted = request.outputs.length === 0 ? model.outputs.map((spec) => spec.name) : request.outputs;
          const outputs = wanted.flatMap((name) => all.filter((tensor) => tensor.name === name));
          return { outputs, computeInputUs: 10, computeInferUs: runMs * 1000, computeOutputUs: 10 };
        }).then(resolve, reject);
      };
      this.#waiting.push({ run: begin, reject });
      this.#next();
    });
  }

  unload(session: string): Promise<void> {
    if (this.#lost !== undefined) return Promise.reject(this.#lost);
    this.sessions.delete(session);
    return Promise.resolve();
  }

  usage(): ExecutorUsage {
    return {};
  }

  onLost(listener: (reason: IntarsiaError) => void): void {
    const lost = this.#lost;
    if (lost === undefined) this.#listeners.push(listener);
    else
      this.#options.clock.defer(() => {
        listener(lost);
      });
  }

  close(): Promise<void> {
    this.closed = true;
    this.#lost ??= intarsiaError('EXECUTOR_LOST', 'the pretend executor is closed');
    return Promise.resolve();
  }

  /** Dies now: what is in flight is rejected, whoever listens is told. */
  crash(reason: string): never {
    const error = intarsiaError('EXECUTOR_LOST', `the pretend executor crashed: ${reason}`);
    if (this.#lost === undefined) {
      this.#lost = error;
      this.sessions.clear();
      for (const [work, timer] of [...this.#inFlight]) {
        timer.cancel();
        work.reject(error);
      }
      this.#inFlight.clear();
      for (const work of this.#waiting.splice(0)) work.reject(error);
      for (const listener of this.#listeners.splice(0)) listener(error);
    }
    throw error;
  }

  /** Calls `end` after that time, and answers with what it returns or throws. */
  #after<Value>(delayMs: number, end: () => Value): Promise<Value> {
    if (this.#lost !== undefined) return Promise.reject(this.#lost);
    return new Promise((resolve, reject) => {
      const work: Work = { run: () => undefined, reject };
      const timer = this.#options.clock.schedule(delayMs, () => {
        this.#inFlight.delete(work);
        try {
          resolve(end());
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
        this.#next();
      });
      this.#inFlight.set(work, timer);
    });
  }

  #next(): void {
    while (this.#lost === undefined && this.#computing < this.description.concurrency) {
      const work = this.#waiting.shift();
      if (work === undefined) return;
      work.run();
    }
  }
}

function joined(input: RunRequest['inputs'][number]): Tensor {
  const bytes = input.chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0);
  const data = new Uint8Array(bytes);
  let offset = 0;
  for (const chunk of input.chunks) {
    data.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return { name: input.name, datatype: input.datatype, shape: input.shape, data };
}
