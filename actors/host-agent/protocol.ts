/**
 * Messages of the host agent: one on each host with devices. It does what the controller assigned to this host and to its
 * present incarnation: gets the files, has the model registry load exactly that, and says in the store what is there.
 */
import type { Catalog } from '#core/catalog.js';
import type { DeviceId, ModelName, ModelVersion } from '#core/ids.js';
import type { ReplicaState } from '#core/grid/records.js';
import type { ReplyTo } from '#runtime/actor.js';

export interface AgentReplica {
  readonly deployment: string;
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly device: DeviceId;
  readonly state: ReplicaState;
  readonly reason: string;
  /** Of a shard: id of its split, and which one. */
  readonly split?: string;
  readonly shard?: number;
}

export interface AgentStatus {
  readonly replicas: readonly AgentReplica[];
  /** Models that deployments rule on this host. */
  readonly ruled: readonly ModelName[];
  /** Revision of the assignment that is carried out; 0 before the first. */
  readonly assignmentRevision: number;
}

export type HostAgentMessage =
  /** The registry has published another catalogue. */
  | { readonly type: 'catalog'; readonly catalog: Catalog }
  /** A device became degraded or failed, with the reason; empty: it is well again. */
  | { readonly type: 'device-health'; readonly device: DeviceId; readonly reason: string }
  | { readonly type: 'status'; readonly replyTo: ReplyTo<AgentStatus> };
