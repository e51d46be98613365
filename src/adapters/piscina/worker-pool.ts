/**
 * A piscina pool of executor threads. Rules that ONNX Runtime imposes, kept in one place: a task is never aborted, a busy
 * pool is never destroyed, and threads live until the pool is closed, because ending a thread inside ONNX Runtime aborts
 * the whole process.
 */
import { fileURLToPath } from 'node:url';
import { Piscina } from 'piscina';
import { fromErrorData, messageOf } from '#core/errors.js';
import { InFlight } from '#core/in-flight.js';
import type { WorkerAnswer, WorkerSetup, WorkerTask, WorkerValues } from './worker-protocol.js';

export interface WorkerPoolOptions {
  readonly setup: WorkerSetup;
  /** Threads it may start; each is started by the first task that finds none free. */
  readonly threads: number;
  /**
   * `wait`: an idle thread sleeps in `Atomics.wait`, which hands over tasks fastest. `events`: an idle thread runs its
   * event loop, which it must where it serves a socket.
   */
  readonly idle: 'wait' | 'events';
  /** Built entry file of the threads. */
  readonly workerPath?: string;
}

export class WorkerPool {
  readonly #pool: Piscina<WorkerTask, WorkerAnswer<unknown>>;
  readonly #tasks = new InFlight<unknown>(Infinity);

  constructor(options: WorkerPoolOptions) {
    this.#pool = new Piscina<WorkerTask, WorkerAnswer<unknown>>({
      filename: options.workerPath ?? builtWorkerPath(),
      minThreads: 0,
      maxThreads: options.threads,
      idleTimeout: Infinity,
      concurrentTasksPerWorker: 1,
      atomics: options.idle === 'wait' ? 'sync' : 'disabled',
      // Without this, tasks that find the thread busy go to the end of the queue again and again.
      stricterFIFO: true,
      recordTiming: false,
      trackUnmanagedFds: false,
      workerData: options.setup,
      execArgv: [],
    });
    // A thread that cannot even start takes no task: piscina reports it here, and its queue would wait for ever.
    this.#pool.on('error', (error: Error) => this.#tasks.rejectAll(error));
  }

  /** Tasks that are with a thread or wait for one. */
  get busy(): number {
    return this.#tasks.size;
  }

  /** Runs a task. @throws what the thread answered, or a plain Error when the thread died. */
  run<Task extends WorkerTask>(
    task: Task,
    transferList: readonly ArrayBuffer[] = [],
  ): Promise<WorkerValues[Task['type']]> {
    return this.#tasks.add(Infinity, (number) => {
      this.#pool.run(task, { transferList: transferList as ArrayBuffer[] }).then(
        (answer) => {
          if (answer.ok) this.#tasks.resolve(number, answer.value);
          else this.#tasks.reject(number, fromErrorData(answer.error));
        },
        (error: unknown) => {
          this.#tasks.reject(number, error instanceof Error ? error : new Error(messageOf(error)));
        },
      );
    }) as Promise<WorkerValues[Task['type']]>;
  }

  /** Resolves once no task is with a thread. */
  idle(): Promise<void> {
    return this.#tasks.idle();
  }

  /** Ends the threads. The caller has waited for every task: with one in flight this throws and ends nothing. */
  async close(): Promise<void> {
    if (this.busy > 0) throw new Error(`a worker pool with ${this.busy} tasks in flight must not be closed`);
    await this.#pool.close();
  }
}

/** The built entry of the threads, also when this file itself runs from source: Node 20 starts no thread from TypeScript. */
function builtWorkerPath(): string {
  const entry = import.meta.url.endsWith('.ts') ? '../../../dist/src/executor/worker.js' : '../../executor/worker.js';
  return fileURLToPath(new URL(entry, import.meta.url));
}
