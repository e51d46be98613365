/**
 * The device actor: one a device. Requests wait here in per-model queues; a batch is formed only when a permit is free, at
 * the end of the turn, so that requests that arrive together share it. Sessions and memory are the session keeper's,
 * executors the slots', what leaves when the queues' and the batching policy's.
 *
 * Every request gets exactly one outcome: from its queue (refused, expired, cancelled), from its run, or, when the actor
 * ends, DEVICE_UNAVAILABLE.
 */
import { asIntarsiaError, intarsiaError, unreachable, type IntarsiaError } from '#core/errors.js';
import { ModelStatisticsRecorder, type CompletedRun } from '#core/model-statistics.js';
import { makeReceipt } from '#core/receipt.js';
import type { ArtifactDigest, ModelName, ModelVersion, RequestId } from '#core/ids.js';
import type { InferenceOutcome, InferenceRequest } from '#core/inference.js';
import type { Batch, Dropped } from '#core/model-queue.js';
import type { Tensor } from '#core/tensor.js';
import type { Executor, RunResult } from '#ports/executor.js';
import type { LaunchChoice } from '#policies/batching/batching-policy.js';
import type { Actor, ActorContext, Signal } from '#runtime/actor.js';
import { batchesInFlightMax, delayUntil, deviceHealth, type Health } from './behavior.js';
import type { Activity, CrashAttribution } from './crash-attribution.js';
import { ExecutorSlot } from './executor-slot.js';
import { ModelMetrics } from './model-metrics.js';
import { ServedModel, type Waiter } from './served-model.js';
import { SessionKeeper, type SessionOwner } from './session-keeper.js';
import type { DeviceGauges } from './device-gauges.js';
import type { DeviceActorOptions } from './options.js';
import type { DeviceMessage, DeviceStatus, LoadOutcome, Placement, VersionStatistics } from './protocol.js';
import type { ReplyTo } from '#runtime/actor.js';

/** A batch that is with the executor; without one it is a canary. */
interface Run {
  readonly model: ServedModel;
  readonly batch: Batch<Waiter> | undefined;
  readonly executor: Executor;
  readonly startedMs: number;
  /** Place in the order of answers, with preserve_ordering. */
  readonly order: number;
  /** Requests whose clients went away meanwhile and were told so. */
  cancelled: Set<RequestId> | undefined;
}

/** What the actor says to itself. */
export type DeviceInternal =
  | DeviceMessage
  | { readonly type: 'run-ended'; readonly run: Run; readonly result: RunResult | undefined; readonly error: unknown }
  /** A timeout, a deadline or the end of a wait is due. */
  | { readonly type: 'tick' }
  | { readonly type: 'measure' }
  | { readonly type: 'canary' }
  /** Code outside of a message failed: the supervisor decides. */
  | { readonly type: 'broken'; readonly failure: unknown };

/** What outlives an incarnation: the versions that were serving, to be loaded again after a failure of the actor. */
export interface DeviceMemory {
  readonly placements: Map<string, Placement>;
  readonly statistics: Map<string, { model: ModelName; version: ModelVersion; recorder: ModelStatisticsRecorder }>;
  readonly gauges: DeviceGauges;
  readonly attribution: CrashAttribution;
}

type Done = ReplyTo<{ readonly ok: true }>;

/** Times a load is tried again because the executor was lost beside it. */
const loadAttemptsMax = 10;
/** Longest timer: a day. A further moment is looked at again then. */
const timerMsMax = 86_400_000;
/** Milliseconds until a failed canary is repeated, unless the period is shorter. */
const canaryAgainMs = 1000;

export class DeviceActor implements Actor<DeviceInternal>, SessionOwner {
  readonly #context: ActorContext<DeviceInternal>;
  readonly #options: DeviceActorOptions;
  readonly #memory: DeviceMemory;
  readonly #attribution: CrashAttribution;
  readonly #slots: readonly ExecutorSlot[];
  readonly #keeper: SessionKeeper;
  /** Versions that take requests, and those that still finish what they have. */
  readonly #current = new Map<ModelName, Map<ModelVersion, ServedModel>>();
  readonly #models = new Set<ServedModel>();
  readonly #withWork = new Set<ServedModel>();
  readonly #loading = new Set<ServedModel>();
  readonly #pendingLoads = new Set<ReplyTo<LoadOutcome>>();
  readonly #runs = new Set<Run>();
  readonly #drainReplies: Done[] = [];
  readonly #views: ServedModel[] = [];
  readonly #choice: LaunchChoice = { queue: -1, itemsMax: Infinity, untilMs: Infinity };
  #permitsFree: number;
  #pumpPending = false;
  #round = 0;
  #timer: { readonly atMs: number; cancel(): void } | undefined;
  #holds = 0;
  #holdWaiters: (() => void)[] = [];
  #draining = false;
  #stopping = false;
  #over = false;
  #health: Health = { health: 'ready', reason: '' };
  #canaryFailures = 0;
  #canaryReason = '';
  #provedMs = -Infinity;
  #busySinceMs = 0;
  #busyMs = 0;
  #measuredMs: number;
  #utilization = 0;

