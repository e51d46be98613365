/**
 * A piscina pool of executor threads. Rules that ONNX Runtime imposes, kept in one place: a task is never aborted, a busy
 * pool is never destroyed, and threads live until the pool is closed, because ending a thread inside ONNX Runtime aborts
 * the whole process.
 */
import { createRequire } from 'node:module';
import { Piscina } from 'piscina';
import { fromErrorData } from '#core/errors.js';
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
  #busy = 0;

  constructor(options: WorkerPoolOptions) {
    this.#pool = new Piscina<WorkerTask, WorkerAnswer<unknown>>({
      filename: options.workerPath ?? createRequire(import.meta.url).resolve('#executor/worker.js'),
      minThreads: 0,
      maxThreads: options.threads,
      idleTimeout: Infinity,
      concurrentTasksPerWorker: 1,
      atomics: options.idle === 'wait' ? 'sync' : 'disabled',
      recordTiming: false,
      trackUnmanagedFds: false,
      workerData: options.setup,
      execArgv: [],
    });
  }

  /** Tasks that are with a thread or wait for one. */
  get busy(): number {
    return this.#busy;
  }

  /** Runs a task. @throws what the thread answered, or a plain Error when the thread died. */
  async run<Task extends WorkerTask>(
    task: Task,
    transferList: readonly ArrayBuffer[] = [],
  ): Promise<WorkerValues[Task['type']]> {
    this.#busy += 1;
    try {
      const answer = await this.#pool.run(task, { transferList: transferList as ArrayBuffer[] });
      if (!answer.ok) throw fromErrorData(answer.error);
      return answer.value as WorkerValues[Task['type']];
    } finally {
      this.#busy -= 1;
    }
  }

  /** Ends the threads. The caller has waited for every task: with one in flight this throws and ends nothing. */
  async close(): Promise<void> {
    if (this.#busy > 0) throw new Error(`a worker pool with ${this.#busy} tasks in flight must not be closed`);
    await this.#pool.close();
  }
}
