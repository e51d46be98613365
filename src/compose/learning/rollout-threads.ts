/**
 * Episodes on several worker threads: each thread builds the world once and plays one episode at a time; records come back
 * by moving their arrays. Which thread plays what has no influence on any number.
 */
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { fromErrorData, intarsiaError, type ErrorData } from '#core/errors.js';
import type { EpisodeOrder, EpisodeRecord, Rollouts } from '#policies/learning/environment.js';
import type { FleetScenario, FleetWorldData } from '#policies/learning/fleet-environment.js';

/** What a thread answers to an order. */
export type RolloutAnswer =
  { readonly ok: true; readonly record: EpisodeRecord } | { readonly ok: false; readonly error: ErrorData };

interface Job {
  readonly orders: readonly EpisodeOrder<FleetScenario>[];
  readonly records: EpisodeRecord[];
  next: number;
  left: number;
  readonly resolve: (records: readonly EpisodeRecord[]) => void;
  readonly reject: (error: unknown) => void;
}

export class RolloutThreads implements Rollouts<FleetScenario> {
  readonly #workers: readonly Worker[];
  #job: Job | undefined;
  #failure: Error | undefined;

  constructor(world: FleetWorldData, threads: number) {
    // Without the process's own options, which may say that imports are sources.
    this.#workers = Array.from(
      { length: threads },
      () => new Worker(workerPath(), { workerData: world, execArgv: [] }),
    );
    for (const worker of this.#workers) {
      worker.on('error', (error) => this.#fail(error));
      worker.on('exit', (code) => {
        if (code !== 0) this.#fail(intarsiaError('INTERNAL', `a thread that plays episodes ended with code ${code}`));
      });
    }
  }

  /** One call at a time. @throws what an episode failed with. */
  run(orders: readonly EpisodeOrder<FleetScenario>[]): Promise<readonly EpisodeRecord[]> {
    if (this.#job !== undefined) throw new Error('episodes are being played already');
    if (orders.length === 0) return Promise.resolve([]);
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) {
        reject(this.#failure);
        return;
      }
      const job: Job = { orders, records: [], next: 0, left: orders.length, resolve, reject };
      this.#job = job;
      for (const worker of this.#workers) this.#give(worker, job);
    });
  }

  /** Ends the threads; the caller waits for its runs first, or gives them up. */
  async close(): Promise<void> {
    for (const worker of this.#workers) worker.removeAllListeners('exit');
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #give(worker: Worker, job: Job): void {
    const index = job.next;
    const order = job.orders[index];
    if (order === undefined) return;
    job.next += 1;
    worker.once('message', (answer: RolloutAnswer) => {
      if (this.#job !== job) return;
      if (!answer.ok) {
        this.#fail(fromErrorData(answer.error));
        return;
      }
      job.records[index] = answer.record;
      job.left -= 1;
      if (job.left === 0) {
        this.#job = undefined;
        job.resolve(job.records);
      } else this.#give(worker, job);
    });
    worker.postMessage(order);
  }

  /** Orders of other threads may still be under way: what they answer belongs to nobody, so nothing is played any more. */
  #fail(error: Error): void {
    this.#failure ??= error;
    const job = this.#job;
    this.#job = undefined;
    job?.reject(error);
  }
}

/** The built entry, also when this file itself runs from source: Node 20 starts no thread from TypeScript. */
function workerPath(): string {
  const entry = import.meta.url.endsWith('.ts')
    ? '../../../dist/src/compose/learning/rollout-worker.js'
    : './rollout-worker.js';
  return fileURLToPath(new URL(entry, import.meta.url));
}
