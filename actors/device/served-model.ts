/**
 * One model version on one device: its queue, its session if it has one just now, its figures. Plain state that the device
 * actor reads and writes; to the batching policy it shows itself as a `LaunchView`.
 */
import { BatchQueue } from '#core/batch-queue.js';
import type { ModelStatisticsRecorder } from '#core/model-statistics.js';
import { SequenceScheduler } from '#core/sequence-scheduler.js';
import type { DeviceDescriptor } from '#core/device.js';
import type { ArtifactDigest, DeviceId, ModelName, ModelVersion, SessionId } from '#core/ids.js';
import type { InferenceOutcome } from '#core/inference.js';
import type { ModelQueue } from '#core/model-queue.js';
import { RunTimes } from '#core/scheduling/run-times.js';
import type { ServiceProfile } from '#core/scheduling/service-profile.js';
import type { Executor, RunRequest } from '#ports/executor.js';
import type { ReplyTo } from '#runtime/actor.js';
import type { LaunchView } from '#policies/batching/batching-policy.js';
import { instancesOn, urgencyOf } from './behavior.js';
import { RunLayout, type TrialValue } from './run-layout.js';
import type { ExecutorSlot } from './executor-slot.js';
import type { ModelMetrics } from './model-metrics.js';
import type { DeviceLimits } from './options.js';
import type { Placement, SessionStatus } from './protocol.js';

export type Waiter = ReplyTo<InferenceOutcome>;

/** A session in a living executor. */
export interface LiveSession {
  readonly id: SessionId;
  readonly slot: ExecutorSlot;
  readonly executor: Executor;
}

/**
 * `ready`: takes requests, whether or not its session is loaded just now. `unloading`: finishes what waits.
 * `quarantined`, `failed`: refuses, `reason` says why.
 */
export type ModelPhase = 'loading' | 'ready' | 'unloading' | 'quarantined' | 'failed';

export interface ServedModelOptions {
  readonly placement: Placement;
  readonly descriptor: DeviceDescriptor;
  readonly limits: DeviceLimits;
  readonly metrics: ModelMetrics;
  /** Figures of an earlier load of the same version go on. */
  readonly statistics: ModelStatisticsRecorder;
  /** Run times as known beforehand; undefined to learn them from the first run on. */
  readonly profile: ServiceProfile | undefined;
}

/** Weight of the newest run in the mean duration of runs. */
const newestWeight = 0.2;

export class ServedModel implements LaunchView {
  readonly placement: Placement;
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly digest: ArtifactDigest;
  readonly device: DeviceId;
  readonly queue: ModelQueue<Waiter>;
  readonly layout: RunLayout;
  readonly metrics: ModelMetrics;
  readonly statistics: ModelStatisticsRecorder;
  readonly instances: number;
  readonly itemsMax: number;
  readonly preserveOrdering: boolean;
  phase: ModelPhase = 'loading';
  /** Why it refuses; empty while it does not. */
  reason = '';
  session: LiveSession | undefined;
  /** True while its session is out for lack of room; the next request brings it back. */
  evicted = false;
  /** True while a task that loads its session waits or runs. */
  restoring = false;
  /** Which of the device's executors holds it. */
  slotIndex = 0;
  /** Bytes its session took when it was last loaded; 0 before the first load. */
  memoryBytes = 0;
  /**
   * What a trial run is made of: warm-ups or invented values that worked once, so that a failure later is not their fault;
   * undefined before that, and where every invented value failed: then no trial run says anything about the device.
   */
  trial: 'warm-up' | TrialValue | undefined;
  inFlight = 0;
  /** Mean milliseconds of a run, newest first; 0 before the first. */
  serviceMs = 0;
  /** When its last batch began (ms); -Infinity before the first. */
  begunMs = -Infinity;
  /** Set in the round of a pump in which nothing more can be formed. */
  passedInRound = 0;
  readonly notes: string[] = [];
  /** Called once it is gone. */
  readonly unloadReplies: ReplyTo<{ readonly ok: true }>[] = [];
  /** Batches launched, the number whose answers leave next, and answers held back until then: only with preserve_ordering. */
  launched = 0;
  answered = 0;
  readonly heldAnswers = new Map<number, () => void>();
  readonly #levels: number;
  readonly #runs: RunTimes;
  /** Recent mean of actual over expected run times, where they were known beforehand. */
  #ratio = 1;
  readonly isProfiled: boolean;
  /** Items of the largest batch that was measured. */
  #itemsRun = 0;

