/** Shows vitals and device readings as metrics, read at each scrape. Triton's names for what Triton has, ours beside. */
import { metric } from '#core/metric-catalogue.js';
import type { DiscoveryReport } from '#core/device-discovery.js';
import type { DeviceReadings } from '#ports/device-readings.js';
import type { Counter, Gauge, Metrics } from '#ports/metrics.js';
import type { HostVitals } from './host-vitals.js';

export interface HostMetricsOptions {
  readonly metrics: Metrics;
  readonly vitals: { read(): HostVitals };
  readonly readings: DeviceReadings;
  readonly report: DiscoveryReport;
  /** Log lines given up so far; not shown when absent. */
  readonly droppedLogLines?: () => number;
  /** Finished requests recorded so far; not shown when absent. */
  readonly recordedRows?: () => number;
}

/** Registers the metrics; from then on each scrape reads. Figures that nobody tells are not shown. */
export function exportHostMetrics(options: HostMetricsOptions): void {
  const { metrics, vitals, readings, report } = options;
  const gauge = (name: Parameters<typeof metric>[0], ...labels: readonly string[]): Gauge =>
    metrics.gauge(metric(name)).bind(...labels);
  const cpu = gauge('nv_cpu_utilization');
  const memoryTotal = gauge('nv_cpu_memory_total_bytes');
  const memoryUsed = gauge('nv_cpu_memory_used_bytes');
  const lag = {
    p50: gauge('intarsia_event_loop_lag_seconds', '0.5'),
    p99: gauge('intarsia_event_loop_lag_seconds', '0.99'),
    max: gauge('intarsia_event_loop_lag_seconds', '1'),
  };
  const rss = gauge('intarsia_host_memory_bytes', 'rss');
  const heap = gauge('intarsia_host_memory_bytes', 'heap');
  const external = gauge('intarsia_host_memory_bytes', 'external');
  const uptime = gauge('intarsia_host_uptime_seconds');
  const devices = report.devices.map((device) => new DeviceSeries(metrics, device));

  const dropped = total(metrics, 'intarsia_log_lines_dropped_total', options.droppedLogLines);
  const rows = total(metrics, 'intarsia_telemetry_rows_total', options.recordedRows);

  metrics.onCollect(() => {
    dropped();
    rows();
    const now = vitals.read();
    cpu.set(now.cpuUtilization);
    memoryTotal.set(now.memoryTotalBytes);
    memoryUsed.set(now.memoryUsedBytes);
    lag.p50.set(now.eventLoopLagMs.p50 / 1000);
    lag.p99.set(now.eventLoopLagMs.p99 / 1000);
    lag.max.set(now.eventLoopLagMs.max / 1000);
    rss.set(now.rssBytes);
    heap.set(now.heapUsedBytes);
    external.set(now.externalBytes);
    uptime.set(now.uptimeSeconds);
    for (const series of devices) series.update(readings);
  });
}

/** Brings a counter up to a total that somebody else counts. */
function total(metrics: Metrics, name: Parameters<typeof metric>[0], read: (() => number) | undefined): () => void {
  if (read === undefined) return () => {};
  const counter = metrics.counter(metric(name)).bind();
  let seen = 0;
  return () => {
    const now = read();
    counter.add(now - seen);
    seen = now;
  };
}

/** Series of one device, bound when the first figure for them arrives. */
class DeviceSeries {
  readonly #metrics: Metrics;
  readonly #device: DiscoveryReport['devices'][number];
  /** NVIDIA's UUID: the label of Triton's names. Empty for other silicon, which Triton does not show. */
  readonly #uuid: string;
  readonly #gauges = new Map<string, Gauge>();
  #energy: Counter | undefined;
  #energySeen = 0;

  constructor(metrics: Metrics, device: DiscoveryReport['devices'][number]) {
    this.#metrics = metrics;
    this.#device = device;
    const { uuid } = device.facts;
    this.#uuid = typeof uuid === 'string' ? uuid : '';
  }

  update(readings: DeviceReadings): void {
    const reading = readings.latest(this.#device.id);
    if (reading === undefined) return;
    this.#show('intarsia_device_utilization', 'nv_gpu_utilization', reading.utilization);
    this.#show('intarsia_device_memory_total_bytes', 'nv_gpu_memory_total_bytes', reading.memoryTotalBytes);
    this.#show('intarsia_device_memory_used_bytes', 'nv_gpu_memory_used_bytes', reading.memoryUsedBytes);
    this.#show('intarsia_device_power_watts', 'nv_gpu_power_usage', reading.powerWatts);
    this.#show('intarsia_device_temperature_celsius', undefined, reading.temperatureCelsius);
    this.#show(undefined, 'nv_gpu_power_limit', reading.powerLimitWatts);
    if (this.#uuid === '' || reading.energyJoules === undefined) return;
    this.#energy ??= this.#metrics.counter(metric('nv_energy_consumption')).bind(this.#uuid);
    this.#energy.add(reading.energyJoules - this.#energySeen);
    this.#energySeen = reading.energyJoules;
  }

  #show(
    ours: Parameters<typeof metric>[0] | undefined,
    tritons: Parameters<typeof metric>[0] | undefined,
    value: number | undefined,
  ): void {
    if (value === undefined) return;
    if (ours !== undefined) this.#gauge(ours, this.#device.id).set(value);
    if (tritons !== undefined && this.#uuid !== '') this.#gauge(tritons, this.#uuid).set(value);
  }

  #gauge(name: Parameters<typeof metric>[0], label: string): Gauge {
    const known = this.#gauges.get(name);
    if (known !== undefined) return known;
    const bound = this.#metrics.gauge(metric(name)).bind(label);
    this.#gauges.set(name, bound);
    return bound;
  }
}
