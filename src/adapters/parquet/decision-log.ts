/**
 * The decision log of a gateway: taken down on its own thread, written into a journal by another one at most half a second later,
 * made into tables when there is time. A crash loses what was not handed over yet, a clean stop nothing. When the disk is full or the folder is gone it says so once,
 * counts what it loses from then on, and requests are served as before.
 */
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { runName } from '#core/decision-log/log-files.js';
import { LogRecorder, type EndedRequest, type LogCounts } from '#core/decision-log/log-recorder.js';
import { sliceSizeDefault } from '#core/decision-log/log-slice.js';
import { intarsiaError } from '#core/errors.js';
import type { DispatchDecision } from '#core/scheduling/dispatch-decision.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { DecisionLog } from '#ports/decision-log.js';
import type { Log } from '#ports/log.js';
import { JournalConverter } from './journal-converter.js';
import { noFolderCounts, type LogFolderCounts } from './log-folder.js';
import type { LogOrder, LogWord, LogWorkerData } from './decision-log-worker.js';

export interface DecisionLogOptions {
  readonly folder: string;
  /** Bytes of the whole folder. */
  readonly bytesMax: number;
  /** Share of requests that are logged, 0 to 1. */
  readonly share: number;
  readonly host: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** What is handed over is at most this old, ms: with the time to write it, below a second. */
const handOverMs = 500;
/** A stop waits this long for the last slice, ms. */
const closeMsMax = 10_000;
/** And makes tables of journals for so long, ms; the rest stay journals. */
const convertMsMax = 3000;

/** Opens the log; a run of its own. @throws FAILED_PRECONDITION when the folder cannot be written. */
export async function openDecisionLog(options: DecisionLogOptions): Promise<ParquetDecisionLog> {
  const log = new ParquetDecisionLog(options);
  await log.opened;
  return log;
}

export class ParquetDecisionLog implements DecisionLog {
  /** Name of this run; goes before a request's number. */
  readonly run: string;
  readonly opened: Promise<void>;
  readonly #options: DecisionLogOptions;
  readonly #recorder: LogRecorder;
  readonly #worker: Worker;
  readonly #closed: Promise<void>;
  readonly #converter: JournalConverter;
  #written: LogFolderCounts = noFolderCounts;
  #timer: Timer | undefined;
  #isOpen = false;
  #failure = '';

  constructor(options: DecisionLogOptions) {
    const { clock, share, folder, bytesMax, host } = options;
    this.#options = options;
    this.run = runName(host, clock.wallMs(), process.pid);
    this.#recorder = new LogRecorder({
      share,
      wallOffsetMs: () => clock.wallMs() - clock.nowMs(),
      handOver: (number, newTexts) => this.#order({ type: 'slice', number, newTexts }),
    });
    const workerData: LogWorkerData = {
      folder: { folder, run: this.run, bytesMax },
      size: sliceSizeDefault,
      memories: this.#recorder.slices.map(({ memory }) => memory),
    };
    const entry = fileURLToPath(new URL('./decision-log-worker.js', import.meta.url));
    this.#worker = new Worker(entry, { workerData, execArgv: [] });
    this.#worker.unref();
    let open: () => void;
    let refuse: (error: unknown) => void;
    this.opened = new Promise((resolve, reject) => {
      open = resolve;
      refuse = reject;
    });
    const fail = (reason: string): void => {
      this.#fail(reason);
      refuse(
        intarsiaError('FAILED_PRECONDITION', `the decision log cannot be written to ${folder}: ${reason}`, { folder }),
      );
    };
    this.#closed = new Promise((resolve) => {
      this.#worker.on('message', (word: LogWord) => {
        if (word.type === 'open') {
          this.#isOpen = true;
          open();
        } else if (word.type === 'failed') fail(word.reason);
        else {
          this.#written = word.counts;
          if (word.type === 'written') this.#recorder.free(word.number);
          else if (word.type === 'closed') resolve();
        }
      });
      this.#worker.on('error', (error) => fail(error.message));
      this.#worker.on('exit', () => resolve());
    });
    this.#converter = new JournalConverter({
      ...{ folder, clock, log: options.log },
      waiting: () => (this.#failure === '' ? this.#written.waiting : 0),
      onMade: () => this.#order({ type: 'changed' }),
    });
    this.#tick();
  }

  /** Rows taken down and lost, bytes and files written, files removed; why it stopped, empty while it has not. */
  get counts(): LogCounts & LogFolderCounts & { readonly failure: string } {
    return { ...this.#recorder.counts, ...this.#written, failure: this.#failure };
  }

  decided(decision: DispatchDecision): void {
    this.#recorder.decided(decision);
  }

  finished(ended: EndedRequest): void {
    this.#recorder.finished(ended);
  }

  /** Writes what is left and ends the thread. */
  async close(): Promise<void> {
    this.#timer?.cancel();
    if (this.#failure === '') {
      this.#recorder.flush();
      this.#order({ type: 'close' });
      const { clock, log } = this.#options;
      await new Promise<void>((resolve) => {
        const timer = clock.schedule(closeMsMax, () => {
          log.warn('the decision log was not written to its end in time', { waitedMs: closeMsMax });
          resolve();
        });
        void this.#closed.then(() => {
          timer.cancel();
          resolve();
        });
      });
    }
    this.#recorder.stop();
    await this.#converter.close(convertMsMax);
    await this.#worker.terminate();
  }

  #tick(): void {
    this.#timer = this.#options.clock.schedule(handOverMs, () => {
      this.#recorder.flush();
      this.#tick();
    });
  }

  #order(order: LogOrder): void {
    this.#worker.postMessage(order);
  }

  #fail(reason: string): void {
    if (this.#failure !== '') return;
    this.#failure = reason;
    this.#timer?.cancel();
    this.#converter.stop();
    this.#recorder.stop();
    if (!this.#isOpen) {
      void this.#worker.terminate();
      return;
    }
    const { folder } = this.#options;
    this.#options.log.warn('the decision log has stopped; requests are served as before', { folder, reason });
  }
}
