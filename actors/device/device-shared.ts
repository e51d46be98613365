/** What the parts of one device share, and what the device says to itself. */
import type { ModelName, ModelVersion, RequestId } from '#core/ids.js';
import type { Batch } from '#core/model-queue.js';
import type { ModelStatisticsRecorder } from '#core/model-statistics.js';
import type { Executor, RunResult } from '#ports/executor.js';
import type { ActorContext } from '#runtime/actor.js';
import type { CrashAttribution } from './crash-attribution.js';
import type { DeviceGauges } from './device-gauges.js';
import type { ExecutorSlot } from './executor-slot.js';
import type { DeviceActorOptions } from './options.js';
import type { DeviceMessage, Placement } from './protocol.js';
import type { ServedModel, Waiter } from './served-model.js';

/** A batch that is with the executor; without one it is a canary. */
export interface Run {
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
  /** Time to try again what could not be loaded. */
  | { readonly type: 'restore'; readonly model: ServedModel }
  /** Code outside of a message failed: the supervisor decides. */
  | { readonly type: 'broken'; readonly failure: unknown };

/** What outlives an incarnation: the versions that were serving, to be loaded again after a failure of the actor. */
export interface DeviceMemory {
  readonly placements: Map<string, Placement>;
  readonly statistics: Map<string, { model: ModelName; version: ModelVersion; recorder: ModelStatisticsRecorder }>;
  readonly gauges: DeviceGauges;
  readonly attribution: CrashAttribution;
}

export interface DeviceShared {
  readonly context: ActorContext<DeviceInternal>;
  readonly options: DeviceActorOptions;
  readonly memory: DeviceMemory;
  /** The device's own executor first, then the fallbacks. */
  readonly slots: readonly ExecutorSlot[];
  /** Versions that take requests, and those that still finish what they have. */
  readonly models: Set<ServedModel>;
  /** Those among them that may have something waiting. */
  readonly withWork: Set<ServedModel>;
  draining: boolean;
  /** True once the incarnation has ended: nothing may be done any more. */
  over: boolean;
  /** Runs code that no message started; what it throws fails the actor as if a message had. */
  readonly guard: (code: () => void) => void;
  /** Looks after a promise nobody waits for; what it rejects with fails the actor. */
  readonly watch: (promise: Promise<void>) => void;
}