  constructor(context: ActorContext<DeviceInternal>, options: DeviceActorOptions, memory: DeviceMemory) {
    this.#context = context;
    this.#options = options;
    this.#memory = memory;
    this.#attribution = memory.attribution;
    this.#permitsFree = options.descriptor.permits;
    this.#measuredMs = context.clock.nowMs();
    const sources = [
      { provider: options.descriptor.provider, startExecutor: options.startExecutor },
      ...options.fallbacks,
    ];
    this.#slots = sources.map((source, index) => this.#slot(index, source));
    this.#keeper = new SessionKeeper({
      options,
      slots: this.#slots,
      attribution: this.#attribution,
      owner: this,
      clock: context.clock,
      log: context.log,
    });
    memory.gauges.show = () => {
      this.#showGauges();
    };
    if (options.usageMs > 0) context.schedule(options.usageMs, { type: 'measure' });
    if (options.canaryMs > 0) context.schedule(options.canaryMs, { type: 'canary' });
    // A start that fails is logged, tried again and shown in the health; nobody waits for this claim.
    if (options.startAtOnce) this.#slots[0]?.acquire().catch(() => undefined);
    for (const placement of memory.placements.values()) this.#readmit(placement);
    this.#judge();
  }

  receive(message: DeviceInternal): void {
    switch (message.type) {
      case 'infer':
        this.#infer(message.request, message.replyTo);
        return;
      case 'run-ended':
        this.#runEnded(message.run, message.result, message.error);
        return;
      case 'cancel':
        this.#cancel(message.request, message.model, message.version);
        return;
      case 'tick':
        this.#timer = undefined;
        this.#pump();
        return;
      case 'load':
        this.#load(message.placement, message.replyTo);
        return;
      case 'unload':
        this.#unload(message.model, message.version, message.replyTo);
        return;
      case 'drain':
        this.#drain(message.replyTo);
        return;
      case 'status':
        message.replyTo.tell(this.#status());
        return;
      case 'statistics':
        message.replyTo.tell(this.#statistics());
        return;
      case 'measure':
        this.#measure();
        return;
      case 'canary':
        this.#canary();
        return;
      case 'broken':
        throw message.failure;
      default:
        unreachable(message);
    }
  }

  signal(signal: Signal): void {
    switch (signal.type) {
      case 'drain':
        this.#stopping = true;
        this.#draining = true;
        this.#judge();
        this.#pumpSoon();
        this.#settle();
        return;
      case 'pre-restart':
      case 'post-stop':
        this.#end();
        return;
      case 'terminated':
        return;
      default:
        unreachable(signal);
    }
  }

  // Requests

  #infer(request: InferenceRequest, replyTo: Waiter): void {
    const model = this.#current.get(request.model)?.get(request.version);
    const refusal = this.#refusal(model, request);
    if (refusal !== undefined || model === undefined) {
      refuse(replyTo, refusal ?? notLoaded(request));
      return;
    }
    const refused = model.queue.offer(request, replyTo, this.#context.clock.nowMs());
    if (refused !== undefined) {
      this.#failed(model, refused, 1, 0);
      refuse(replyTo, refused);
      return;
    }
    this.#withWork.add(model);
    this.#pumpSoon();
  }

  #refusal(model: ServedModel | undefined, request: InferenceRequest): IntarsiaError | undefined {
    const { health, reason } = this.#health;
    if (this.#draining || health === 'failed') {
      return intarsiaError('DEVICE_UNAVAILABLE', `device ${this.#options.descriptor.id} takes no requests: ${reason}`);
    }
    if (model === undefined) return notLoaded(request);
    if (model.phase === 'ready') return undefined;
    if (model.phase === 'quarantined') return intarsiaError('MODEL_QUARANTINED', model.reason);
    const why = model.reason === '' ? model.phase : `${model.phase}: ${model.reason}`;
    return intarsiaError('MODEL_NOT_READY', `model '${request.model}' version ${request.version} is ${why}`);
  }

  #cancel(id: RequestId, name: ModelName, version: ModelVersion): void {
    const nowMs = this.#context.clock.nowMs();
    for (const model of this.#models) {
      if (model.model !== name || model.version !== version) continue;
      const dropped = model.queue.cancel(id, nowMs);
      if (dropped.length === 0) continue;
      this.#drop(model, dropped, nowMs);
      this.#pumpSoon();
      return;
    }
    for (const run of this.#runs) {
      const entry = run.batch?.entries.find((candidate) => candidate.request.id === id);
      if (entry === undefined || run.cancelled?.has(id) === true) continue;
      run.cancelled ??= new Set();
      run.cancelled.add(id);
      const error = intarsiaError('CANCELLED', `request ${id} was cancelled while it ran`, { request: id });
      this.#failed(run.model, error, 1, nowMs - entry.request.arrivedMs);
      refuse(entry.waiter, error);
      return;
    }
  }

  #drop(model: ServedModel, dropped: readonly Dropped<Waiter>[], nowMs: number): void {
    for (const { entry, error } of dropped) {
      this.#failed(model, error, 1, nowMs - entry.request.arrivedMs);
      refuse(entry.waiter, error);
    }
  }

  #failed(model: ServedModel, error: IntarsiaError, requests: number, ms: number): void {
    model.metrics.failed(error.code, requests);
    model.statistics.recordFailures(requests, ms * 1000);
  }

  /** Refuses everything that waits for the model. */
  #flush(model: ServedModel, error: IntarsiaError): void {
    const nowMs = this.#context.clock.nowMs();
    this.#drop(
      model,
      model.queue.clear().map((entry) => ({ entry, error })),
      nowMs,
    );
    this.#settle();
  }

  // Batches

  /** At the end of the turn: what arrives in the same turn shares the batch. */
  #pumpSoon(): void {
    if (this.#pumpPending) return;
    this.#pumpPending = true;
    this.#context.clock.defer(this.#deferredPump);
  }

  readonly #deferredPump = (): void => {
    this.#guard(() => {
      this.#pump();
    });
  };

  #pump(): void {
    this.#pumpPending = false;
    const nowMs = this.#context.clock.nowMs();
    this.#expire(nowMs);
    this.#round += 1;
    let wakeMs = Infinity;
    while (this.#permitsFree > 0 && this.#holds === 0 && this.#withWork.size > 0) {
      const views = this.#launchable();
      if (views.length === 0) break;
      const choice = this.#choice;
      if (views.length === 1 && !this.#options.batchingPolicy.decidesAlone) {
        choice.queue = 0;
        choice.itemsMax = Infinity;
      } else {
        this.#options.batchingPolicy.choose(views, nowMs, choice);
      }
      const model = views[choice.queue];
      if (model === undefined) {
        wakeMs = Math.min(wakeMs, choice.untilMs);
        break;
      }
      const formed = model.queue.form(nowMs, {
        serviceMs: model.serviceMs,
        itemsMax: choice.itemsMax,
        flush: this.#draining || model.phase === 'unloading',
      });
      if (formed.kind === 'batch') {
        this.#launch(model, formed, nowMs);
        continue;
      }
      model.passedInRound = this.#round;
      if (formed.kind === 'wait') wakeMs = Math.min(wakeMs, formed.untilMs);
    }
    for (const model of this.#models) wakeMs = Math.min(wakeMs, model.queue.nextExpiryMs);
    this.#wakeAt(wakeMs, nowMs);
  }

  #expire(nowMs: number): void {
    let dropped = false;
    for (const model of this.#models) {
      if (model.queue.nextExpiryMs > nowMs) continue;
      const expired = model.queue.expire(nowMs);
      this.#drop(model, expired, nowMs);
      dropped ||= expired.length > 0;
    }
    if (dropped) this.#settle();
  }

  /** Models with work that may have a batch formed now. The list is reused. */
  #launchable(): readonly ServedModel[] {
    const views = this.#views;
    views.length = 0;
    for (const model of this.#withWork) {
      if (model.queue.queuedRequests === 0) {
        this.#withWork.delete(model);
        continue;
      }
      const { session } = model;
      if (session === undefined) {
        if (model.evicted) this.#restore(model);
        continue;
      }
      if (model.passedInRound === this.#round) continue;
      const { concurrency } = session.executor.description;
      const { permits } = this.#options.descriptor;
      if (model.inFlight >= batchesInFlightMax(model.instances, { permits, concurrency })) continue;
      if (this.#mustWaitAlone(model)) continue;
      views.push(model);
    }
    return views;
  }

  /** A suspect of a crash runs with nothing beside it. */
  #mustWaitAlone(model: ServedModel): boolean {
    if (this.#runs.size === 0) return false;
    if (this.#attribution.onProbation(model.digest)) return true;
    for (const run of this.#runs) if (this.#attribution.onProbation(run.model.digest)) return true;
    return false;
  }

  #launch(model: ServedModel, batch: Batch<Waiter>, nowMs: number): void {
    const { session } = model;
    if (session === undefined) return;
    model.metrics.released(batch.reason, batch.items);
    this.#keeper.ledger.touch(session.id, nowMs);
    this.#options.hooks.onLaunch?.(batch.entries.map((entry) => entry.request));
    const order = model.launched;
    model.launched += 1;
    const run: Run = { model, batch, executor: session.executor, startedMs: nowMs, order, cancelled: undefined };
    this.#begin(run, session.executor.run(model.layout.request(batch, session.id)));
  }

  #begin(run: Run, result: Promise<RunResult>): void {
    this.#permitsFree -= 1;
    run.model.inFlight += 1;
    if (this.#runs.size === 0) this.#busySinceMs = run.startedMs;
    this.#runs.add(run);
    this.#context.pipeToSelf(
      result,
      (value) => ({ type: 'run-ended', run, result: value, error: undefined }),
      (error) => ({ type: 'run-ended', run, result: undefined, error }),
    );
  }

  #runEnded(run: Run, result: RunResult | undefined, thrown: unknown): void {
    const { model, batch } = run;
    const nowMs = this.#context.clock.nowMs();
    this.#permitsFree += 1;
    model.inFlight -= 1;
    this.#runs.delete(run);
    if (this.#runs.size === 0) this.#busyMs += nowMs - Math.max(this.#busySinceMs, this.#measuredMs);
    if (result !== undefined && batch !== undefined) this.#attribution.survived(model.digest, 'run');
    if (batch === undefined) this.#canaryEnded(run, result, thrown);
    else if (result === undefined) this.#answerFailure(run, batch, asIntarsiaError(thrown), nowMs);
    else this.#answer(run, batch, result, nowMs);
    if (this.#runs.size === 0) this.#wakeHolders();
    this.#pumpSoon();
    this.#settle();
  }

  #answer(run: Run, batch: Batch<Waiter>, result: RunResult, nowMs: number): void {
    const { model } = run;
    const split = model.layout.split(batch, result);
    if (!('outputs' in split)) {
      this.#answerFailure(run, batch, split, nowMs);
      return;
    }
    model.queue.complete(batch, split.states, nowMs);
    model.ran(nowMs - run.startedMs);
    this.#proved(nowMs);
    this.#inOrder(run, () => {
      this.#tellSuccess(run, batch, split.outputs, result, nowMs);
    });
  }

  #tellSuccess(
    run: Run,
    batch: Batch<Waiter>,
    outputs: readonly (readonly Tensor[])[],
    result: RunResult,
    nowMs: number,
  ): void {
    const { model, startedMs } = run;
    const { computeInputUs, computeInferUs, computeOutputUs } = result;
    const device = this.#options.descriptor;
    const roundTripUs = (nowMs - startedMs) * 1000;
    let requests = 0;
    let requestMs = 0;
    let queueMs = 0;
    let energyJoules = 0;
    let costUsd = 0;
    for (let index = 0; index < batch.entries.length; index += 1) {
      const entry = batch.entries[index];
      const own = outputs[index];
      if (entry === undefined || own === undefined) continue;
      const { request } = entry;
      if (run.cancelled?.has(request.id) === true) continue;
      const receipt = makeReceipt({
        device,
        billing: request.billing,
        items: request.items,
        batchItems: batch.items,
        queueUs: (startedMs - request.arrivedMs) * 1000,
        roundTripUs,
        computeInputUs,
        computeInferUs,
        computeOutputUs,
      });
      requests += 1;
      requestMs += nowMs - request.arrivedMs;
      queueMs += startedMs - request.arrivedMs;
      energyJoules += receipt.energyJoules ?? 0;
      costUsd += receipt.costUsd ?? 0;
      entry.waiter.tell({ ok: true, outputs: own, receipt });
    }
    const completed: CompletedRun = {
      requests,
      items: batch.items,
      requestUs: requestMs * 1000,
      queueUs: queueMs * 1000,
      computeInputUs,
      computeInferUs,
      computeOutputUs,
      finishedWallMs: this.#context.clock.wallMs(),
    };
    model.statistics.recordRun(completed);
    model.metrics.succeeded(completed, energyJoules, costUsd);
  }

  #answerFailure(run: Run, batch: Batch<Waiter>, error: IntarsiaError, nowMs: number): void {
    const { model } = run;
    model.queue.complete(batch, undefined, nowMs);
    this.#inOrder(run, () => {
      for (const entry of batch.entries) {
        if (run.cancelled?.has(entry.request.id) === true) continue;
        this.#failed(model, error, 1, nowMs - entry.request.arrivedMs);
        refuse(entry.waiter, error);
      }
    });
  }

  /** With preserve_ordering answers leave in the order in which their batches did; else at once. */
  #inOrder(run: Run, answer: () => void): void {
    const { model } = run;
    if (!model.preserveOrdering) {
      answer();
      return;
    }
    model.heldAnswers.set(run.order, answer);
    for (let next = model.heldAnswers.get(model.answered); next !== undefined;) {
      model.heldAnswers.delete(model.answered);
      model.answered += 1;
      next();
      next = model.heldAnswers.get(model.answered);
    }
  }

  #wakeAt(atMs: number, nowMs: number): void {
    if (atMs === Infinity || (this.#timer !== undefined && this.#timer.atMs <= atMs)) return;
    this.#timer?.cancel();
    const timer = this.#context.schedule(Math.min(timerMsMax, delayUntil(atMs, nowMs)), { type: 'tick' });
    this.#timer = {
      atMs,
      cancel: () => {
        timer.cancel();
      },
    };
  }

  // Loading

  #load(placement: Placement, replyTo: ReplyTo<LoadOutcome>): void {
    const { model: name, version, artifact } = placement;
    const current = this.#current.get(name)?.get(version);
    if (
      current?.phase === 'ready' &&
      current.digest === artifact.digest &&
      current.placement.config === placement.config
    ) {
      replyTo.tell({ ok: true, loadMs: 0, memoryBytes: current.memoryBytes, notes: current.notes });
      return;
    }
    if (this.#draining) {
      replyTo.tell({ ok: false, error: intarsiaError('DEVICE_UNAVAILABLE', 'the device is being drained') });
      return;
    }
    if (this.#keeper.tasksWaiting >= this.#options.limits.tasksMax) {
      const limit = this.#options.limits.tasksMax;
      replyTo.tell({
        ok: false,
        error: intarsiaError('RESOURCE_EXHAUSTED', `${limit} loads wait on the device already; the limit is ${limit}`, {
          limit,
        }),
      });
      return;
    }
    this.#attribution.pardon(artifact.digest);
    let model: ServedModel;
    try {
      model = this.#serve(placement);
    } catch (thrown) {
      replyTo.tell({ ok: false, error: asIntarsiaError(thrown) });
      return;
    }
    this.#loading.add(model);
    this.#pendingLoads.add(replyTo);
    let attempts = 0;
    this.#keeper.submit(async () => {
      attempts += 1;
      const outcome = await this.#keeper.load(model);
      if (this.#over) return 'done';
      const { digest } = model;
      const isOut = this.#attribution.isQuarantined(digest);
      if (outcome.kind === 'lost' && !isOut && attempts < loadAttemptsMax) return 'again';
      this.#loading.delete(model);
      this.#pendingLoads.delete(replyTo);
      if (outcome.kind === 'ready') {
        this.#proved(this.#context.clock.nowMs());
        this.#install(model);
        model.metrics.loaded(outcome.loadMs);
        replyTo.tell({ ok: true, loadMs: outcome.loadMs, memoryBytes: model.memoryBytes, notes: [...model.notes] });
      } else {
        replyTo.tell({ ok: false, error: isOut ? quarantinedError(model) : outcome.error });
      }
      this.#judge();
      this.#pumpSoon();
      return 'done';
    });
  }

  #serve(placement: Placement): ServedModel {
    const { descriptor, limits, metrics } = this.#options;
    const { model, version } = placement;
    const key = `${model}/${version}`;
    let statistics = this.#memory.statistics.get(key);
    if (statistics === undefined) {
      statistics = { model, version, recorder: new ModelStatisticsRecorder() };
      this.#memory.statistics.set(key, statistics);
    }
    return new ServedModel({
      placement,
      descriptor,
      limits,
      metrics: new ModelMetrics(metrics, model, version, descriptor.id),
      statistics: statistics.recorder,
    });
  }

  /** The model takes requests from now on; the one it replaces finishes what it has, and goes. */
  #install(model: ServedModel): void {
    const versions = this.#current.get(model.model) ?? new Map<ModelVersion, ServedModel>();
    const replaced = versions.get(model.version);
    model.phase = 'ready';
    versions.set(model.version, model);
    this.#current.set(model.model, versions);
    this.#models.add(model);
    this.#memory.placements.set(`${model.model}/${model.version}`, model.placement);
    if (replaced !== undefined) this.#retire(replaced);
  }

  /** After a failure of the actor: takes requests at once, which wait until the session is back. */
  #readmit(placement: Placement): void {
    const model = this.#serve(placement);
    this.#install(model);
    if (this.#attribution.isQuarantined(model.digest)) this.#quarantine(model);
    else this.#restore(model);
  }

  /** Loads the session of a model that takes requests: after a crash, or because it was evicted. */
  #restore(model: ServedModel): void {
    if (model.restoring) return;
    model.restoring = true;
    this.#keeper.submit(async () => {
      const wanted = model.session === undefined && (model.phase === 'ready' || model.phase === 'unloading');
      const outcome = wanted && !model.unneeded ? await this.#keeper.load(model) : undefined;
      if (this.#over) return 'done';
      if (outcome?.kind === 'lost' && model.phase !== 'quarantined') return 'again';
      model.restoring = false;
      if (outcome?.kind === 'ready') this.#proved(this.#context.clock.nowMs());
      if (outcome?.kind === 'refused') this.#restoreFailed(model, outcome.error);
      this.#judge();
      this.#pumpSoon();
      this.#settle();
      return 'done';
    });
  }

  #restoreFailed(model: ServedModel, error: IntarsiaError): void {
    const { model: name, version } = model;
    this.#context.log.warn('session could not be loaded again', {
      model: name,
      version,
      code: error.code,
      error: error.message,
    });
    const failures = this.#slots[model.slotIndex]?.startFailures ?? 0;
    // The executor is tried again by itself, and the session with it: what waits goes on waiting.
    if (error.code === 'DEVICE_UNAVAILABLE' && failures < this.#options.startFailuresMax) return;
    const isOwn = error.code === 'OUT_OF_MEMORY' || error.code === 'DEVICE_UNAVAILABLE';
    if (error.code === 'OUT_OF_MEMORY') model.evicted = true;
    // While the device itself fails its canary, the fault is not the model's: it is tried again with the next canary.
    else if (!isOwn && !this.#canaryFailed) {
      if (model.phase === 'ready') model.phase = 'failed';
      model.reason = error.message;
      model.notes.push(error.message);
    }
    this.#flush(model, isOwn ? error : intarsiaError('MODEL_NOT_READY', error.message, {}, error));
  }

  #unload(name: ModelName, version: ModelVersion, replyTo: Done): void {
    this.#memory.placements.delete(`${name}/${version}`);
    const loading = [...this.#loading].some((model) => model.model === name && model.version === version);
    if (!loading) {
      this.#unloadNow(name, version, replyTo);
      return;
    }
    // In line behind the load it follows.
    this.#keeper.submit(() => {
      this.#unloadNow(name, version, replyTo);
      return Promise.resolve('done');
    });
  }

  #unloadNow(name: ModelName, version: ModelVersion, replyTo: Done): void {
    this.#memory.placements.delete(`${name}/${version}`);
    const model = this.#current.get(name)?.get(version);
    if (model === undefined) {
      replyTo.tell({ ok: true });
      return;
    }
    model.unloadReplies.push(replyTo);
    this.#current.get(name)?.delete(version);
    this.#retire(model);
  }

  /** No new requests; gone once it is idle. */
  #retire(model: ServedModel): void {
    model.phase = 'unloading';
    this.#withWork.add(model);
    this.#pumpSoon();
    this.#settle();
  }

  /** Frees models that have finished, answers drains, stops when that was asked for. */
  #settle(): void {
    for (const model of this.#models) {
      if (model.phase !== 'unloading' || !model.idle || model.restoring) continue;
      this.#models.delete(model);
      this.#withWork.delete(model);
      this.watch(this.#remove(model));
    }
    if (!this.#draining || this.#runs.size > 0) return;
    for (const model of this.#models) if (!model.idle) return;
    for (const reply of this.#drainReplies.splice(0)) reply.tell({ ok: true });
    if (this.#stopping) {
      this.#stopping = false;
      this.watch(this.#closeAndStop());
    }
  }

  async #remove(model: ServedModel): Promise<void> {
    await this.#keeper.free(model);
    model.metrics.showPending(0);
    for (const reply of model.unloadReplies.splice(0)) reply.tell({ ok: true });
  }

  #drain(replyTo: Done): void {
    this.#draining = true;
    this.#drainReplies.push(replyTo);
    this.#judge();
    this.#pumpSoon();
    this.#settle();
  }

  // Executors

  #slot(
    index: number,
    source: Pick<DeviceActorOptions['fallbacks'][number], 'provider' | 'startExecutor'>,
  ): ExecutorSlot {
    const { restartMsMin, restartMsMax, restartForgetMs } = this.#options;
    return new ExecutorSlot({
      index,
      provider: source.provider,
      start: source.startExecutor,
      clock: this.#context.clock,
      restartMsMin,
      restartMsMax,
      restartForgetMs,
      isWanted: (slot) => this.#isWanted(slot),
      changed: () => {
        this.#judge();
      },
      started: (slot) => {
        this.#executorStarted(slot);
      },
      startFailed: (slot, error) => {
        this.#executorStartFailed(slot, error);
      },
      lost: (slot, executor, reason, crashed) => {
        this.#executorLost(slot, executor, reason, crashed);
      },
      guard: (code) => {
        this.#guard(code);
      },
    });
  }

  #isWanted(slot: ExecutorSlot): boolean {
    if (slot.index === 0 && this.#options.startAtOnce) return true;
    for (const model of this.#models) {
      if (model.session === undefined && model.slotIndex === slot.index && isKept(model)) return true;
    }
    return false;
  }

  #executorStarted(slot: ExecutorSlot): void {
    if (slot.restarts > 0) this.#memory.gauges.executorRestarts.add(1);
    const lost = [...this.#models].filter((model) => model.session === undefined && model.slotIndex === slot.index);
    // Suspects last: what is innocent serves again before they are tried.
    lost.sort(
      (a, b) => Number(this.#attribution.onProbation(a.digest)) - Number(this.#attribution.onProbation(b.digest)),
    );
    for (const model of lost) if (isKept(model)) this.#restore(model);
    this.#judge();
    this.#pumpSoon();
  }

  #executorStartFailed(slot: ExecutorSlot, error: IntarsiaError): void {
    this.#context.log.error('executor failed to start', { provider: slot.provider, error: error.message });
    this.#judge();
    if (slot.startFailures < this.#options.startFailuresMax) return;
    const refusal = intarsiaError('DEVICE_UNAVAILABLE', `the executor failed to start: ${error.message}`, {}, error);
    for (const model of this.#models) {
      if (model.session === undefined && model.slotIndex === slot.index) this.#flush(model, refusal);
    }
  }

  /** What was in flight is rejected by the executor's own promises and answered in `run-ended`. */
  #executorLost(slot: ExecutorSlot, executor: Executor, reason: IntarsiaError, crashed: boolean): void {
    const suspects = new Map<ArtifactDigest, Activity>();
    for (const run of this.#runs) if (run.executor === executor) suspects.set(run.model.digest, 'run');
    for (const digest of slot.loading) suspects.set(digest, 'load');
    const culprit = crashed ? this.#attribution.crashed(suspects, this.#context.clock.nowMs()) : undefined;
    this.#context.log.error('executor lost', {
      provider: slot.provider,
      reason: reason.message,
      inFlight: suspects.size,
      quarantined: culprit,
    });
    for (const model of this.#models) {
      if (model.session?.executor === executor) this.#keeper.forget(model);
      if (model.digest === culprit) this.#quarantine(model);
    }
    if (culprit !== undefined) slot.hasten();
    this.#judge();
  }

  #quarantine(model: ServedModel): void {
    const error = quarantinedError(model);
    if (model.phase === 'ready') model.phase = 'quarantined';
    model.reason = error.message;
    model.notes.push(error.message);
    this.#flush(model, error);
  }

  // Health and figures

  #judge(): void {
    const [primary] = this.#slots;
    if (primary === undefined) return;
    const next = deviceHealth({
      draining: this.#draining,
      executor: primary.state,
      executorReason: primary.reason,
      startFailures: primary.startFailures,
      startFailuresMax: this.#options.startFailuresMax,
      canaryFailures: this.#canaryFailures,
      canaryFailuresMax: this.#options.canaryFailuresMax,
      canaryReason: this.#canaryReason,
      everStarted: primary.everStarted,
    });
    if (next.health === this.#health.health && next.reason === this.#health.reason) return;
    this.#health = next;
    this.#options.hooks.onHealth?.(next.health, next.reason);
  }

  #proved(nowMs: number): void {
    this.#provedMs = nowMs;
    if (this.#canaryFailures === 0) return;
    this.#canaryFailures = 0;
    this.#judge();
  }

  /** A run on zeros where nothing else showed lately that the device computes. */
  #canary(): void {
    const { canaryMs } = this.#options;
    const nowMs = this.#context.clock.nowMs();
    const dueMs = this.#provedMs + canaryMs;
    if (this.#canaryFailures === 0 && nowMs < dueMs) {
      this.#context.schedule(delayUntil(dueMs, nowMs), { type: 'canary' });
      return;
    }
    if (this.#permitsFree > 0 && this.#holds === 0) {
      for (const model of this.#models) {
        const { session } = model;
        if (session === undefined || model.zerosFail || this.#mustWaitAlone(model)) continue;
        const { executor, id } = session;
        const run = { model, batch: undefined, executor, startedMs: nowMs, order: 0, cancelled: undefined };
        this.#begin(run, executor.run(model.layout.zeros(id)));
        return;
      }
    }
    // Nothing is loaded any more: loading again is a canary too, its first run shows whether the device computes.
    for (const model of this.#models) if (model.session === undefined && isKept(model)) this.#restore(model);
    this.#canaryLater();
  }

  /** A failed one is soon repeated. */
  #canaryLater(): void {
    const { canaryMs } = this.#options;
    this.#context.schedule(this.#canaryFailures > 0 ? Math.min(canaryMs, canaryAgainMs) : canaryMs, { type: 'canary' });
  }

  get #canaryFailed(): boolean {
    return this.#canaryFailures >= this.#options.canaryFailuresMax;
  }

  #canaryEnded(run: Run, result: RunResult | undefined, thrown: unknown): void {
    const { model } = run;
    const error = asIntarsiaError(thrown);
    if (result !== undefined) this.#proved(this.#context.clock.nowMs());
    // A lost executor is another matter: it is restarted.
    else if (error.code !== 'EXECUTOR_LOST') {
      this.#canaryFailures += 1;
      this.#canaryReason = `model '${model.model}': ${error.message}`;
      this.#context.log.warn('canary failed', { model: model.model, error: error.message });
      // Some drivers come back only with a new process.
      if (this.#canaryFailures === this.#options.canaryFailuresMax) this.#giveUp(run.executor, error);
      this.#judge();
    }
    this.#canaryLater();
  }

  #giveUp(executor: Executor, error: IntarsiaError): void {
    const reason = intarsiaError('EXECUTOR_LOST', `canary runs failed: ${error.message}`, {}, error);
    for (const slot of this.#slots) {
      if (slot.executor === executor) this.watch(slot.giveUp(executor, reason, this.#options.closeMsMax));
    }
  }

  #measure(): void {
    const nowMs = this.#context.clock.nowMs();
    this.#context.schedule(this.#options.usageMs, { type: 'measure' });
    if (this.#runs.size > 0) this.#busyMs += nowMs - Math.max(this.#busySinceMs, this.#measuredMs);
    this.#utilization = Math.min(1, this.#busyMs / Math.max(1, nowMs - this.#measuredMs));
    this.#busyMs = 0;
    this.#measuredMs = nowMs;
  }

  #showGauges(): void {
    if (this.#over) return;
    const { gauges } = this.#memory;
    gauges.permitsFree.set(this.#permitsFree);
    gauges.busyShare.set(this.#utilization);
    gauges.modelBytes.set(this.#keeper.ledger.usedBytes);
    gauges.modelBytesMax.set(this.#options.memoryBytesMax);
    for (const model of this.#models) model.metrics.showPending(model.queue.queuedRequests);
  }

  #status(): DeviceStatus {
    const silicon = this.#options.readSilicon();
    const executorBytes = this.#slots.map((slot) => slot.executor?.usage().memoryBytes ?? 0);
    return {
      device: this.#options.descriptor,
      health: this.#health.health,
      reason: this.#health.reason,
      memoryUsedBytes: Math.max(
        this.#keeper.ledger.usedBytes,
        executorBytes.reduce((sum, bytes) => sum + bytes, 0),
      ),
      permitsFree: this.#permitsFree,
      sessions: [...this.#models, ...this.#loading].map((model) => model.status(this.#sessionBytes(model))),
      queues: [...this.#models].map((model) => ({
        model: model.model,
        version: model.version,
        device: model.device,
        queuedRequests: model.queuedRequests,
        queuedItems: model.queuedItems,
        queuedBytes: model.queuedBytes,
        oldestArrivedMs: model.oldestArrivedMs,
        nearestDeadlineMs: model.nearestDeadlineMs,
      })),
      executorRestarts: this.#slots.reduce((sum, slot) => sum + slot.restarts, 0),
      utilization: this.#utilization,
      ...silicon,
    };
  }

  #sessionBytes(model: ServedModel): number {
    return model.session === undefined ? 0 : this.#keeper.ledger.bytesOf(model.session.id);
  }

  #statistics(): readonly VersionStatistics[] {
    return [...this.#memory.statistics.values()].map(({ model, version, recorder }) => {
      const current = this.#current.get(model)?.get(version);
      const memoryBytes = current === undefined ? 0 : this.#sessionBytes(current);
      return { model, version, memoryBytes, statistics: recorder.snapshot() };
    });
  }

  // Being the keeper's owner

  holdRuns(): Promise<void> {
    this.#holds += 1;
    if (this.#runs.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#holdWaiters.push(resolve));
  }

  releaseRuns(): void {
    this.#holds -= 1;
    this.#pumpSoon();
  }

  #wakeHolders(): void {
    for (const resolve of this.#holdWaiters.splice(0)) resolve();
  }

  watch(promise: Promise<void>): void {
    promise.catch((failure: unknown) => {
      this.#broken(failure);
    });
  }

  /** Runs code that no message started; what it throws fails the actor as if a message had. */
  #guard(code: () => void): void {
    if (this.#over) return;
    try {
      code();
    } catch (failure) {
      this.#broken(failure);
    }
  }

  #broken(failure: unknown): void {
    if (this.#over) return;
    const cause = failure instanceof Error ? failure : new Error(String(failure));
    this.#context.pipeToSelf(
      Promise.reject(cause),
      (never) => never,
      () => ({ type: 'broken', failure }),
    );
  }

  // The end

  async #closeAndStop(): Promise<void> {
    await this.#closeSlots();
    this.#context.stop();
  }

  async #closeSlots(): Promise<void> {
    const ends = await Promise.allSettled(this.#slots.map((slot) => slot.close(this.#options.closeMsMax)));
    for (const end of ends) {
      if (end.status === 'rejected') this.#context.log.error('executor did not close', { error: String(end.reason) });
    }
  }

  /** The incarnation is over: everything that waits is told so. */
  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#memory.gauges.show = () => undefined;
    this.#keeper.close();
    const error = intarsiaError('DEVICE_UNAVAILABLE', `device ${this.#options.descriptor.id} has stopped`);
    for (const model of this.#models) {
      for (const entry of model.queue.clear()) refuse(entry.waiter, error);
      for (const answer of model.heldAnswers.values()) answer();
      for (const reply of model.unloadReplies.splice(0)) reply.tell({ ok: true });
      model.metrics.showPending(0);
    }
    for (const run of this.#runs) {
      for (const entry of run.batch?.entries ?? []) {
        if (run.cancelled?.has(entry.request.id) !== true) refuse(entry.waiter, error);
      }
    }
    for (const reply of this.#pendingLoads) reply.tell({ ok: false, error });
    for (const reply of this.#drainReplies.splice(0)) reply.tell({ ok: true });
    void this.#closeSlots();
  }
}

/** Its session is to come back. */
function isKept(model: ServedModel): boolean {
  return (model.phase === 'ready' || model.phase === 'unloading') && !model.evicted && !model.unneeded;
}

function refuse(replyTo: Waiter, error: IntarsiaError): void {
  const outcome: InferenceOutcome = { ok: false, error };
  replyTo.tell(outcome);
}

function notLoaded(request: InferenceRequest): IntarsiaError {
  return intarsiaError(
    'MODEL_NOT_READY',
    `model '${request.model}' version ${request.version} is not loaded on this device`,
  );
}

function quarantinedError(model: ServedModel): IntarsiaError {
  return intarsiaError(
    'MODEL_QUARANTINED',
    `model '${model.model}' version ${model.version} is in quarantine: its artefact ${model.digest.slice(0, 12)} crashed the executor again and again`,
    { digest: model.digest },
  );
}
