/**
 * The metrics of one model version on one device, bound once. Called once a batch, never once a request.
 */
import { histogramMetric, metric } from '#core/metric-catalogue.js';
import type { ErrorCode } from '#core/errors.js';
import type { ReleaseReason } from '#core/inference.js';
import type { DeviceId, ModelName, ModelVersion } from '#core/ids.js';
import type { CompletedRun } from '#core/model-statistics.js';
import type { Counter, Gauge, Histogram, MetricFamily, Metrics } from '#ports/metrics.js';

/** The label `reason` of nv_inference_request_failure. */
export type FailureReason = 'REJECTED' | 'CANCELED' | 'BACKEND' | 'OTHER';

const failureReasonOf: Partial<Record<ErrorCode, FailureReason>> = {
  QUEUE_FULL: 'REJECTED',
  QUEUE_TIMEOUT: 'REJECTED',
  RESOURCE_EXHAUSTED: 'REJECTED',
  CANCELLED: 'CANCELED',
  EXECUTION_FAILED: 'BACKEND',
  EXECUTOR_LOST: 'BACKEND',
};

export function failureReason(code: ErrorCode): FailureReason {
  return failureReasonOf[code] ?? 'OTHER';
}

export class ModelMetrics {
  readonly #success: Counter;
  readonly #failures: MetricFamily<Counter>;
  readonly #items: Counter;
  readonly #batches: Counter;
  readonly #requestUs: Counter;
  readonly #queueUs: Counter;
  readonly #computeInputUs: Counter;
  readonly #computeInferUs: Counter;
  readonly #computeOutputUs: Counter;
  readonly #pending: Gauge;
  readonly #loadSeconds: Gauge;
  readonly #released: MetricFamily<Counter>;
  readonly #releasedBy = new Map<ReleaseReason, Counter>();
  readonly #batchItems: Histogram;
  readonly #energyJoules: Counter;
  readonly #costUsd: Counter;
  readonly #labels: readonly [ModelName, ModelVersion, DeviceId];
  #pendingShown = 0;

  constructor(metrics: Metrics, model: ModelName, version: ModelVersion, device: DeviceId) {
    const counter = (name: Parameters<typeof metric>[0]): Counter => metrics.counter(metric(name)).bind(model, version);
    this.#labels = [model, version, device];
    this.#success = counter('nv_inference_request_success');
    this.#failures = metrics.counter(metric('nv_inference_request_failure'));
    this.#items = counter('nv_inference_count');
    this.#batches = counter('nv_inference_exec_count');
    this.#requestUs = counter('nv_inference_request_duration_us');
    this.#queueUs = counter('nv_inference_queue_duration_us');
    this.#computeInputUs = counter('nv_inference_compute_input_duration_us');
    this.#computeInferUs = counter('nv_inference_compute_infer_duration_us');
    this.#computeOutputUs = counter('nv_inference_compute_output_duration_us');
    this.#pending = metrics.gauge(metric('nv_inference_pending_request_count')).bind(model, version);
    this.#loadSeconds = metrics.gauge(metric('nv_model_load_duration_secs')).bind(model, version);
    this.#released = metrics.counter(metric('intarsia_batch_released_total'));
    this.#batchItems = metrics.histogram(histogramMetric('intarsia_batch_items')).bind(...this.#labels);
    this.#energyJoules = metrics.counter(metric('intarsia_request_energy_joules_total')).bind(...this.#labels);
    this.#costUsd = metrics.counter(metric('intarsia_request_cost_usd_total')).bind(...this.#labels);
  }

  released(reason: ReleaseReason, items: number): void {
    let counter = this.#releasedBy.get(reason);
    if (counter === undefined) {
      counter = this.#released.bind(...this.#labels, reason);
      this.#releasedBy.set(reason, counter);
    }
    counter.add(1);
    this.#batchItems.observe(items);
  }

  succeeded(run: CompletedRun, energyJoules: number, costUsd: number): void {
    const { requests } = run;
    this.#success.add(requests);
    this.#items.add(run.items);
    this.#batches.add(1);
    this.#requestUs.add(run.requestUs);
    this.#queueUs.add(run.queueUs);
    this.#computeInputUs.add(run.computeInputUs * requests);
    this.#computeInferUs.add(run.computeInferUs * requests);
    this.#computeOutputUs.add(run.computeOutputUs * requests);
    if (energyJoules > 0) this.#energyJoules.add(energyJoules);
    if (costUsd > 0) this.#costUsd.add(costUsd);
  }

  failed(code: ErrorCode, requests: number): void {
    this.#failures.bind(this.#labels[0], this.#labels[1], failureReason(code)).add(requests);
  }

  loaded(ms: number): void {
    this.#loadSeconds.set(ms / 1000);
  }

  /** Brings the gauge up to date. Several devices share it, so that each adds only what changed on it. */
  showPending(requests: number): void {
    this.#pending.add(requests - this.#pendingShown);
    this.#pendingShown = requests;
  }
}
