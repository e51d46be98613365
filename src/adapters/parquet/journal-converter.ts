/**
 * When tables are made of a log's journals: one at a time, and only while processors have nothing else to do, because making them takes
 * a hundred times as long as writing them down did. A machine that is never idle keeps journals; whoever reads the log reads both.
 */
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { Clock, Timer } from '#ports/clock.js';
import type { Log } from '#ports/log.js';
import type { ConvertOrder, ConvertWord } from './convert-worker.js';

export interface JournalConverterOptions {
  readonly folder: string;
  readonly clock: Clock;
  readonly log: Log;
  /** Closed journals in the folder. */
  readonly waiting: () => number;
  /** Some were made into tables. */
  readonly onMade: () => void;
}

/** How long processors are watched before a journal is taken, ms. */
const watchMs = 5000;
/** Processors that must have been idle in the mean. */
const idleMin = 0.5;

export class JournalConverter {
  readonly #options: JournalConverterOptions;
  #timer: Timer | undefined;
  #before: readonly ProcessorTime[] = [];
  #running: Worker | undefined;
  /** Journals that nobody can make tables of. */
  #hopeless = 0;

  constructor(options: JournalConverterOptions) {
    this.#options = options;
    this.#watch();
  }

  /** Ends the watch. */
  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** Ends the watch, and makes tables of what waits for at most so long, ms. */
  async close(msMax: number): Promise<void> {
    this.stop();
    await this.#running?.terminate();
    if (this.#options.waiting() > 0) await this.#convert({ journalsMax: Infinity, msMax });
  }

  #watch(): void {
    this.#timer = this.#options.clock.schedule(watchMs, () => {
      const waits = this.#options.waiting() > this.#hopeless;
      const now = waits ? cpus().map(({ times }) => processorTime(times)) : [];
      const isIdle = idleProcessors(this.#before, now) >= idleMin;
      this.#before = now;
      if (!isIdle) {
        this.#watch();
        return;
      }
      void this.#convert({ journalsMax: 1, msMax: watchMs }).then((made) => {
        if (made === 0) this.#hopeless = this.#options.waiting();
        this.#before = [];
        if (this.#timer !== undefined) this.#watch();
      });
    });
  }

  async #convert(order: Omit<ConvertOrder, 'folder'>): Promise<number> {
    const { folder, log, onMade } = this.#options;
    const entry = fileURLToPath(new URL('./convert-worker.js', import.meta.url));
    const worker = new Worker(entry, { workerData: { folder, ...order }, execArgv: [] });
    worker.unref();
    this.#running = worker;
    let word: ConvertWord = { made: 0, failure: '' };
    await new Promise<void>((resolve) => {
      worker.on('message', (told: ConvertWord) => (word = told));
      worker.on('error', ({ message }) => (word = { made: 0, failure: message }));
      worker.on('exit', () => resolve());
    });
    this.#running = undefined;
    if (word.failure !== '') {
      log.warn('journals of the decision log stay as they are; they are read all the same', { folder, ...word });
    }
    if (word.made > 0) onMade();
    return word.made;
  }
}

interface ProcessorTime {
  readonly idle: number;
  readonly all: number;
}

function processorTime({ user, nice, sys, idle, irq }: ReturnType<typeof cpus>[number]['times']): ProcessorTime {
  return { idle, all: user + nice + sys + idle + irq };
}

/** Processors that did nothing between two looks, as a sum of shares; 0 when there are not two. */
export function idleProcessors(before: readonly ProcessorTime[], after: readonly ProcessorTime[]): number {
  let idle = 0;
  for (const [index, { idle: from, all }] of before.entries()) {
    const now = after[index];
    if (now !== undefined && now.all > all) idle += (now.idle - from) / (now.all - all);
  }
  return idle;
}
