/**
 * Where batches leave and answers come back: permits, the formation of batches at the end of a turn, runs in flight,
 * outcomes, timers. Every request that a queue took gets its one outcome from here.
 */
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import { makeReceipt } from '#core/receipt.js';
import type { ModelName, ModelVersion, RequestId } from '#core/ids.js';
import { releaseOutputs, type InferenceRequest } from '#core/inference.js';
import type { Batch, Dropped } from '#core/model-queue.js';
import type { CompletedRun } from '#core/model-statistics.js';
import type { Tensor } from '#core/tensor.js';
import type { RunResult } from '#ports/executor.js';
import type { LaunchChoice } from '#policies/batching/batching-policy.js';
import { batchesInFlightMax, delayUntil } from './behavior.js';
import type { DeviceShared, Run } from './device-shared.js';
import type { ServedModel, Waiter } from './served-model.js';

/** What happens at the desk and is somebody else's business. */
export interface RunDeskEvents {
  /** A model with work has no session, because it was evicted. */
  readonly sessionMissing: (model: ServedModel) => void;
  /** The session was used. */
  readonly sessionUsed: (model: ServedModel, nowMs: number) => void;
  /** A run of requests succeeded: the device computes. */
  readonly proved: (nowMs: number) => void;
  readonly canaryEnded: (run: Run, result: RunResult | undefined, thrown: unknown) => void;
  /** Something left a queue or a run ended: whoever waits for quiet may look. */
  readonly settled: () => void;
}

/** Longest timer: a day. A further moment is looked at again then. */
const timerMsMax = 86_400_000;
/** For so long after a run (ms) its figures are trusted to refuse requests. */
const shedTrustMs = 1000;

export class RunDesk {
  readonly runs = new Set<Run>();
  readonly #shared: DeviceShared;
  readonly #events: RunDeskEvents;
  readonly #views: ServedModel[] = [];
  readonly #choice: LaunchChoice = { queue: -1, itemsMax: Infinity, untilMs: Infinity };
  #permitsFree: number;
  #pumpPending = false;
  #round = 0;
  #timer: { readonly atMs: number; cancel(): void } | undefined;
  #holds = 0;
  #holdWaiters: (() => void)[] = [];
  #busySinceMs = 0;
  #busyMs = 0;
  #measuredMs: number;

  constructor(shared: DeviceShared, events: RunDeskEvents) {
    this.#shared = shared;
    this.#events = events;
    this.#permitsFree = shared.options.descriptor.permits;
    this.#measuredMs = shared.context.clock.nowMs();
  }

  get permitsFree(): number {
    return this.#permitsFree;
  }

  offer(model: ServedModel, request: InferenceRequest, replyTo: Waiter): void {
    const refused = model.queue.offer(request, replyTo, this.#shared.context.clock.nowMs());
    if (refused !== undefined) {
      this.#failed(model, refused, 1, 0);
      refuse(replyTo, refused);
      return;
    }
    this.#shared.withWork.add(model);
    this.pumpSoon();
  }

  cancel(id: RequestId, name: ModelName, version: ModelVersion): void {
    const nowMs = this.#shared.context.clock.nowMs();
    for (const model of this.#shared.models) {
      if (model.model !== name || model.version !== version) continue;
      const dropped = model.queue.cancel(id, nowMs);
      if (dropped.length === 0) continue;
      this.#drop(model, dropped, nowMs);
      this.pumpSoon();
      return;
    }
    for (const run of this.runs) {
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
  flush(model: ServedModel, error: IntarsiaError): void {
    const nowMs = this.#shared.context.clock.nowMs();
    this.#drop(
      model,
      model.queue.clear().map((entry) => ({ entry, error })),
      nowMs,
    );
    this.#events.settled();
  }

  /** At the end of the turn: what arrives in the same turn shares the batch. */
  pumpSoon(): void {
    if (this.#pumpPending) return;
    this.#pumpPending = true;
    this.#shared.context.clock.defer(this.#deferredPump);
  }

  readonly #deferredPump = (): void => {
    this.#shared.guard(() => {
      this.#pump();
    });
  };

  /** A timeout, a deadline or the end of a wait is due. */
  tick(): void {
    this.#timer = undefined;
    this.#pump();
  }

