/**
 * Whether the device computes: its health as others see it, and the canary, a trial run where nothing else showed lately
 * that it does.
 */
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { Executor, RunResult } from '#ports/executor.js';
import { delayUntil, deviceHealth, type Health } from './behavior.js';
import type { DeviceShared, Run } from './device-shared.js';
import { isKept } from './model-roster.js';
import type { ServedModel } from './served-model.js';

export interface HealthWatchEvents {
  /** False when it cannot run now. */
  readonly launchCanary: (model: ServedModel) => boolean;
  readonly restore: (model: ServedModel) => void;
}

/** Milliseconds until a failed canary is repeated, unless the period is shorter. */
const canaryAgainMs = 1000;

export class HealthWatch {
  readonly #shared: DeviceShared;
  readonly #events: HealthWatchEvents;
  #health: Health = { health: 'ready', reason: '' };
  #canaryFailures = 0;
  #canaryReason = '';
  #provedMs = -Infinity;

  constructor(shared: DeviceShared, events: HealthWatchEvents) {
    this.#shared = shared;
    this.#events = events;
  }

  get health(): Health {
    return this.#health;
  }

  judge(): void {
    const [primary] = this.#shared.slots;
    if (primary === undefined) return;
    const next = deviceHealth({
      draining: this.#shared.draining,
      executor: primary.state,
      executorReason: primary.reason,
      startFailures: primary.startFailures,
      startFailuresMax: this.#shared.options.startFailuresMax,
      canaryFailures: this.#canaryFailures,
      canaryFailuresMax: this.#shared.options.canaryFailuresMax,
      canaryReason: this.#canaryReason,
      everStarted: primary.everStarted,
    });
    if (next.health === this.#health.health && next.reason === this.#health.reason) return;
    this.#health = next;
    this.#shared.options.hooks.onHealth?.(next.health, next.reason);
  }

  proved(nowMs: number): void {
    this.#provedMs = nowMs;
    if (this.#canaryFailures === 0) return;
    this.#canaryFailures = 0;
    this.judge();
  }

  /** A trial run where nothing else showed lately that the device computes. */
  canary(): void {
    const { canaryMs } = this.#shared.options;
    const nowMs = this.#shared.context.clock.nowMs();
    const dueMs = this.#provedMs + canaryMs;
    if (this.#canaryFailures === 0 && nowMs < dueMs) {
      this.#shared.context.schedule(delayUntil(dueMs, nowMs), { type: 'canary' });
      return;
    }
    for (const model of this.#shared.models) if (model.trial !== undefined && this.#events.launchCanary(model)) return;
    // Nothing is loaded any more: loading again is a canary too, its first run shows whether the device computes.
    for (const model of this.#shared.models)
      if (model.session === undefined && isKept(model)) this.#events.restore(model);
    this.#canaryLater();
  }

  /** A failed one is soon repeated. */
  #canaryLater(): void {
    const { canaryMs } = this.#shared.options;
    this.#shared.context.schedule(this.#canaryFailures > 0 ? Math.min(canaryMs, canaryAgainMs) : canaryMs, {
      type: 'canary',
    });
  }

  get canaryFailed(): boolean {
    return this.#canaryFailures >= this.#shared.options.canaryFailuresMax;
  }

  canaryEnded(run: Run, result: RunResult | undefined, thrown: unknown): void {
    const { model } = run;
    const error = asIntarsiaError(thrown);
    if (result !== undefined) this.proved(this.#shared.context.clock.nowMs());
    // A lost executor is another matter: it is restarted.
    else if (error.code !== 'EXECUTOR_LOST') {
      this.#canaryFailures += 1;
      this.#canaryReason = `model '${model.model}': ${error.message}`;
      this.#shared.context.log.warn('canary failed', { model: model.model, error: error.message });
      // Some drivers come back only with a new process.
      if (this.#canaryFailures === this.#shared.options.canaryFailuresMax) this.#giveUp(run.executor, error);
      this.judge();
    }
    this.#canaryLater();
  }

  #giveUp(executor: Executor, error: IntarsiaError): void {
    const reason = intarsiaError('EXECUTOR_LOST', `canary runs failed: ${error.message}`, {}, error);
    for (const slot of this.#shared.slots) {
      if (slot.executor === executor)
        this.#shared.watch(slot.giveUp(executor, reason, this.#shared.options.closeMsMax));
    }
  }
}