  constructor(options: ServedModelOptions) {
    const { placement, limits, descriptor } = options;
    const { config } = placement;
    this.placement = placement;
    this.model = placement.model;
    this.version = placement.version;
    this.digest = placement.artifact.digest;
    this.device = descriptor.id;
    this.layout = new RunLayout(placement);
    this.metrics = options.metrics;
    this.statistics = options.statistics;
    this.instances = instancesOn(config, descriptor);
    this.itemsMax = Math.max(1, config.maxBatchSize);
    this.#runs = new RunTimes(options.profile, this.itemsMax);
    this.isProfiled = options.profile !== undefined;
    this.#levels = config.dynamicBatching?.priorityLevels ?? 0;
    const strategy = config.sequenceBatching?.strategy;
    this.preserveOrdering =
      config.dynamicBatching?.preserveOrdering ?? (strategy?.kind === 'oldest' && strategy.preserveOrdering);
    const bounds = { requestsMax: limits.queueRequestsMax, bytesMax: limits.queueBytesMax };
    this.queue =
      config.sequenceBatching === undefined
        ? new BatchQueue<Waiter>(config, bounds)
        : new SequenceScheduler<Waiter>(config, {
            ...bounds,
            sequencesMax: limits.sequencesMax,
            stateBytesMax: limits.stateBytesMax,
            instances: this.instances,
            inputRank: new Map(placement.inputs.map((spec) => [spec.name, spec.shape.length])),
          });
  }

  get queuedRequests(): number {
    return this.queue.queuedRequests;
  }
  get queuedItems(): number {
    return this.queue.queuedItems;
  }
  get queuedBytes(): number {
    return this.queue.queuedBytes;
  }
  get oldestArrivedMs(): number {
    return this.queue.oldestArrivedMs();
  }
  get nearestDeadlineMs(): number {
    return this.queue.nearestDeadlineMs();
  }
  get urgency(): number {
    return urgencyOf(this.queue.topLevel, this.#levels);
  }

  get nearestTargetMs(): number {
    return this.queue.nearestTargetMs();
  }

  /** Beyond the largest batch that was run a hopeful guess, so that larger ones are tried. */
  runMs(items: number): number {
    if (this.isProfiled || items <= this.#itemsRun) return this.#runs.at(items) * this.#ratio;
    return this.#itemsRun === 0 ? 0 : this.#runs.at(this.#itemsRun) * Math.sqrt(items / this.#itemsRun);
  }

  /** Neither waiting nor running work. */
  get idle(): boolean {
    return this.inFlight === 0 && this.queue.queuedRequests === 0;
  }

  /** It only has to go: its session need not come back. */
  get unneeded(): boolean {
    return this.phase === 'unloading' && this.idle;
  }

  /** The run that shows whether the device computes, once `trial` is set. */
  trialRun(session: SessionId): RunRequest {
    const [warmup] = this.placement.warmups;
    if (this.trial === 'warm-up' && warmup !== undefined) return this.layout.warmup(session, warmup.inputs);
    return this.layout.trial(session, this.trial === 1 ? 1 : 0);
  }

  /** @param ms From hand-over to answer. @param computeMs Inside the executor, for so many items. */
  ran(ms: number, items: number, computeMs: number): void {
    this.serviceMs = this.serviceMs === 0 ? ms : this.serviceMs + newestWeight * (ms - this.serviceMs);
    const expectedMs = this.#runs.at(items);
    this.#itemsRun = Math.max(this.#itemsRun, items);
    if (!this.isProfiled) this.#runs.learn(items, computeMs);
    else if (expectedMs > 0 && computeMs > 0) this.#ratio += newestWeight * (computeMs / expectedMs - this.#ratio);
  }

  status(memoryBytes: number): SessionStatus {
    const { model, version, digest, notes } = this;
    const { variant, variantGate = '' } = this.placement;
    return {
      ...{ model, version, digest, state: this.#state(), memoryBytes, notes: [...notes] },
      ...(variant === undefined ? {} : { variant, variantGate }),
    };
  }

  #state(): SessionStatus['state'] {
    if (this.phase !== 'ready') return this.phase;
    if (this.session !== undefined) return 'ready';
    return this.evicted && !this.restoring ? 'evicted' : 'loading';
  }
}
