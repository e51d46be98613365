/**
 * The versions a device serves: how they come (load, warm up, replace in place), come back (after a crash or an eviction)
 * and go (finish what waits, then free).
 */
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import { ModelStatisticsRecorder } from '#core/model-statistics.js';
import type { ModelName, ModelVersion } from '#core/ids.js';
import type { ReplyTo } from '#runtime/actor.js';
import type { DeviceShared } from './device-shared.js';
import { ModelMetrics } from './model-metrics.js';
import type { LoadOutcome, Placement } from './protocol.js';
import type { RunDesk } from './run-desk.js';
import { ServedModel } from './served-model.js';
import type { SessionKeeper } from './session-keeper.js';

type Done = ReplyTo<{ readonly ok: true }>;

export interface ModelRosterEvents {
  /** A session works: the device computes. */
  readonly proved: (nowMs: number) => void;
  /** Whether the device itself fails its canary, so that a model is not to blame. */
  readonly canaryFailed: () => boolean;
  readonly changed: () => void;
  /** A version went or finished: whoever waits for quiet may look. */
  readonly settled: () => void;
}

/** Times a load is tried again because the executor was lost beside it. */
const loadAttemptsMax = 10;
/** Milliseconds until a session that could not be loaded again, for a reason that may pass, is tried once more. */
const restoreAgainMs = 1000;

export class ModelRoster {
  /** Being loaded for the first time. */
  readonly loading = new Set<ServedModel>();
  readonly #shared: DeviceShared;
  readonly #keeper: SessionKeeper;
  readonly #desk: RunDesk;
  readonly #events: ModelRosterEvents;
  /** Versions that take requests; `shared.models` holds those too that still finish what they have. */
  readonly #current = new Map<ModelName, Map<ModelVersion, ServedModel>>();
  readonly #pendingLoads = new Set<ReplyTo<LoadOutcome>>();

  constructor(shared: DeviceShared, keeper: SessionKeeper, desk: RunDesk, events: ModelRosterEvents) {
    this.#shared = shared;
    this.#keeper = keeper;
    this.#desk = desk;
    this.#events = events;
  }

  find(model: ModelName, version: ModelVersion): ServedModel | undefined {
    return this.#current.get(model)?.get(version);
  }

