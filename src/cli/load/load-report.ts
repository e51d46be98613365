/** What a load run found, as plain data: the table and `--json` are made of it. */

/** Milliseconds. */
export interface Percentiles {
  readonly count: number;
  readonly mean: number;
  readonly min: number;
  readonly p50: number;
  readonly p90: number;
  readonly p95: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

export interface LoadReport {
  readonly arrivals: string;
  /** Seconds of the window that counts. */
  readonly windowSeconds: number;
  /** Requests that count: finished in the window (closed loop) or meant to leave in it (open loop). */
  readonly requests: number;
  readonly succeeded: number;
  readonly failed: number;
  /** Answered well, per second of the window. */
  readonly requestsPerSecond: number;
  /** `requestsPerSecond` × items of a request. */
  readonly itemsPerSecond: number;
  /** Answered well within the deadline, per second; absent without a deadline. */
  readonly goodput?: { readonly deadlineMs: number; readonly perSecond: number; readonly share: number };
  /** Of requests answered well, from the intended moment. */
  readonly latencyMs: Percentiles;
  /** Open loop: how much later than intended requests left the generator. Large: the generator is the bottleneck. */
  readonly sendDelayMs?: Percentiles;
  /** Failures by code. */
  readonly errors: Readonly<Record<string, number>>;
  /** Share of one core that the generator used in the window. */
  readonly generatorCores?: number;
  /** From the server's statistics over the window: totals before and after it. */
  readonly server?: ServerSplit;
  /** From the receipts of some answers. */
  readonly receipts?: ReceiptSplit;
}

/** Mean milliseconds of one request, as the server counted them. */
export interface ServerSplit {
  readonly requests: number;
  readonly failed: number;
  readonly queueMs: number;
  readonly computeInputMs: number;
  readonly computeInferMs: number;
  readonly computeOutputMs: number;
  /** Items of a batch, on average. */
  readonly itemsPerBatch: number;
  readonly batches: number;
}

export interface ReceiptSplit {
  readonly queueMs: Percentiles;
  readonly computeMs: Percentiles;
  readonly linkMs: Percentiles;
  readonly itemsPerBatch: number;
  /** Answers by device. */
  readonly devices: Readonly<Record<string, number>>;
  /** Sum over the sampled answers divided by their number; absent when the answers name no cost. */
  readonly costUsdPerRequest?: number;
  readonly energyJoulesPerRequest?: number;
}
