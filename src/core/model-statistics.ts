/**
 * Counts and durations of one model version, as ModelStatistics tells them: per request, per batch size, in nanoseconds.
 * Durations of a batch are added once per request of it to the inference figures, and once per run to the batch figures.
 */

/** How often, and how long altogether. */
export interface StatisticDuration {
  readonly count: number;
  /** Nanoseconds. */
  readonly ns: number;
}

export interface BatchStatistics {
  /** Items. */
  readonly batchSize: number;
  readonly computeInput: StatisticDuration;
  readonly computeInfer: StatisticDuration;
  readonly computeOutput: StatisticDuration;
}

export interface ModelStatistics {
  /** Moment of the last inference, ms since 1970; 0 when there was none. */
  readonly lastInferenceMs: number;
  /** Items computed. */
  readonly inferenceCount: number;
  /** Batches computed. */
  readonly executionCount: number;
  readonly success: StatisticDuration;
  readonly fail: StatisticDuration;
  readonly queue: StatisticDuration;
  readonly computeInput: StatisticDuration;
  readonly computeInfer: StatisticDuration;
  readonly computeOutput: StatisticDuration;
  /** By batch size, ascending. */
  readonly batches: readonly BatchStatistics[];
}

/** One run that succeeded; durations in microseconds. */
export interface CompletedRun {
  readonly requests: number;
  readonly items: number;
  /** Sum over the requests of the time from arrival to answer, and of the time in queues. */
  readonly requestUs: number;
  readonly queueUs: number;
  readonly computeInputUs: number;
  readonly computeInferUs: number;
  readonly computeOutputUs: number;
  /** Wall clock, ms since 1970. */
  readonly finishedWallMs: number;
}

class Duration implements StatisticDuration {
  count = 0;
  ns = 0;

  add(count: number, us: number): void {
    this.count += count;
    this.ns += Math.round(us * 1000);
  }

  copy(): StatisticDuration {
    return { count: this.count, ns: this.ns };
  }
}

class BatchSize {
  readonly computeInput = new Duration();
  readonly computeInfer = new Duration();
  readonly computeOutput = new Duration();
}

export class ModelStatisticsRecorder {
  #lastInferenceMs = 0;
  #inferenceCount = 0;
  #executionCount = 0;
  readonly #success = new Duration();
  readonly #fail = new Duration();
  readonly #queue = new Duration();
  readonly #computeInput = new Duration();
  readonly #computeInfer = new Duration();
  readonly #computeOutput = new Duration();
  readonly #batches = new Map<number, BatchSize>();

  recordRun(run: CompletedRun): void {
    this.#lastInferenceMs = run.finishedWallMs;
    this.#inferenceCount += run.items;
    this.#executionCount += 1;
    this.#success.add(run.requests, run.requestUs);
    this.#queue.add(run.requests, run.queueUs);
    this.#computeInput.add(run.requests, run.computeInputUs * run.requests);
    this.#computeInfer.add(run.requests, run.computeInferUs * run.requests);
    this.#computeOutput.add(run.requests, run.computeOutputUs * run.requests);
    let size = this.#batches.get(run.items);
    if (size === undefined) {
      size = new BatchSize();
      this.#batches.set(run.items, size);
    }
    size.computeInput.add(1, run.computeInputUs);
    size.computeInfer.add(1, run.computeInferUs);
    size.computeOutput.add(1, run.computeOutputUs);
  }

  /** Requests that failed, and the time (µs) from their arrival to the error, summed. */
  recordFailures(requests: number, us: number): void {
    this.#fail.add(requests, us);
  }

  /** Mean microseconds of a run with this many items; 0 when there was none. */
  meanRunUs(items: number): number {
    const size = this.#batches.get(items);
    if (size === undefined) return 0;
    const ns = size.computeInput.ns + size.computeInfer.ns + size.computeOutput.ns;
    return ns / size.computeInfer.count / 1000;
  }

  snapshot(): ModelStatistics {
    const batches = [...this.#batches].sort(([a], [b]) => a - b);
    return {
      lastInferenceMs: this.#lastInferenceMs,
      inferenceCount: this.#inferenceCount,
      executionCount: this.#executionCount,
      success: this.#success.copy(),
      fail: this.#fail.copy(),
      queue: this.#queue.copy(),
      computeInput: this.#computeInput.copy(),
      computeInfer: this.#computeInfer.copy(),
      computeOutput: this.#computeOutput.copy(),
      batches: batches.map(([batchSize, size]) => ({
        batchSize,
        computeInput: size.computeInput.copy(),
        computeInfer: size.computeInfer.copy(),
        computeOutput: size.computeOutput.copy(),
      })),
    };
  }
}

const none: StatisticDuration = { count: 0, ns: 0 };
const sum = (a: StatisticDuration, b: StatisticDuration): StatisticDuration => ({
  count: a.count + b.count,
  ns: a.ns + b.ns,
});

/** What a later stage of a split model adds to the figures of its first: time in queues and in engines, no requests. */
export function timesOnly({ lastInferenceMs, ...statistics }: ModelStatistics): ModelStatistics {
  const time = ({ ns }: StatisticDuration): StatisticDuration => ({ count: 0, ns });
  return {
    lastInferenceMs,
    inferenceCount: 0,
    executionCount: 0,
    success: none,
    fail: none,
    queue: time(statistics.queue),
    computeInput: time(statistics.computeInput),
    computeInfer: time(statistics.computeInfer),
    computeOutput: time(statistics.computeOutput),
    batches: [],
  };
}

/** The figures of several devices as one. */
export function addStatistics(parts: readonly ModelStatistics[]): ModelStatistics {
  const batches = new Map<number, BatchStatistics>();
  for (const part of parts) {
    for (const batch of part.batches) {
      const known = batches.get(batch.batchSize);
      batches.set(batch.batchSize, {
        batchSize: batch.batchSize,
        computeInput: sum(known?.computeInput ?? none, batch.computeInput),
        computeInfer: sum(known?.computeInfer ?? none, batch.computeInfer),
        computeOutput: sum(known?.computeOutput ?? none, batch.computeOutput),
      });
    }
  }
  return {
    lastInferenceMs: parts.reduce((latest, part) => Math.max(latest, part.lastInferenceMs), 0),
    inferenceCount: parts.reduce((total, part) => total + part.inferenceCount, 0),
    executionCount: parts.reduce((total, part) => total + part.executionCount, 0),
    success: parts.reduce((total, part) => sum(total, part.success), none),
    fail: parts.reduce((total, part) => sum(total, part.fail), none),
    queue: parts.reduce((total, part) => sum(total, part.queue), none),
    computeInput: parts.reduce((total, part) => sum(total, part.computeInput), none),
    computeInfer: parts.reduce((total, part) => sum(total, part.computeInfer), none),
    computeOutput: parts.reduce((total, part) => sum(total, part.computeOutput), none),
    batches: [...batches.values()].sort((a, b) => a.batchSize - b.batchSize),
  };
}
