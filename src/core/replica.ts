/**
 * A replica: one copy of a model version, as a chain of shards. A whole model is a replica with one shard, so that
 * splitting a model changes nothing for queues, batches or routing: a request waits at the device of the first stage.
 */
import type { ArtifactDigest, DeviceId, HostId, ModelName, ModelVersion, ReplicaId } from './ids.js';

export interface Stage {
  /** The shard's artefact; the whole model's for a replica with one shard. */
  readonly digest: ArtifactDigest;
  readonly host: HostId;
  readonly device: DeviceId;
}

export interface Replica {
  readonly id: ReplicaId;
  readonly model: ModelName;
  readonly version: ModelVersion;
  /** At least one. */
  readonly stages: readonly Stage[];
}

/**
 * Live figures of a replica's first device, kept by whoever sends to it. The only mutable thing a picker reads:
 * the sender counts what it has in flight itself, so that it does not wait for news to know what it just did.
 */
export interface ReplicaLoad {
  /** Items sent and not answered. */
  itemsInFlight: number;
  /** Exponentially weighted mean of service time, ms per item; 0 before the first answer. */
  msPerItem: number;
  /** False while the device is restarting, draining or failed its canary. */
  ready: boolean;
}
