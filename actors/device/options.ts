/** Options of a device actor, with their defaults. */
import type { DeviceDescriptor } from '#core/device.js';
import type { IntarsiaError } from '#core/errors.js';
import type { ArtifactDigest, ModelName, ModelVersion } from '#core/ids.js';
import type { InferenceRequest } from '#core/inference.js';
import type { ExecutionProvider } from '#core/provider.js';
import type { ServiceProfile } from '#core/scheduling/service-profile.js';
import type { ExecutorFactory } from '#ports/executor.js';
import type { Metrics } from '#ports/metrics.js';
import type { BatchingPolicy } from '#policies/batching/batching-policy.js';
import { tritonBatching } from '#policies/batching/batching-triton.js';
import { defaultQuarantineRule, type QuarantineRule } from './crash-attribution.js';
import type { DeviceHealth, Placement } from './protocol.js';

export interface DeviceLimits {
  /** Requests a model's queue holds. At the bound: QUEUE_FULL. Default 10,000. */
  readonly queueRequestsMax: number;
  /** Bytes a model's queue holds. At the bound: QUEUE_FULL. Default 1 GiB. */
  readonly queueBytesMax: number;
  /** Sequences a model keeps state for. At the bound: RESOURCE_EXHAUSTED. Default 10,000. */
  readonly sequencesMax: number;
  /** Bytes of sequence states a model keeps. At the bound: RESOURCE_EXHAUSTED. Default 1 GiB. */
  readonly stateBytesMax: number;
  /** Loads and unloads that may wait. At the bound: RESOURCE_EXHAUSTED. Default 1,000. */
  readonly tasksMax: number;
}

/** Diagnostics: called synchronously, must not throw and must be quick. */
export interface DeviceHooks {
  /** The health changed; `ready` and `degraded` devices take requests. */
  readonly onHealth?: (health: DeviceHealth, reason: string) => void;
  /** A version takes no requests any more, through its own fault: it crashes executors, or its session does not come back. */
  readonly onVersionOut?: (out: VersionOut) => void;
  /** A batch left its queue. */
  readonly onLaunch?: (requests: readonly InferenceRequest[]) => void;
}

export interface VersionOut {
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly digest: ArtifactDigest;
  /** What its requests are refused with: MODEL_QUARANTINED or MODEL_NOT_READY, with the reason. */
  readonly error: IntarsiaError;
}

/** Live figures the system tells about the silicon; absent where it does not. */
export interface SiliconReading {
  readonly powerWatts?: number;
  readonly temperatureCelsius?: number;
}

export interface DeviceActorOptions {
  readonly descriptor: DeviceDescriptor;
  readonly startExecutor: ExecutorFactory;
  /** Executors of other providers for models the first cannot load, in order. Started when needed. */
  readonly fallbacks: readonly { readonly provider: ExecutionProvider; readonly startExecutor: ExecutorFactory }[];
  readonly metrics: Metrics;
  readonly limits: DeviceLimits;
  readonly batchingPolicy: BatchingPolicy;
  /** What is known of a version's run times here, asked when it is loaded. Default: nothing, they are learned. */
  readonly profileOf: (placement: Placement) => ServiceProfile | undefined;
  /** Bytes models may hold. */
  readonly memoryBytesMax: number;
  /** Start the executor at once rather than with the first load. Default false. */
  readonly startAtOnce: boolean;
  readonly quarantine: QuarantineRule;
  /** Wait before an executor is started again, doubled each time up to the maximum. Defaults 100 and 10,000 ms. */
  readonly restartMsMin: number;
  readonly restartMsMax: number;
  /** An executor that lived this long starts the doubling again. Default 60,000 ms. */
  readonly restartForgetMs: number;
  /** Failed starts in a row after which the device counts as failed and what waits is refused. It goes on trying. Default 3. */
  readonly startFailuresMax: number;
  /** Milliseconds between canary runs while nothing else shows that the device computes; 0: none. Default 30,000. */
  readonly canaryMs: number;
  /** Failed canaries in a row after which the device counts as failed. Default 2. */
  readonly canaryFailuresMax: number;
  /** Milliseconds between two looks at usage and utilisation; 0: none. Default 2,000. */
  readonly usageMs: number;
  /** Milliseconds an executor may take to finish when the device stops. Default 10,000. */
  readonly closeMsMax: number;
  readonly hooks: DeviceHooks;
  readonly readSilicon: () => SiliconReading;
}

/** What must be given; the rest has a default. */
export type DeviceOptionsGiven = Pick<DeviceActorOptions, 'descriptor' | 'startExecutor' | 'metrics'> &
  Partial<Omit<DeviceActorOptions, 'limits'>> & { readonly limits?: Partial<DeviceLimits> };

const gibibyte = 2 ** 30;

export const defaultDeviceLimits: DeviceLimits = {
  queueRequestsMax: 10_000,
  queueBytesMax: gibibyte,
  sequencesMax: 10_000,
  stateBytesMax: gibibyte,
  tasksMax: 1000,
};

export function completeDeviceOptions(given: DeviceOptionsGiven): DeviceActorOptions {
  return {
    fallbacks: [],
    batchingPolicy: tritonBatching(),
    profileOf: () => undefined,
    memoryBytesMax: given.descriptor.memoryBytes,
    startAtOnce: false,
    quarantine: defaultQuarantineRule,
    restartMsMin: 100,
    restartMsMax: 10_000,
    restartForgetMs: 60_000,
    startFailuresMax: 3,
    canaryMs: 30_000,
    canaryFailuresMax: 2,
    usageMs: 2000,
    closeMsMax: 10_000,
    hooks: {},
    readSilicon: () => ({}),
    ...given,
    limits: { ...defaultDeviceLimits, ...given.limits },
  };
}
