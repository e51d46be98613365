/**
 * Runs sampled requests of this host's devices again on the reference: the same files on this host's CPU, in a process of
 * its own, without the optimiser. So that a device which is the only holder of a stage has a witness, too.
 *
 * It comes after everything that is served: one request at a time, one version loaded at a time, nothing while work waits on
 * a device of this host, and nothing is kept for longer than `idleMs` after the last run.
 */
import { asIntarsiaError } from '#core/errors.js';
import type { ArtifactDigest, ModelName, ModelVersion } from '#core/ids.js';
import type { InferenceOutcome, InferenceRequest } from '#core/inference.js';
import type { DeviceMessage, LoadOutcome, Placement } from '#actors/device/protocol.js';
import type { LendOutcome, ModelRegistryMessage } from '#actors/model-registry/protocol.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { Log } from '#ports/log.js';
import type { ActorRef } from '#runtime/actor.js';

/** The device that reference runs are made on. */
export interface ReferenceDevice {
  readonly ref: ActorRef<DeviceMessage>;
  close(): void;
}

export interface ReferenceOptions {
  readonly registry: ActorRef<ModelRegistryMessage>;
  readonly clock: Clock;
  readonly log: Log;
  /** Called when there is something to run, again after each `close`. */
  readonly open: () => ReferenceDevice;
  /** Work waits on devices of this host. */
  readonly isBusy: () => boolean;
  /** Milliseconds without a run after which session and process end, default 60,000. */
  readonly idleMs?: number;
}

/** Preparing and loading may take this long, ms, and a run. */
const loadMsMax = 120_000;
const runMsMax = 30_000;
/** What could not be loaded is not tried again for so long, ms; so many are remembered. */
const refusedMs = 600_000;
const refusedMax = 256;

interface Held {
  readonly key: string;
  readonly device: ReferenceDevice;
  readonly placement: Placement;
  release(): Promise<void>;
}

interface Wanted {
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly digest: ArtifactDigest;
}

export class ReferenceRuns {
  readonly #options: ReferenceOptions;
  /** When what could not be loaded may be tried again, by key. */
  readonly #refused = new Map<string, number>();
  #held: Held | undefined;
  #isRunning = false;
  #idle: Timer | undefined;
  #isOver = false;

  constructor(options: ReferenceOptions) {
    this.#options = options;
  }

  /** Whether a request to this version could be run now. */
  isFree(wanted: Wanted): boolean {
    const { isBusy, clock } = this.#options;
    if (this.#isOver || this.#isRunning || (this.#refused.get(keyOf(wanted)) ?? 0) > clock.nowMs()) return false;
    return !isBusy();
  }

  /** What the reference answers; undefined where it cannot, or something else came first. Never rejects. */
  async run(request: InferenceRequest, digest: ArtifactDigest): Promise<InferenceOutcome | undefined> {
    const wanted: Wanted = { model: request.model, version: request.version, digest };
    if (!this.isFree(wanted)) return undefined;
    this.#isRunning = true;
    this.#idle?.cancel();
    try {
      const { device } = await this.#load(wanted);
      const deadlineMs = this.#options.clock.nowMs() + runMsMax;
      return await device.ref.ask<InferenceOutcome>(
        (replyTo) => ({ type: 'infer', request: { ...request, deadlineMs }, replyTo }),
        { deadlineMs },
      );
    } catch (thrown) {
      const { message } = asIntarsiaError(thrown);
      const { clock, log } = this.#options;
      if (this.#refused.size >= refusedMax) this.#refused.clear();
      this.#refused.set(keyOf(wanted), clock.nowMs() + refusedMs);
      log.warn(`answers of ${wanted.model}/${wanted.version} cannot be compared with the reference`, {
        reason: message,
      });
      return undefined;
    } finally {
      this.#isRunning = false;
      const { clock, idleMs = 60_000 } = this.#options;
      if (this.#isOver) void this.close();
      else this.#idle = clock.schedule(idleMs, () => void this.close());
    }
  }

  /** Frees what it holds; the next run begins anew. */
  async close(): Promise<void> {
    this.#idle?.cancel();
    const held = this.#held;
    this.#held = undefined;
    if (held === undefined) return;
    held.device.close();
    await held.release();
  }

  /** Frees what it holds, and runs nothing any more: the host stops. */
  async end(): Promise<void> {
    this.#isOver = true;
    await this.close();
  }

  async #load(wanted: Wanted): Promise<Held> {
    const key = keyOf(wanted);
    if (this.#held?.key === key) return this.#held;
    await this.close();
    const { registry, clock, open } = this.#options;
    const deadlineMs = clock.nowMs() + loadMsMax;
    const { model, version, digest } = wanted;
    const lent = await registry.ask<LendOutcome>((replyTo) => ({ type: 'lend', model, version, replyTo }), {
      deadlineMs,
    });
    if (!lent.ok) throw lent.error;
    const { placement } = lent;
    const release = (): Promise<void> => lent.release();
    const device = open();
    try {
      if (placement.artifact.digest !== digest) throw new Error('its files here are others than those that are served');
      let outcome = await load(device, { ...placement, optimization: 'disabled' }, deadlineMs);
      // Some models load no other way than optimised.
      if (!outcome.ok) outcome = await load(device, placement, deadlineMs);
      if (!outcome.ok) throw outcome.error;
    } catch (thrown) {
      device.close();
      await release();
      throw thrown;
    }
    this.#held = { key, device, placement, release };
    return this.#held;
  }
}

function load({ ref }: ReferenceDevice, placement: Placement, deadlineMs: number): Promise<LoadOutcome> {
  return ref.ask<LoadOutcome>((replyTo) => ({ type: 'load', placement, replyTo }), { deadlineMs });
}

function keyOf({ model, version, digest }: Wanted): string {
  return `${model}/${version} ${digest}`;
}
