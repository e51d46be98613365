/**
 * A place for one executor: starts it when it is needed, notices when it is lost, starts a new one after a back-off.
 *
 *   off ──► starting ──► running ──► waiting ──► starting …        any ──► closed
 *
 * What was loaded in a lost executor is its owner's business: `started` and `lost` tell him.
 */
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { ArtifactDigest } from '#core/ids.js';
import type { ExecutionProvider } from '#core/provider.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { Executor, ExecutorFactory } from '#ports/executor.js';
import { restartDelayMs } from './behavior.js';

export interface ExecutorSlotOptions {
  readonly index: number;
  readonly provider: ExecutionProvider;
  readonly start: ExecutorFactory;
  readonly clock: Clock;
  readonly restartMsMin: number;
  readonly restartMsMax: number;
  readonly restartForgetMs: number;
  /** Whether a failed start is tried again by itself: somebody waits for sessions to come back. */
  readonly isWanted: (slot: ExecutorSlot) => boolean;
  /** A start begins. */
  readonly changed: () => void;
  readonly started: (slot: ExecutorSlot) => void;
  readonly startFailed: (slot: ExecutorSlot, error: IntarsiaError) => void;
  /** `crashed`: it died; otherwise its owner gave it up. */
  readonly lost: (slot: ExecutorSlot, executor: Executor, reason: IntarsiaError, crashed: boolean) => void;
  /** Runs code that comes from outside of a message; what it throws fails the actor. */
  readonly guard: (code: () => void) => void;
}

export type SlotState = 'off' | 'starting' | 'running' | 'waiting' | 'closed';

interface Claim {
  readonly resolve: (executor: Executor) => void;
  readonly reject: (error: IntarsiaError) => void;
}

export class ExecutorSlot {
  readonly index: number;
  readonly provider: ExecutionProvider;
  /** Artefacts that are being loaded or warmed up in it: suspects if it crashes. */
  readonly loading = new Set<ArtifactDigest>();
  state: SlotState = 'off';
  executor: Executor | undefined;
  /** Why there is no executor; empty when there is. */
  reason = '';
  /** Failed starts in a row. */
  startFailures = 0;
  restarts = 0;
  everStarted = false;
  readonly #options: ExecutorSlotOptions;
  #claims: Claim[] = [];
  #attempt = 0;
  #startedMs = 0;
  #timer: Timer | undefined;
  /** The start that is under way, or the last one: settles once what it gave is in its place, or ended. */
  #starting: Promise<void> = Promise.resolve();

  constructor(options: ExecutorSlotOptions) {
    this.#options = options;
    this.index = options.index;
    this.provider = options.provider;
  }

  /** The executor, started if there is none. @throws DEVICE_UNAVAILABLE when the next start fails or the slot is closed. */
  acquire(): Promise<Executor> {
    if (this.executor !== undefined) return Promise.resolve(this.executor);
    if (this.state === 'closed') return Promise.reject(intarsiaError('DEVICE_UNAVAILABLE', 'the device has stopped'));
    const claim = new Promise<Executor>((resolve, reject) => {
      this.#claims.push({ resolve, reject });
    });
    if (this.state === 'off') this.#start();
    return claim;
  }

  /** Says that this executor is gone: at once, by whoever hears of it first. Later calls for the same one do nothing. */
  markLost(executor: Executor, reason: IntarsiaError): void {
    this.#replace(executor, reason, true);
  }

  /** What made it crash is out of the way: the next start need not wait for long. */
  hasten(): void {
    if (this.state !== 'waiting') return;
    this.#timer?.cancel();
    this.#attempt = 0;
    this.#startLater();
  }

  /** Gives up an executor that lives but does not compute: it ends within `graceMs`, and another takes its place. */
  async giveUp(executor: Executor, reason: IntarsiaError, graceMs: number): Promise<void> {
    this.#replace(executor, reason, false);
    await executor.close({ graceMs });
  }

  #replace(executor: Executor, reason: IntarsiaError, crashed: boolean): void {
    if (executor !== this.executor) return;
    const { clock, restartForgetMs } = this.#options;
    this.executor = undefined;
    this.reason = reason.message;
    this.restarts += 1;
    if (clock.nowMs() - this.#startedMs >= restartForgetMs) this.#attempt = 0;
    this.#startLater();
    this.#options.lost(this, executor, reason, crashed);
  }

  /** Ends the executor, waiting for what is in flight up to `graceMs`; one that only starts is ended as it has. Final. */
  async close(graceMs: number): Promise<void> {
    const { executor } = this;
    this.state = 'closed';
    this.executor = undefined;
    this.#timer?.cancel();
    this.#settle((claim) => {
      claim.reject(intarsiaError('DEVICE_UNAVAILABLE', 'the device has stopped'));
    });
    await Promise.all([executor?.close({ graceMs }), this.#starting]);
  }

  #start(): void {
    const { guard } = this.#options;
    this.state = 'starting';
    this.#options.changed();
    this.#starting = this.#options.start().then(
      (executor) => {
        // Its owner has stopped meanwhile and hears of nothing any more: a process that nobody ends would outlive it.
        if (this.state === 'closed') return executor.close({ graceMs: 0 });
        guard(() => {
          this.#onStarted(executor);
        });
        return undefined;
      },
      (thrown: unknown) => {
        guard(() => {
          this.#onStartFailed(asIntarsiaError(thrown));
        });
      },
    );
  }

  #onStarted(executor: Executor): void {
    this.state = 'running';
    this.executor = executor;
    this.reason = '';
    this.startFailures = 0;
    this.everStarted = true;
    this.#startedMs = this.#options.clock.nowMs();
    executor.onLost((reason) => {
      this.#options.guard(() => {
        this.markLost(executor, reason);
      });
    });
    this.#settle((claim) => {
      claim.resolve(executor);
    });
    this.#options.started(this);
  }

  #onStartFailed(error: IntarsiaError): void {
    if (this.state === 'closed') return;
    this.startFailures += 1;
    this.reason = error.message;
    this.#settle((claim) => {
      claim.reject(error);
    });
    if (this.#options.isWanted(this)) this.#startLater();
    else this.state = 'off';
    this.#options.startFailed(this, error);
  }

  #startLater(): void {
    const { clock, restartMsMin, restartMsMax } = this.#options;
    this.state = 'waiting';
    this.#attempt += 1;
    const delayMs = restartDelayMs(this.#attempt, { minMs: restartMsMin, maxMs: restartMsMax });
    this.#timer = clock.schedule(delayMs, () => {
      this.#options.guard(() => {
        if (this.state === 'waiting') this.#start();
      });
    });
  }

  #settle(end: (claim: Claim) => void): void {
    const claims = this.#claims;
    this.#claims = [];
    for (const claim of claims) end(claim);
  }
}