  load(placement: Placement, replyTo: ReplyTo<LoadOutcome>): void {
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
    if (this.#shared.draining) {
      replyTo.tell({ ok: false, error: intarsiaError('DEVICE_UNAVAILABLE', 'the device is being drained') });
      return;
    }
    if (this.#keeper.tasksWaiting >= this.#shared.options.limits.tasksMax) {
      const limit = this.#shared.options.limits.tasksMax;
      replyTo.tell({
        ok: false,
        error: intarsiaError('RESOURCE_EXHAUSTED', `${limit} loads wait on the device already; the limit is ${limit}`, {
          limit,
        }),
      });
      return;
    }
    this.#shared.memory.attribution.pardon(artifact.digest);
    let model: ServedModel;
    try {
      model = this.#serve(placement);
    } catch (thrown) {
      replyTo.tell({ ok: false, error: asIntarsiaError(thrown) });
      return;
    }
    this.loading.add(model);
    this.#pendingLoads.add(replyTo);
    let attempts = 0;
    this.#keeper.submit(async () => {
      attempts += 1;
      const outcome = await this.#keeper.load(model);
      if (this.#shared.over) return 'done';
      const { digest } = model;
      const isOut = this.#shared.memory.attribution.isQuarantined(digest);
      if (outcome.kind === 'lost' && !isOut && attempts < loadAttemptsMax) return 'again';
      this.loading.delete(model);
      this.#pendingLoads.delete(replyTo);
      if (outcome.kind === 'ready') {
        this.#events.proved(this.#shared.context.clock.nowMs());
        this.#install(model);
        model.metrics.loaded(outcome.loadMs);
        replyTo.tell({ ok: true, loadMs: outcome.loadMs, memoryBytes: model.memoryBytes, notes: [...model.notes] });
      } else {
        replyTo.tell({ ok: false, error: isOut ? quarantinedError(model) : outcome.error });
      }
      this.#events.changed();
      this.#desk.pumpSoon();
      return 'done';
    });
  }

  #serve(placement: Placement): ServedModel {
    const { descriptor, limits, metrics } = this.#shared.options;
    const { model, version } = placement;
    const key = `${model}/${version}`;
    let statistics = this.#shared.memory.statistics.get(key);
    if (statistics === undefined) {
      statistics = { model, version, recorder: new ModelStatisticsRecorder() };
      this.#shared.memory.statistics.set(key, statistics);
    }
    const profile = this.#shared.options.profileOf(placement);
    if (profile !== undefined) {
      const batches = profile.batches.join(', ');
      this.#shared.context.log.info('run times are known from measurements', { model, version, batches });
    }
    return new ServedModel({
      placement,
      descriptor,
      limits,
      metrics: new ModelMetrics(metrics, model, version, descriptor.id),
      statistics: statistics.recorder,
      profile,
    });
  }

  /** The model takes requests from now on; the one it replaces finishes what it has, and goes. */
  #install(model: ServedModel): void {
    const versions = this.#current.get(model.model) ?? new Map<ModelVersion, ServedModel>();
    const replaced = versions.get(model.version);
    model.phase = 'ready';
    versions.set(model.version, model);
    this.#current.set(model.model, versions);
    this.#shared.models.add(model);
    this.#shared.memory.placements.set(`${model.model}/${model.version}`, model.placement);
    if (replaced !== undefined) this.#retire(replaced);
  }

  /** After a failure of the actor: takes requests at once, which wait until the session is back. */
  readmit(placement: Placement): void {
    const model = this.#serve(placement);
    this.#install(model);
    if (this.#shared.memory.attribution.isQuarantined(model.digest)) this.quarantine(model);
    else this.restore(model);
  }

  /** Loads the session of a model that takes requests: after a crash, or because it was evicted. */
  restore(model: ServedModel): void {
    if (model.restoring) return;
    model.restoring = true;
    this.#keeper.submit(async () => {
      const wanted = model.session === undefined && (model.phase === 'ready' || model.phase === 'unloading');
      const outcome = wanted && !model.unneeded ? await this.#keeper.load(model) : undefined;
      if (this.#shared.over) return 'done';
      if (outcome?.kind === 'lost' && model.phase !== 'quarantined') return 'again';
      model.restoring = false;
      if (outcome?.kind === 'ready') this.#events.proved(this.#shared.context.clock.nowMs());
      if (outcome?.kind === 'refused') this.#restoreFailed(model, outcome.error);
      this.#events.changed();
      this.#desk.pumpSoon();
      this.#events.settled();
      return 'done';
    });
  }

  #restoreFailed(model: ServedModel, error: IntarsiaError): void {
    const { model: name, version } = model;
    this.#shared.context.log.warn('session could not be loaded again', {
      model: name,
      version,
      code: error.code,
      error: error.message,
    });
    const slot = this.#shared.slots[model.slotIndex];
    // The executor is there and the fault may pass, such as a model that another server is still loading: it is tried again,
    // and what waits may go elsewhere meanwhile.
    if (error.retryable && slot?.state === 'running') {
      this.#shared.context.schedule(restoreAgainMs, { type: 'restore', model });
      this.#desk.flush(model, error);
      return;
    }
    // The executor is tried again by itself, and the session with it: what waits goes on waiting.
    const failures = slot?.startFailures ?? 0;
    if (error.code === 'DEVICE_UNAVAILABLE' && failures < this.#shared.options.startFailuresMax) return;
    const isOwn = error.code === 'OUT_OF_MEMORY' || error.code === 'DEVICE_UNAVAILABLE';
    if (error.code === 'OUT_OF_MEMORY') model.evicted = true;
    // While the device itself fails its canary, the fault is not the model's: it is tried again with the next canary.
    else if (!isOwn && !this.#events.canaryFailed()) {
      this.#takeOut(model, 'failed', intarsiaError('MODEL_NOT_READY', error.message, {}, error));
    }
    this.#desk.flush(model, isOwn ? error : intarsiaError('MODEL_NOT_READY', error.message, {}, error));
  }

  unload(name: ModelName, version: ModelVersion, replyTo: Done): void {
    this.#shared.memory.placements.delete(`${name}/${version}`);
    const loading = [...this.loading].some((model) => model.model === name && model.version === version);
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
    this.#shared.memory.placements.delete(`${name}/${version}`);
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
    this.#shared.withWork.add(model);
    this.#desk.pumpSoon();
    this.#events.settled();
  }

  /** Frees models that have finished. */
  settle(): void {
    for (const model of this.#shared.models) {
      if (model.phase !== 'unloading' || !model.idle || model.restoring) continue;
      this.#shared.models.delete(model);
      this.#shared.withWork.delete(model);
      this.#shared.watch(this.#remove(model));
    }
  }

  async #remove(model: ServedModel): Promise<void> {
    await this.#keeper.free(model);
    model.metrics.showPending(0);
    for (const reply of model.unloadReplies.splice(0)) reply.tell({ ok: true });
  }

  quarantine(model: ServedModel): void {
    const error = quarantinedError(model);
    this.#takeOut(model, 'quarantined', error);
    this.#desk.flush(model, error);
  }

  /** It takes no requests any more, and whoever sends them is told. */
  #takeOut(model: ServedModel, phase: 'quarantined' | 'failed', error: IntarsiaError): void {
    model.reason = error.message;
    model.notes.push(error.message);
    if (model.phase !== 'ready') return;
    model.phase = phase;
    const { model: name, version, placement } = model;
    const digest = placement.exactDigest ?? model.digest;
    this.#shared.options.hooks.onVersionOut?.({ model: name, version, digest, error });
  }

  /** The end: whoever waits for a load or an unload is told. */
  abandon(error: IntarsiaError): void {
    for (const reply of this.#pendingLoads) reply.tell({ ok: false, error });
    for (const model of this.#shared.models)
      for (const reply of model.unloadReplies.splice(0)) reply.tell({ ok: true });
  }
}

/** Its session is to come back. */
export function isKept(model: ServedModel): boolean {
  return (model.phase === 'ready' || model.phase === 'unloading') && !model.evicted && !model.unneeded;
}

function quarantinedError(model: ServedModel): IntarsiaError {
  return intarsiaError(
    'MODEL_QUARANTINED',
    `model '${model.model}' version ${model.version} is in quarantine: its artefact ${model.digest.slice(0, 12)} crashed the executor again and again`,
    { digest: model.digest },
  );
}