  #pump(): void {
    this.#pumpPending = false;
    const nowMs = this.#shared.context.clock.nowMs();
    this.#expire(nowMs);
    if (this.#shared.options.batchingPolicy.sheds === true) this.#shed(nowMs);
    this.#round += 1;
    let wakeMs = Infinity;
    while (this.#permitsFree > 0 && this.#holds === 0 && this.#shared.withWork.size > 0) {
      const views = this.#launchable();
      if (views.length === 0) break;
      const choice = this.#choice;
      if (views.length === 1 && !this.#shared.options.batchingPolicy.decidesAlone) {
        choice.queue = 0;
        choice.itemsMax = Infinity;
      } else {
        this.#shared.options.batchingPolicy.choose(views, nowMs, choice);
      }
      const model = views[choice.queue];
      if (model === undefined) {
        wakeMs = Math.min(wakeMs, choice.untilMs);
        break;
      }
      const formed = model.queue.form(nowMs, {
        serviceMs: model.serviceMs,
        itemsMax: choice.itemsMax,
        flush: this.#shared.draining || model.phase === 'unloading',
      });
      if (formed.kind === 'batch') {
        this.#launch(model, formed, nowMs);
        continue;
      }
      model.passedInRound = this.#round;
      if (formed.kind === 'wait') wakeMs = Math.min(wakeMs, formed.untilMs);
    }
    for (const model of this.#shared.models) wakeMs = Math.min(wakeMs, model.queue.nextExpiryMs);
    this.#wakeAt(wakeMs, nowMs);
  }

  #expire(nowMs: number): void {
    let dropped = false;
    for (const model of this.#shared.models) {
      if (model.queue.nextExpiryMs > nowMs) continue;
      const expired = model.queue.expire(nowMs);
      this.#drop(model, expired, nowMs);
      dropped ||= expired.length > 0;
    }
    if (dropped) this.#events.settled();
  }

