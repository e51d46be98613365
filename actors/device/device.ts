/**
 * The device actor: one a device. Requests wait here in per-model queues; a batch is formed only when a permit is free, at
 * the end of the turn, so that requests that arrive together share it.
 *
 * This file takes the messages and puts the parts together: the desk launches batches and answers (run-desk.ts), the roster
 * knows the versions (model-roster.ts), the keeper their sessions and memory (session-keeper.ts), slots hold executors
 * (executor-slot.ts), the watch judges health (health-watch.ts).
 *
 * Every request gets exactly one outcome: from its queue (refused, expired, cancelled), from its run, or, when the actor
 * ends, DEVICE_UNAVAILABLE.
 */
import { intarsiaError, unreachable, type IntarsiaError } from '#core/errors.js';
import type { ArtifactDigest } from '#core/ids.js';
import type { InferenceRequest } from '#core/inference.js';
import type { Executor } from '#ports/executor.js';
import type { Actor, ActorContext, ReplyTo, Signal } from '#runtime/actor.js';
import type { Activity } from './crash-attribution.js';
import type { DeviceInternal, DeviceMemory, DeviceShared } from './device-shared.js';
import { ExecutorSlot } from './executor-slot.js';
import { HealthWatch } from './health-watch.js';
import { ModelRoster, isKept } from './model-roster.js';
import type { DeviceActorOptions } from './options.js';
import type { DeviceStatus, VersionStatistics } from './protocol.js';
import { RunDesk, refuse } from './run-desk.js';
import type { ServedModel, Waiter } from './served-model.js';
import { SessionKeeper } from './session-keeper.js';

type Done = ReplyTo<{ readonly ok: true }>;

export class DeviceActor implements Actor<DeviceInternal> {
  readonly #context: ActorContext<DeviceInternal>;
  readonly #options: DeviceActorOptions;
  readonly #memory: DeviceMemory;
  readonly #shared: DeviceShared;
  readonly #slots: readonly ExecutorSlot[];
  readonly #desk: RunDesk;
  readonly #keeper: SessionKeeper;
  readonly #roster: ModelRoster;
  readonly #watch: HealthWatch;
  readonly #drainReplies: Done[] = [];
  #stopping = false;
  #utilization = 0;

