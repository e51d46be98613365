/**
 * Messages of the device actor: one a device. It owns the device's executor, the sessions loaded on it, their memory,
 * the queues of the models it serves, and its permits. A batch is formed only when a permit is free.
 */
import type { DeviceDescriptor } from '#core/device.js';
import type { IntarsiaError } from '#core/errors.js';
import type { ArtifactDigest, ModelName, ModelVersion, RequestId } from '#core/ids.js';
import type { InferenceOutcome, InferenceRequest, QueueView } from '#core/inference.js';
import type { ModelConfig } from '#core/model-config.js';
import type { ModelStatistics } from '#core/model-statistics.js';
import type { OptimizationLevel } from '#core/provider.js';
import type { Tensor, TensorSpec } from '#core/tensor.js';
import type { VariantExam } from '#core/variants/variant-difference.js';
import type { ReplyTo } from '#runtime/actor.js';

/** A model version to be loaded on this device. */
export interface Placement {
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly config: ModelConfig;
  readonly artifact: { readonly digest: ArtifactDigest; readonly path: string };
  /** Bytes of weights in the artefact, external data included: the base of the memory estimate. */
  readonly weightBytes: number;
  /** Inputs and outputs of the artefact itself, from its own metadata, controls and states included. */
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
  readonly optimization: OptimizationLevel;
  /** Name of the variant that the artefact is; absent: the exact model. */
  readonly variant?: string;
  /** Of a variant: what the comparison with the exact model gave, in one line. */
  readonly variantGate?: string;
  /** Of a variant: what it must answer here before it is ready. Absent: what was compared elsewhere counts. */
  readonly exam?: VariantExam;
  /** What the server of a remote device calls it; absent: as the model is called here. */
  readonly remoteModel?: { readonly name: string; readonly version: string };
  /** Of a variant: the digest of the exact model, by which its version is known. */
  readonly exactDigest?: ArtifactDigest;
  /** The configured warm-ups, run before the model counts as ready. Without one the device makes a trial run by itself. */
  readonly warmups: readonly { readonly name: string; readonly inputs: readonly Tensor[] }[];
}

export type LoadOutcome =
  | { readonly ok: true; readonly loadMs: number; readonly memoryBytes: number; readonly notes: readonly string[] }
  | { readonly ok: false; readonly error: IntarsiaError };

export type DeviceMessage =
  /** Queue a request. Exactly one outcome is told to `replyTo`, whatever happens. */
  | { readonly type: 'infer'; readonly request: InferenceRequest; readonly replyTo: ReplyTo<InferenceOutcome> }
  /** Nobody wants the answer any more: leave the queue at once. What already runs, runs on and its answer is dropped. */
  | {
      readonly type: 'cancel';
      readonly request: RequestId;
      readonly model: ModelName;
      readonly version: ModelVersion;
      /** Whoever asked is gone, and somebody else may ask for the same soon. Devices make no difference. */
      readonly lost?: true;
    }
  /** Load, warm up, run the canary; the reply comes when the model is ready here or has failed. */
  | { readonly type: 'load'; readonly placement: Placement; readonly replyTo: ReplyTo<LoadOutcome> }
  /** Take no new requests for this version, finish those that wait, free the session, then reply. */
  | {
      readonly type: 'unload';
      readonly model: ModelName;
      readonly version: ModelVersion;
      readonly replyTo: ReplyTo<{ readonly ok: true }>;
    }
  /** Refuse new requests; reply once nothing waits or runs. */
  | { readonly type: 'drain'; readonly replyTo: ReplyTo<{ readonly ok: true }> }
  | { readonly type: 'status'; readonly replyTo: ReplyTo<DeviceStatus> }
  /** Counts and durations since the start, of every version this device ever served. */
  | { readonly type: 'statistics'; readonly replyTo: ReplyTo<readonly VersionStatistics[]> };

export interface VersionStatistics {
  readonly model: ModelName;
  readonly version: ModelVersion;
  /** Bytes of the loaded session; 0 while there is none. */
  readonly memoryBytes: number;
  readonly statistics: ModelStatistics;
}

export type DeviceHealth = 'starting' | 'ready' | 'degraded' | 'failed' | 'draining';

export interface SessionStatus {
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly digest: ArtifactDigest;
  /** `failed`: it could not be loaded again after the executor was lost; the notes say why. */
  readonly state: 'loading' | 'ready' | 'evicted' | 'quarantined' | 'unloading' | 'failed';
  readonly memoryBytes: number;
  readonly notes: readonly string[];
  /** Of a variant: its name, and what its comparison with the exact model gave. */
  readonly variant?: string;
  readonly variantGate?: string;
}

export interface DeviceStatus {
  readonly device: DeviceDescriptor;
  readonly health: DeviceHealth;
  /** Why the health is not `ready`; empty otherwise. */
  readonly reason: string;
  readonly memoryUsedBytes: number;
  readonly permitsFree: number;
  readonly sessions: readonly SessionStatus[];
  readonly queues: readonly QueueView[];
  readonly executorRestarts: number;
  /** Share of the last interval with at least one run in the executor, 0 to 1. */
  readonly utilization: number;
  /** Watts and degrees Celsius where the system tells; absent otherwise. */
  readonly powerWatts?: number;
  readonly temperatureCelsius?: number;
}