  /**
   * Refuses what would be late even if it ran at once, alone. While nothing is known of run times, nobody; nor when the last
   * run was long ago: a figure that refuses everybody would never be put right.
   */
  #shed(nowMs: number): void {
    let dropped = false;
    for (const model of this.#shared.withWork) {
      if (nowMs - model.begunMs > shedTrustMs) continue;
      const late = model.queue.shed(nowMs, model.runMs(1));
      this.#drop(model, late, nowMs);
      dropped ||= late.length > 0;
    }
    if (dropped) this.#events.settled();
  }

  /** Models with work that may have a batch formed now. The list is reused. */
  #launchable(): readonly ServedModel[] {
    const views = this.#views;
    views.length = 0;
    for (const model of this.#shared.withWork) {
      if (model.queue.queuedRequests === 0) {
        this.#shared.withWork.delete(model);
        continue;
      }
      const { session } = model;
      if (session === undefined) {
        if (model.evicted) this.#events.sessionMissing(model);
        continue;
      }
      if (model.passedInRound === this.#round) continue;
      const { concurrency } = session.executor.description;
      const { permits } = this.#shared.options.descriptor;
      if (model.inFlight >= batchesInFlightMax(model.instances, { permits, concurrency })) continue;
      if (this.#mustWaitAlone(model)) continue;
      views.push(model);
    }
    return views;
  }

  /** A suspect of a crash runs with nothing beside it. */
  #mustWaitAlone(model: ServedModel): boolean {
    if (this.runs.size === 0) return false;
    if (this.#shared.memory.attribution.onProbation(model.digest)) return true;
    for (const run of this.runs) if (this.#shared.memory.attribution.onProbation(run.model.digest)) return true;
    return false;
  }

  #launch(model: ServedModel, batch: Batch<Waiter>, nowMs: number): void {
    const { session } = model;
    if (session === undefined) return;
    model.metrics.released(batch.reason, batch.items);
    this.#events.sessionUsed(model, nowMs);
    this.#shared.options.hooks.onLaunch?.(batch.entries.map((entry) => entry.request));
    model.begunMs = nowMs;
    const order = model.launched;
    model.launched += 1;
    const run: Run = { model, batch, executor: session.executor, startedMs: nowMs, order, cancelled: undefined };
    this.#begin(run, session.executor.run(model.layout.request(batch, session.id)));
  }

  #begin(run: Run, result: Promise<RunResult>): void {
    this.#permitsFree -= 1;
    run.model.inFlight += 1;
    if (this.runs.size === 0) this.#busySinceMs = run.startedMs;
    this.runs.add(run);
    this.#shared.context.pipeToSelf(
      result,
      (value) => ({ type: 'run-ended', run, result: value, error: undefined }),
      (error) => ({ type: 'run-ended', run, result: undefined, error }),
    );
  }

  runEnded(run: Run, result: RunResult | undefined, thrown: unknown): void {
    const { model, batch } = run;
    const nowMs = this.#shared.context.clock.nowMs();
    this.#permitsFree += 1;
    model.inFlight -= 1;
    this.runs.delete(run);
    if (this.runs.size === 0) this.#busyMs += nowMs - Math.max(this.#busySinceMs, this.#measuredMs);
    if (result !== undefined && batch !== undefined) this.#shared.memory.attribution.survived(model.digest, 'run');
    if (batch === undefined) this.#events.canaryEnded(run, result, thrown);
    else if (result === undefined) this.#answerFailure(run, batch, asIntarsiaError(thrown), nowMs);
    else this.#answer(run, batch, result, nowMs);
    if (this.runs.size === 0) this.#wakeHolders();
    this.pumpSoon();
    this.#events.settled();
  }

  #answer(run: Run, batch: Batch<Waiter>, result: RunResult, nowMs: number): void {
    const { model } = run;
    const split = model.layout.split(batch, result);
    if (!('outputs' in split)) {
      this.#answerFailure(run, batch, split, nowMs);
      return;
    }
    model.queue.complete(batch, split.states, nowMs);
    model.ran(nowMs - run.startedMs, batch.items, computeMsOf(result));
    const { batchingPolicy } = this.#shared.options;
    if (batchingPolicy.ended !== undefined) batchingPolicy.ended(model, batch.items, allInTime(batch, nowMs));
    this.#events.proved(nowMs);
    this.#inOrder(run, () => {
      this.#tellSuccess(
        run,
        batch,
        split.outputs,
        split.states === undefined ? result : { ...result, release: undefined },
        nowMs,
      );
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
    const device = this.#shared.options.descriptor;
    const roundTripUs = (nowMs - startedMs) * 1000;
    const release = releaseByAll(result.release, batch.entries.length - (run.cancelled?.size ?? 0));
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
        variant: model.placement.variant,
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
      entry.waiter.tell({ ok: true, outputs: own, receipt, [releaseOutputs]: release });
    }
    const completed: CompletedRun = {
      requests,
      items: batch.items,
      requestUs: requestMs * 1000,
      queueUs: queueMs * 1000,
      computeInputUs,
      computeInferUs,
      computeOutputUs,
      finishedWallMs: this.#shared.context.clock.wallMs(),
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
    const timer = this.#shared.context.schedule(Math.min(timerMsMax, delayUntil(atMs, nowMs)), { type: 'tick' });
    this.#timer = {
      atMs,
      cancel: () => {
        timer.cancel();
      },
    };
  }

  /** A trial run. False when no permit is free for it, or the model must not run now. */
  launchCanary(model: ServedModel): boolean {
    const { session } = model;
    if (session === undefined || this.#permitsFree === 0 || this.#holds > 0 || this.#mustWaitAlone(model)) return false;
    const { executor, id } = session;
    const startedMs = this.#shared.context.clock.nowMs();
    const run = { model, batch: undefined, executor, startedMs, order: 0, cancelled: undefined };
    this.#begin(run, executor.run(model.trialRun(id)));
    return true;
  }

  holdRuns(): Promise<void> {
    this.#holds += 1;
    if (this.runs.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#holdWaiters.push(resolve));
  }

  releaseRuns(): void {
    this.#holds -= 1;
    this.pumpSoon();
  }

  #wakeHolders(): void {
    for (const resolve of this.#holdWaiters.splice(0)) resolve();
  }

  /** Share of the time since the last call with at least one run in the executor. */
  busyShare(): number {
    const nowMs = this.#shared.context.clock.nowMs();
    if (this.runs.size > 0) this.#busyMs += nowMs - Math.max(this.#busySinceMs, this.#measuredMs);
    const share = Math.min(1, this.#busyMs / Math.max(1, nowMs - this.#measuredMs));
    this.#busyMs = 0;
    this.#measuredMs = nowMs;
    return share;
  }

  /** The end: everything that waits or runs is refused. */
  abandon(error: IntarsiaError): void {
    for (const model of this.#shared.models) {
      for (const entry of model.queue.clear()) refuse(entry.waiter, error);
      for (const answer of model.heldAnswers.values()) answer();
    }
    for (const run of this.runs) {
      for (const entry of run.batch?.entries ?? []) {
        if (run.cancelled?.has(entry.request.id) !== true) refuse(entry.waiter, error);
      }
    }
  }
}

function computeMsOf({ computeInputUs, computeInferUs, computeOutputUs }: RunResult): number {
  return (computeInputUs + computeInferUs + computeOutputUs) / 1000;
}

function allInTime(batch: Batch<Waiter>, nowMs: number): boolean {
  for (const { request } of batch.entries) {
    if (nowMs > Math.min(request.deadlineMs, request.arrivedMs + (request.sloMs ?? Infinity))) return false;
  }
  return true;
}

/** For `count` readers of the same outputs: the last one to call it releases them. */
function releaseByAll(release: (() => void) | undefined, count: number): (() => void) | undefined {
  if (count === 0) release?.();
  if (release === undefined || count <= 1) return release;
  let left = count;
  return () => {
    left -= 1;
    if (left === 0) release();
  };
}

export function refuse(replyTo: Waiter, error: IntarsiaError): void {
  replyTo.tell({ ok: false, error });
}