  constructor(context: ActorContext<DeviceInternal>, options: DeviceActorOptions, memory: DeviceMemory) {
    this.#context = context;
    this.#options = options;
    this.#memory = memory;
    const sources = [
      { provider: options.descriptor.provider, startExecutor: options.startExecutor },
      ...options.fallbacks,
    ];
    this.#slots = sources.map((source, index) => this.#slot(index, source));
    this.#shared = {
      context,
      options,
      memory,
      slots: this.#slots,
      models: new Set(),
      withWork: new Set(),
      draining: false,
      over: false,
      guard: (code) => {
        this.#guard(code);
      },
      watch: (promise) => {
        this.#follow(promise);
      },
    };
    this.#desk = this.#makeDesk();
    this.#keeper = this.#makeKeeper();
    this.#roster = this.#makeRoster();
    this.#watch = new HealthWatch(this.#shared, {
      launchCanary: (model) => this.#desk.launchCanary(model),
      restore: (model) => {
        this.#roster.restore(model);
      },
    });
    this.#memory.gauges.show = () => {
      this.#showGauges();
    };
    if (options.usageMs > 0) context.schedule(options.usageMs, { type: 'measure' });
    if (options.canaryMs > 0) context.schedule(options.canaryMs, { type: 'canary' });
    // A start that fails is logged, tried again and shown in the health; nobody waits for this claim.
    if (options.startAtOnce) this.#slots[0]?.acquire().catch(() => undefined);
    for (const placement of memory.placements.values()) this.#roster.readmit(placement);
    this.#watch.judge();
  }

  receive(message: DeviceInternal): void {
    switch (message.type) {
      case 'infer':
        this.#infer(message.request, message.replyTo);
        return;
      case 'run-ended':
        this.#desk.runEnded(message.run, message.result, message.error);
        return;
      case 'cancel':
        this.#desk.cancel(message.request, message.model, message.version);
        return;
      case 'tick':
        this.#desk.tick();
        return;
      case 'load':
        this.#roster.load(message.placement, message.replyTo);
        return;
      case 'unload':
        this.#roster.unload(message.model, message.version, message.replyTo);
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
        this.#watch.canary();
        return;
      case 'restore':
        if (this.#shared.models.has(message.model)) this.#roster.restore(message.model);
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
        this.#stopTaking();
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

  #infer(request: InferenceRequest, replyTo: Waiter): void {
    const model = this.#roster.find(request.model, request.version);
    const refusal = this.#refusal(model, request);
    if (model === undefined || refusal !== undefined) refuse(replyTo, refusal ?? notLoaded(request));
    else this.#desk.offer(model, request, replyTo);
  }

  #refusal(model: ServedModel | undefined, request: InferenceRequest): IntarsiaError | undefined {
    const { health, reason } = this.#watch.health;
    if (this.#shared.draining || health === 'failed') {
      return intarsiaError('DEVICE_UNAVAILABLE', `device ${this.#options.descriptor.id} takes no requests: ${reason}`);
    }
    if (model === undefined) return notLoaded(request);
    if (model.phase === 'ready') return undefined;
    if (model.phase === 'quarantined') return intarsiaError('MODEL_QUARANTINED', model.reason);
    const why = model.reason === '' ? model.phase : `${model.phase}: ${model.reason}`;
    return intarsiaError('MODEL_NOT_READY', `model '${request.model}' version ${request.version} is ${why}`);
  }

  #drain(replyTo: Done): void {
    this.#drainReplies.push(replyTo);
    this.#stopTaking();
  }

  #stopTaking(): void {
    this.#shared.draining = true;
    this.#watch.judge();
    this.#desk.pumpSoon();
    this.#settle();
  }

  /** Frees versions that have finished, answers drains, stops when that was asked for. */
  #settle(): void {
    this.#roster.settle();
    if (!this.#shared.draining || this.#desk.runs.size > 0) return;
    for (const model of this.#shared.models) if (!model.idle) return;
    for (const reply of this.#drainReplies.splice(0)) reply.tell({ ok: true });
    if (!this.#stopping) return;
    this.#stopping = false;
    this.#follow(this.#closeAndStop());
  }

  // Parts

  #makeDesk(): RunDesk {
    return new RunDesk(this.#shared, {
      sessionMissing: (model) => {
        this.#roster.restore(model);
      },
      sessionUsed: (model, nowMs) => {
        this.#keeper.used(model, nowMs);
      },
      proved: (nowMs) => {
        this.#watch.proved(nowMs);
      },
      canaryEnded: (run, result, thrown) => {
        this.#watch.canaryEnded(run, result, thrown);
      },
      settled: () => {
        this.#settle();
      },
    });
  }

  #makeKeeper(): SessionKeeper {
    return new SessionKeeper({
      options: this.#options,
      slots: this.#slots,
      attribution: this.#memory.attribution,
      owner: {
        holdRuns: () => this.#desk.holdRuns(),
        releaseRuns: () => {
          this.#desk.releaseRuns();
        },
        watch: this.#shared.watch,
      },
      clock: this.#context.clock,
      log: this.#context.log,
    });
  }

  #makeRoster(): ModelRoster {
    return new ModelRoster(this.#shared, this.#keeper, this.#desk, {
      proved: (nowMs) => {
        this.#watch.proved(nowMs);
      },
      canaryFailed: () => this.#watch.canaryFailed,
      changed: () => {
        this.#watch.judge();
      },
      settled: () => {
        this.#settle();
      },
    });
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
        this.#watch.judge();
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
    for (const model of this.#shared.models) {
      if (model.session === undefined && model.slotIndex === slot.index && isKept(model)) return true;
    }
    return false;
  }

  #executorStarted(slot: ExecutorSlot): void {
    if (slot.restarts > 0) this.#memory.gauges.executorRestarts.add(1);
    const lost = [...this.#shared.models].filter(
      (model) => model.session === undefined && model.slotIndex === slot.index,
    );
    // Suspects last: what is innocent serves again before they are tried.
    lost.sort(
      (a, b) =>
        Number(this.#memory.attribution.onProbation(a.digest)) - Number(this.#memory.attribution.onProbation(b.digest)),
    );
    for (const model of lost) if (isKept(model)) this.#roster.restore(model);
    this.#watch.judge();
    this.#desk.pumpSoon();
  }

  #executorStartFailed(slot: ExecutorSlot, error: IntarsiaError): void {
    this.#context.log.error('executor failed to start', { provider: slot.provider, error: error.message });
    this.#watch.judge();
    if (slot.startFailures < this.#options.startFailuresMax) return;
    const refusal = intarsiaError('DEVICE_UNAVAILABLE', `the executor failed to start: ${error.message}`, {}, error);
    for (const model of this.#shared.models) {
      if (model.session === undefined && model.slotIndex === slot.index) this.#desk.flush(model, refusal);
    }
  }

  /** What was in flight is rejected by the executor's own promises and answered in `run-ended`. */
  #executorLost(slot: ExecutorSlot, executor: Executor, reason: IntarsiaError, crashed: boolean): void {
    const suspects = new Map<ArtifactDigest, Activity>();
    for (const run of this.#desk.runs) if (run.executor === executor) suspects.set(run.model.digest, 'run');
    for (const digest of slot.loading) suspects.set(digest, 'load');
    const culprit = crashed ? this.#memory.attribution.crashed(suspects, this.#context.clock.nowMs()) : undefined;
    this.#context.log.error('executor lost', {
      provider: slot.provider,
      reason: reason.message,
      inFlight: suspects.size,
      quarantined: culprit,
    });
    for (const model of this.#shared.models) {
      if (model.session?.executor === executor) this.#keeper.forget(model);
      if (model.digest === culprit) this.#roster.quarantine(model);
    }
    if (culprit !== undefined) slot.hasten();
    this.#watch.judge();
  }

  // Figures

  #measure(): void {
    this.#context.schedule(this.#options.usageMs, { type: 'measure' });
    this.#utilization = this.#desk.busyShare();
  }

  #showGauges(): void {
    if (this.#shared.over) return;
    const { gauges } = this.#memory;
    gauges.permitsFree.set(this.#desk.permitsFree);
    gauges.busyShare.set(this.#utilization);
    gauges.modelBytes.set(this.#keeper.ledger.usedBytes);
    gauges.modelBytesMax.set(this.#options.memoryBytesMax);
    for (const model of this.#shared.models) model.metrics.showPending(model.queue.queuedRequests);
  }

  #status(): DeviceStatus {
    const silicon = this.#options.readSilicon();
    const executorBytes = this.#slots.map((slot) => slot.executor?.usage().memoryBytes ?? 0);
    return {
      device: this.#options.descriptor,
      health: this.#watch.health.health,
      reason: this.#watch.health.reason,
      memoryUsedBytes: Math.max(
        this.#keeper.ledger.usedBytes,
        executorBytes.reduce((sum, bytes) => sum + bytes, 0),
      ),
      permitsFree: this.#desk.permitsFree,
      sessions: [...this.#shared.models, ...this.#roster.loading].map((model) =>
        model.status(this.#sessionBytes(model)),
      ),
      queues: [...this.#shared.models].map((model) => ({
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
      const current = this.#roster.find(model, version);
      const memoryBytes = current === undefined ? 0 : this.#sessionBytes(current);
      return { model, version, memoryBytes, statistics: recorder.snapshot() };
    });
  }

  // Failures and the end

  #follow(promise: Promise<void>): void {
    promise.catch((failure: unknown) => {
      this.#broken(failure);
    });
  }

  #guard(code: () => void): void {
    if (this.#shared.over) return;
    try {
      code();
    } catch (failure) {
      this.#broken(failure);
    }
  }

  #broken(failure: unknown): void {
    if (this.#shared.over) return;
    const cause = failure instanceof Error ? failure : new Error(String(failure));
    this.#context.pipeToSelf(
      Promise.reject(cause),
      (never) => never,
      () => ({ type: 'broken', failure }),
    );
  }

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
    if (this.#shared.over) return;
    this.#shared.over = true;
    this.#memory.gauges.show = () => undefined;
    this.#keeper.close();
    const error = intarsiaError('DEVICE_UNAVAILABLE', `device ${this.#options.descriptor.id} has stopped`);
    this.#desk.abandon(error);
    this.#roster.abandon(error);
    for (const model of this.#shared.models) model.metrics.showPending(0);
    for (const reply of this.#drainReplies.splice(0)) reply.tell({ ok: true });
    void this.#closeSlots();
  }
}

function notLoaded(request: InferenceRequest): IntarsiaError {
  return intarsiaError(
    'MODEL_NOT_READY',
    `model '${request.model}' version ${request.version} is not loaded on this device`,
  );
}
