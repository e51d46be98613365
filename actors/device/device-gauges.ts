/** Figures of a device as a whole. They outlive its incarnations: a collector can be registered but not taken back. */
import { metric } from '#core/metric-catalogue.js';
import type { DeviceId } from '#core/ids.js';
import type { Counter, Gauge, Metrics } from '#ports/metrics.js';

export interface DeviceGauges {
  readonly permitsFree: Gauge;
  /** Share of the last interval with at least one run in the executor. */
  readonly busyShare: Gauge;
  /** Bytes the sessions hold, and may hold. */
  readonly modelBytes: Gauge;
  readonly modelBytesMax: Gauge;
  readonly executorRestarts: Counter;
  /** Brings the gauges up to date; set by the living incarnation, called before each exposition. */
  show: () => void;
}

export function deviceGauges(metrics: Metrics, device: DeviceId): DeviceGauges {
  const gauges: DeviceGauges = {
    permitsFree: metrics.gauge(metric('intarsia_device_permits_free')).bind(device),
    busyShare: metrics.gauge(metric('intarsia_device_busy_share')).bind(device),
    modelBytes: metrics.gauge(metric('intarsia_device_model_bytes')).bind(device),
    modelBytesMax: metrics.gauge(metric('intarsia_device_model_bytes_max')).bind(device),
    executorRestarts: metrics.counter(metric('intarsia_executor_restarts_total')).bind(device),
    show: () => undefined,
  };
  metrics.onCollect(() => {
    gauges.show();
  });
  return gauges;
}
