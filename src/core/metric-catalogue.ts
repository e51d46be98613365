/**
 * Every metric of a host, in one table: name, type, unit, labels, meaning. Whoever counts takes the definition from here,
 * so that docs/metrics.md (held equal by a test) names what a scrape really shows.
 *
 * Names that begin with `nv_` are Triton's, kept because dashboards and autoscalers read them; ours begin with
 * `intarsia_`. The average batch is nv_inference_count / nv_inference_exec_count.
 */

export type MetricType = 'counter' | 'gauge' | 'histogram';

export interface MetricRow {
  readonly type: MetricType;
  readonly unit: string;
  readonly labels: readonly string[];
  readonly help: string;
  /** Upper bounds of a histogram, ascending; +Inf is implied. */
  readonly buckets?: readonly number[];
}

const perModel = ['model', 'version'] as const;
const perGpu = ['gpu_uuid'] as const;
const perDevice = ['device'] as const;
const perModelAndDevice = ['model', 'version', 'device'] as const;

export const metricCatalogue = {
  nv_inference_request_success: {
    type: 'counter',
    unit: 'requests',
    labels: perModel,
    help: 'Inference requests answered with a result.',
  },
  nv_inference_request_failure: {
    type: 'counter',
    unit: 'requests',
    labels: ['model', 'version', 'reason'],
    help: 'Inference requests that failed; reason is REJECTED, CANCELED, BACKEND or OTHER.',
  },
  nv_inference_count: {
    type: 'counter',
    unit: 'items',
    labels: perModel,
    help: 'Items computed; a batch of n counts n.',
  },
  nv_inference_exec_count: {
    type: 'counter',
    unit: 'batches',
    labels: perModel,
    help: 'Batches computed.',
  },
  nv_inference_request_duration_us: {
    type: 'counter',
    unit: 'microseconds',
    labels: perModel,
    help: 'Time of successful requests from arrival to answer, summed.',
  },
  nv_inference_queue_duration_us: {
    type: 'counter',
    unit: 'microseconds',
    labels: perModel,
    help: 'Time successful requests waited in queues, summed.',
  },
  nv_inference_compute_input_duration_us: {
    type: 'counter',
    unit: 'microseconds',
    labels: perModel,
    help: "Time spent making the engine's tensors, summed over requests.",
  },
  nv_inference_compute_infer_duration_us: {
    type: 'counter',
    unit: 'microseconds',
    labels: perModel,
    help: 'Time inside the engine, summed over requests.',
  },
  nv_inference_compute_output_duration_us: {
    type: 'counter',
    unit: 'microseconds',
    labels: perModel,
    help: 'Time spent turning results into bytes, summed over requests.',
  },
  nv_inference_pending_request_count: {
    type: 'gauge',
    unit: 'requests',
    labels: perModel,
    help: 'Requests that wait and are not yet with an executor.',
  },
  nv_model_load_duration_secs: {
    type: 'gauge',
    unit: 'seconds',
    labels: perModel,
    help: 'Time the last load of the model took.',
  },
  nv_energy_consumption: {
    type: 'counter',
    unit: 'joules',
    labels: perGpu,
    help: 'Energy the GPU used since the host started: power readings integrated over time.',
  },
  nv_gpu_utilization: {
    type: 'gauge',
    unit: 'share, 0 to 1',
    labels: perGpu,
    help: 'GPU utilisation as the driver tells it.',
  },
  nv_gpu_memory_total_bytes: { type: 'gauge', unit: 'bytes', labels: perGpu, help: 'Memory of the GPU.' },
  nv_gpu_memory_used_bytes: { type: 'gauge', unit: 'bytes', labels: perGpu, help: 'Memory of the GPU in use.' },
  nv_gpu_power_usage: { type: 'gauge', unit: 'watts', labels: perGpu, help: 'Power the GPU draws.' },
  nv_gpu_power_limit: { type: 'gauge', unit: 'watts', labels: perGpu, help: 'Power limit the driver enforces.' },
  nv_cpu_utilization: {
    type: 'gauge',
    unit: 'share, 0 to 1',
    labels: [],
    help: 'Share of the processor time of all cores in use since the last scrape.',
  },
  nv_cpu_memory_total_bytes: {
    type: 'gauge',
    unit: 'bytes',
    labels: [],
    help: 'Memory of the machine, or the limit of its control group.',
  },
  nv_cpu_memory_used_bytes: { type: 'gauge', unit: 'bytes', labels: [], help: 'Memory in use, of the total above.' },
  intarsia_batch_released_total: {
    type: 'counter',
    unit: 'batches',
    labels: ['model', 'version', 'device', 'reason'],
    help: 'Batches by the reason they left the queue: full, preferred, delay, immediate, deadline, shape, sequence or flush.',
  },
  intarsia_batch_items: {
    type: 'histogram',
    unit: 'items',
    labels: perModelAndDevice,
    help: 'Items per batch.',
    buckets: [1, 2, 4, 8, 16, 32, 64, 128, 256],
  },
  intarsia_executor_restarts_total: {
    type: 'counter',
    unit: 'restarts',
    labels: perDevice,
    help: 'Executors started again after a crash, a hang or a failed canary.',
  },
  intarsia_request_energy_joules_total: {
    type: 'counter',
    unit: 'joules',
    labels: perModelAndDevice,
    help: 'Energy on the receipts of answered requests; the source of each figure is on the receipt.',
  },
  intarsia_request_cost_usd_total: {
    type: 'counter',
    unit: 'US dollars',
    labels: perModelAndDevice,
    help: 'Cost on the receipts of answered requests; the source of the price is on the receipt.',
  },
  intarsia_device_permits_free: {
    type: 'gauge',
    unit: 'permits',
    labels: perDevice,
    help: 'Batches that may be handed to the executor now.',
  },
  intarsia_device_busy_share: {
    type: 'gauge',
    unit: 'share, 0 to 1',
    labels: perDevice,
    help: 'Share of the last interval with at least one run in the executor.',
  },
  intarsia_device_model_bytes: {
    type: 'gauge',
    unit: 'bytes',
    labels: perDevice,
    help: 'Memory that loaded models hold on the device: measured where the executor tells, estimated otherwise.',
  },
  intarsia_device_model_bytes_max: {
    type: 'gauge',
    unit: 'bytes',
    labels: perDevice,
    help: 'Memory that models may hold on the device.',
  },
  intarsia_device_utilization: {
    type: 'gauge',
    unit: 'share, 0 to 1',
    labels: perDevice,
    help: 'Utilisation of the device as the system tells it.',
  },
  intarsia_device_memory_total_bytes: {
    type: 'gauge',
    unit: 'bytes',
    labels: perDevice,
    help: 'Memory of the device.',
  },
  intarsia_device_memory_used_bytes: {
    type: 'gauge',
    unit: 'bytes',
    labels: perDevice,
    help: 'Memory of the device in use.',
  },
  intarsia_device_power_watts: {
    type: 'gauge',
    unit: 'watts',
    labels: perDevice,
    help: 'Power the device draws, measured.',
  },
  intarsia_device_temperature_celsius: {
    type: 'gauge',
    unit: 'degrees Celsius',
    labels: perDevice,
    help: 'Temperature of the device.',
  },
  intarsia_event_loop_lag_seconds: {
    type: 'gauge',
    unit: 'seconds',
    labels: ['quantile'],
    help: "How late the host's own thread was since the last scrape: quantile 0.5, 0.99 or 1.",
  },
  intarsia_host_memory_bytes: {
    type: 'gauge',
    unit: 'bytes',
    labels: ['kind'],
    help: 'Memory of the host process: kind is rss, heap or external.',
  },
  intarsia_host_uptime_seconds: {
    type: 'gauge',
    unit: 'seconds',
    labels: [],
    help: 'How long the host process has run.',
  },
  intarsia_actors: { type: 'gauge', unit: 'actors', labels: [], help: 'Actors that live on this host.' },
  intarsia_actor_mailbox_messages: {
    type: 'gauge',
    unit: 'messages',
    labels: [],
    help: 'Messages that wait in the mailboxes of all actors.',
  },
  intarsia_actor_messages_total: {
    type: 'counter',
    unit: 'messages',
    labels: [],
    help: 'Messages and signals that actors handled.',
  },
  intarsia_actor_failures_total: {
    type: 'counter',
    unit: 'failures',
    labels: [],
    help: 'Failures of actors, whatever their supervisors decided.',
  },
  intarsia_actor_restarts_total: {
    type: 'counter',
    unit: 'restarts',
    labels: [],
    help: 'Actors started again after a failure.',
  },
  intarsia_actor_dead_letters_total: {
    type: 'counter',
    unit: 'messages',
    labels: ['reason'],
    help: 'Messages that reached nobody: reason is full, dropped, stopped, restarted, late-reply or unreachable.',
  },
  intarsia_log_lines_dropped_total: {
    type: 'counter',
    unit: 'lines',
    labels: [],
    help: 'Log lines given up because whoever reads the log was too slow.',
  },
  intarsia_shed_total: {
    type: 'counter',
    unit: 'requests',
    labels: ['class'],
    help: 'Requests refused because every device would have answered too late, by SLO class.',
  },
  intarsia_dispatch_decisions_total: {
    type: 'counter',
    unit: 'decisions',
    labels: [],
    help: 'Requests with a time that the dispatch policy decided about.',
  },
  intarsia_dispatch_fallbacks_total: {
    type: 'counter',
    unit: 'decisions',
    labels: ['reason'],
    help: 'Decisions that a learned policy left to its rule: reason is nan, range, rare, stale, disagreement, time or breaker.',
  },
  intarsia_policy_number: {
    type: 'gauge',
    unit: 'steps',
    labels: [],
    help: 'Number of the step of promotion that this gateway follows; 0 while nothing was promoted.',
  },
  intarsia_policy_refusals_total: {
    type: 'counter',
    unit: 'policies',
    labels: [],
    help: 'Promoted policies that this gateway refused to use: damaged, of another schema, or not giving numbers.',
  },
  intarsia_policy_rollbacks_total: {
    type: 'counter',
    unit: 'policies',
    labels: [],
    help: 'Policies that this gateway took back by itself.',
  },
  intarsia_attempts_total: {
    type: 'counter',
    unit: 'attempts',
    labels: [],
    help: 'Requests sent to devices, each attempt of a request counted.',
  },
  intarsia_retries_total: {
    type: 'counter',
    unit: 'attempts',
    labels: ['reason'],
    help: 'Further attempts: reason is failed (after one that failed), overdue (beside one that took too long) or refused (not made: the budget was spent).',
  },
  intarsia_hedges_total: {
    type: 'counter',
    unit: 'attempts',
    labels: [],
    help: 'Second attempts made before the first was late, where hedging is on.',
  },
  intarsia_bans_total: {
    type: 'counter',
    unit: 'bans',
    labels: [],
    help: 'Devices and hosts that this gateway left alone for a while after failures.',
  },
  intarsia_late_answers_total: {
    type: 'counter',
    unit: 'answers',
    labels: [],
    help: 'Answers that came after another attempt had answered, and were dropped.',
  },
  intarsia_stage_runs_total: {
    type: 'counter',
    unit: 'runs',
    labels: [],
    help: 'Stages of split models that this host ran, one for each request.',
  },
  intarsia_stage_reruns_total: {
    type: 'counter',
    unit: 'runs',
    labels: ['stage'],
    help: 'Stages of split models that this host had run again elsewhere, from the values it kept: stage counts from 1.',
  },
  intarsia_stage_ratio: {
    type: 'gauge',
    unit: '1',
    labels: ['model', 'stage', 'device'],
    help: 'Time of a stage on this host now, by what is expected of it there: what its plan says, else the median of its first runs.',
  },
  intarsia_spot_checks_total: {
    type: 'counter',
    unit: 'checks',
    labels: ['result'],
    help: 'Sampled requests that another holder or the reference ran again: equal, wrong (this device is), unclear, unanswered.',
  },
  intarsia_activation_kept_bytes: {
    type: 'gauge',
    unit: 'bytes',
    labels: [],
    help: 'Values that this host keeps until the next stages of split models have answered.',
  },
  intarsia_activation_bytes_spared_total: {
    type: 'counter',
    unit: 'bytes',
    labels: [],
    help: 'Bytes that compression of activations spared between stages of split models.',
  },
  intarsia_activation_packing_error: {
    type: 'gauge',
    unit: 'share',
    labels: [],
    help: 'Largest error that compression made of an activation, as a share of the largest magnitude of its tensor.',
  },
  intarsia_decision_log_rows_total: {
    type: 'counter',
    unit: 'rows',
    labels: ['kind'],
    help: 'Rows of the decision log: kind is decisions, outcomes, or lost for what there was no room or no disk for.',
  },
  intarsia_decision_log_bytes_total: {
    type: 'counter',
    unit: 'bytes',
    labels: [],
    help: 'Bytes written to the decision log.',
  },
  intarsia_decision_log_removed_files_total: {
    type: 'counter',
    unit: 'files',
    labels: [],
    help: 'Files removed from the decision log to keep its bound.',
  },
  intarsia_decision_log_stopped: {
    type: 'gauge',
    unit: '0 or 1',
    labels: [],
    help: '1 when the decision log has stopped because its disk took no more.',
  },
  intarsia_telemetry_rows_total: {
    type: 'counter',
    unit: 'rows',
    labels: [],
    help: 'Finished requests recorded as telemetry rows.',
  },
} as const satisfies Record<string, MetricRow>;

export type MetricName = keyof typeof metricCatalogue;

/** The definition under that name, as the metrics port takes it. */
export function metric(name: MetricName): {
  readonly name: string;
  readonly help: string;
  readonly labels: readonly string[];
} {
  const { help, labels } = metricCatalogue[name];
  return { name, help, labels };
}

type HistogramName = {
  [Name in MetricName]: (typeof metricCatalogue)[Name]['type'] extends 'histogram' ? Name : never;
}[MetricName];

/** The definition of a histogram under that name. */
export function histogramMetric(name: HistogramName): {
  readonly name: string;
  readonly help: string;
  readonly labels: readonly string[];
  readonly buckets: readonly number[];
} {
  const { help, labels, buckets } = metricCatalogue[name];
  return { name, help, labels, buckets };
}
