/**
 * Counts what happens to requests. Histograms hold 1 µs to one hour at three significant digits, in a fixed amount of
 * memory; nothing is kept per request.
 */
import { build } from 'hdr-histogram-js';
import type { Histogram } from 'hdr-histogram-js';
import type { ClientReceipt } from '#client/index.js';
import type { LoadPlan } from './load-plan.js';
import type { LoadReport, Percentiles, ReceiptSplit } from './load-report.js';

const usMax = 3_600_000_000;

function histogram(): Histogram {
  return build({
    bitBucketSize: 64,
    autoResize: false,
    lowestDiscernibleValue: 1,
    highestTrackableValue: usMax,
    numberOfSignificantValueDigits: 3,
  });
}

export class LoadRecorder {
  readonly #deadlineMs: number;
  readonly #latencyUs = histogram();
  readonly #sendDelayUs = histogram();
  readonly #errors = new Map<string, number>();
  #succeeded = 0;
  #inTime = 0;
  #failed = 0;
  readonly #queueUs = histogram();
  readonly #computeUs = histogram();
  readonly #linkUs = histogram();
  readonly #devices = new Map<string, number>();
  #receipts = 0;
  #batchItems = 0;
  #costUsd: number | undefined;
  #energyJoules: number | undefined;

  constructor(deadlineMs: number) {
    this.#deadlineMs = deadlineMs;
  }

  get requests(): number {
    return this.#succeeded + this.#failed;
  }

  succeeded(latencyMs: number): void {
    this.#succeeded += 1;
    this.#latencyUs.recordValue(microseconds(latencyMs));
    if (latencyMs <= this.#deadlineMs) this.#inTime += 1;
  }

  failed(code: string): void {
    this.#failed += 1;
    this.#errors.set(code, (this.#errors.get(code) ?? 0) + 1);
  }

  /** How much later than intended a request of an open loop left. */
  sent(delayMs: number): void {
    this.#sendDelayUs.recordValue(microseconds(delayMs));
  }

  receipt(receipt: ClientReceipt): void {
    this.#receipts += 1;
    this.#queueUs.recordValue(microseconds(receipt.queueUs / 1000));
    this.#computeUs.recordValue(microseconds(receipt.computeUs / 1000));
    this.#linkUs.recordValue(microseconds(receipt.linkUs / 1000));
    this.#batchItems += receipt.batchItems;
    this.#devices.set(receipt.device, (this.#devices.get(receipt.device) ?? 0) + 1);
    if (receipt.costUsd !== undefined) this.#costUsd = (this.#costUsd ?? 0) + receipt.costUsd;
    if (receipt.energyJoules !== undefined) this.#energyJoules = (this.#energyJoules ?? 0) + receipt.energyJoules;
  }

  report(plan: LoadPlan, windowMs: number, itemsPerRequest: number): LoadReport {
    const seconds = windowMs / 1000;
    const perSecond = this.#succeeded / seconds;
    return {
      arrivals: describeArrivals(plan),
      windowSeconds: seconds,
      requests: this.requests,
      succeeded: this.#succeeded,
      failed: this.#failed,
      requestsPerSecond: perSecond,
      itemsPerSecond: perSecond * itemsPerRequest,
      ...(plan.deadlineMs === 0
        ? {}
        : {
            goodput: {
              deadlineMs: plan.deadlineMs,
              perSecond: this.#inTime / seconds,
              share: this.requests === 0 ? 0 : this.#inTime / this.requests,
            },
          }),
      latencyMs: percentilesOf(this.#latencyUs),
      ...(plan.arrivals.kind === 'closed' ? {} : { sendDelayMs: percentilesOf(this.#sendDelayUs) }),
      errors: Object.fromEntries([...this.#errors].sort(([, a], [, b]) => b - a)),
      ...(this.#receipts === 0 ? {} : { receipts: this.#receiptSplit() }),
    };
  }

  #receiptSplit(): ReceiptSplit {
    return {
      queueMs: percentilesOf(this.#queueUs),
      computeMs: percentilesOf(this.#computeUs),
      linkMs: percentilesOf(this.#linkUs),
      itemsPerBatch: this.#batchItems / this.#receipts,
      devices: Object.fromEntries(this.#devices),
      ...(this.#costUsd === undefined ? {} : { costUsdPerRequest: this.#costUsd / this.#receipts }),
      ...(this.#energyJoules === undefined ? {} : { energyJoulesPerRequest: this.#energyJoules / this.#receipts }),
    };
  }
}

function microseconds(ms: number): number {
  return Math.min(usMax, Math.max(1, Math.round(ms * 1000)));
}

function percentilesOf(histogram: Histogram): Percentiles {
  const count = histogram.totalCount;
  if (count === 0) return { count, mean: 0, min: 0, p50: 0, p90: 0, p95: 0, p99: 0, p999: 0, max: 0 };
  const at = (percentile: number): number => histogram.getValueAtPercentile(percentile) / 1000;
  return {
    count,
    mean: histogram.mean / 1000,
    min: histogram.minNonZeroValue / 1000,
    p50: at(50),
    p90: at(90),
    p95: at(95),
    p99: at(99),
    p999: at(99.9),
    max: histogram.maxValue / 1000,
  };
}

function describeArrivals({ arrivals }: LoadPlan): string {
  if (arrivals.kind === 'closed') return `closed loop, ${arrivals.concurrency} in flight`;
  if (arrivals.kind === 'poisson') return `open loop, Poisson, ${arrivals.ratePerSecond} requests/s`;
  return `open loop, trace ${arrivals.name}, ${arrivals.arrivalsMs.length} arrivals`;
}
