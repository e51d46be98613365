/**
 * What hosts of a grid tell each other through the store: records under fixed keys, written as JSON with a version number.
 *
 * | key                                         | written by                     | ends with            |
 * | ------------------------------------------- | ------------------------------ | -------------------- |
 * | `members/hosts/<host>`                      | that host                      | its lease            |
 * | `members/orders/<host>`                     | operators (cordon, drain)      | an operator's word   |
 * | `members/votes/<host>/<generation>/<voter>` | hosts that cannot reach it     | the voter's lease    |
 * | `actual/<host>`                             | that host                      | its lease            |
 * | `leader`                                    | whoever is elected             | its lease            |
 * | `deployments/<name>`                        | operators                      | an operator's word   |
 * | `rollouts/<name>`                           | the leader                     | its deployment       |
 * | `assignments/<host>`                        | the leader, fenced             | the leader's word    |
 * | `models/<model>/<version>`                  | a host that holds the files    | an operator's word   |
 * | `served/<fingerprint>`                      | whoever serves it first        | the leader's sweep   |
 * | `verifications/<model>/<version>/<split>`   | the host that checked a split  | an operator's word   |
 * | `verifications/<model>/…/variant:<name>`    | a host that holds the files    | an operator's word   |
 * | `stages/<host>`                             | that host                      | the next text        |
 * | `demand/<host>`                             | that host                      | the next text        |
 * | `events/<slot>`                             | the leader, fenced; promotions | a later event        |
 * | `policies/current`                          | operators, gateways            | an operator's word   |
 * | `policies/versions/<id>`, `…/artefacts/…`   | operators                      | a later version      |
 * | `policies/sightings/<host>`                 | that host                      | the next trial       |
 *
 * What makes a view is under one prefix, `members/`, and so in one watch: views are ordered by its revisions.
 * All keys begin with the grid's prefix, `/intarsia/<grid>/`; keys.ts makes them.
 */
import type { ArtifactDigest, DeviceId, HostId, ModelName, ModelVersion } from '../ids.js';
import type { SplitSpec } from '../split/split-spec.js';
import type { SpreadStrategy } from '../split/spread-rule.js';
import type { PlacementConstraints, Tier } from './constraints.js';

export type { PlacementConstraints, Tier };

/** One incarnation of a host: larger than every earlier one of the same name. The create revision of its record. */
export type Generation = number;

/** What a host is, as it registers. Changes of load, health and replicas are elsewhere. */
export interface HostRecord {
  readonly format: 1;
  readonly host: HostId;
  /** Random text of this process: tells a host from another one that was given the same name. */
  readonly process: string;
  /** `address:port` where other hosts reach its links. */
  readonly linkAddress: string;
  /** `address:port` of its gRPC and `http(s)://…` of its HTTP endpoint for clients; empty when it is no gateway. */
  readonly grpcEndpoint: string;
  readonly httpEndpoint: string;
  /** `host`: devices and gateway. `gateway`: only that. */
  readonly role: 'host' | 'gateway';
  readonly softwareVersion: string;
  /** Oldest and newest version of the link protocol it speaks. */
  readonly linkVersions: readonly [number, number];
  readonly tier: Tier;
  readonly zone: string;
  readonly labels: Readonly<Record<string, string>>;
  /** May be taken away at any time, by the operator's word. */
  readonly spot: boolean;
  readonly devices: readonly GridDevice[];
  /** Takes no new work and will leave. Absent: false. */
  readonly draining?: boolean;
}

/** A device as the grid sees it: a digest of its descriptor, enough to place and to route. */
export interface GridDevice {
  readonly id: DeviceId;
  readonly provider: string;
  /** Key of its hardware profile; empty when there is none. */
  readonly profile: string;
  readonly emulated: boolean;
  /** Bytes that models may take. */
  readonly memoryBytes: number;
  /** Relative speed where nothing was measured: 1 is a core of a CPU; from the profile. */
  readonly speed: number;
  /** US dollars per hour; 0 when unknown. */
  readonly pricePerHour: number;
  /** What the silicon is called, and threads of one run: for plans. Absent from hosts of earlier versions. */
  readonly name?: string;
  readonly threads?: number;
  /** Engine of a CPU, such as `onnxruntime-node 1.30.0`: some variants are for one only. */
  readonly engine?: string;
}

/** A host in a view: its record and what the store says about it. */
export interface ViewHost {
  readonly record: HostRecord;
  readonly generation: Generation;
  /** `draining`: takes no new work; `suspected`: its peers cannot reach it; neither is in the picker. */
  readonly state: 'up' | 'suspected' | 'draining';
  readonly cordoned: boolean;
}

/** Ordered membership: the same revision has the same hosts everywhere. */
export interface View {
  readonly revision: number;
  readonly hosts: ReadonlyMap<HostId, ViewHost>;
}

export const emptyView: View = { revision: 0, hosts: new Map() };

/** What a replica does on a host right now. */
export type ReplicaState = 'fetching' | 'loading' | 'ready' | 'failed' | 'unloading';

/** A model version on one device of a host. */
export interface ActualReplica {
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly device: DeviceId;
  readonly state: ReplicaState;
  /** Why it failed; empty otherwise. */
  readonly reason: string;
  readonly digest: ArtifactDigest | '';
  readonly memoryBytes: number;
  /** Fingerprint of what a gateway must know to take requests for it, found under `served/`. Absent until it is ready. */
  readonly facts?: string;
  /** Of a variant in place of the exact model: its name, and what its comparison with the exact model gave. */
  readonly variant?: string;
  readonly variantGate?: string;
  /** The deployment it was assigned by; empty for a model of the host's own repository. */
  readonly deployment: string;
  /** Of a shard: id of its split, and which one. Absent for a whole model. */
  readonly split?: string;
  readonly shard?: number;
}

export interface HostActual {
  readonly format: 1;
  readonly host: HostId;
  /** Revision of the assignment that this answers; 0 before the first. */
  readonly assignmentRevision: number;
  readonly replicas: readonly ActualReplica[];
  /** Devices out of service, with the reason. */
  readonly degraded: Readonly<Record<string, string>>;
}

export interface HostOrder {
  readonly format: 1;
  /** No new replicas are placed there. */
  readonly cordoned: boolean;
  /** Everything is moved away. */
  readonly draining: boolean;
  /** Wall clock, ms since 1970, by which a drain must be over; 0 without one. */
  readonly deadlineWallMs: number;
  readonly reason: string;
}

/** Desired state: what an operator wants served. */
export interface Deployment {
  readonly format: 1;
  readonly name: string;
  readonly model: ModelName;
  readonly version: ModelVersion;
  /** Copies in all; or per tier. Exactly one of the two. */
  readonly replicas?: number;
  readonly replicasPerTier?: Readonly<Partial<Record<Tier, number>>>;
  readonly constraints: PlacementConstraints;
  /** Copies are spread over different … as far as possible. Default `host`. */
  readonly spread: 'host' | 'zone' | 'none';
  /** Bytes one copy takes on a device; 0: the model's own estimate. */
  readonly memoryBytes: number;
  readonly rollout: {
    /** Copies of the new version that may start beside the old ones at a time, 1 to 100, default 1. */
    readonly surge: number;
    /** Milliseconds a new copy has to become ready before the rollout goes back by itself, default 300,000. */
    readonly progressMsMax: number;
  };
  /** Served in pieces; absent: whole. */
  readonly split?: SplitSpec;
  /** What becomes of large requests; absent: what the model's configuration says. */
  readonly strategy?: SpreadStrategy;
  /** The leader decides by demand how many copies there are and where: `replicas` and `constraints` are its words then. */
  readonly residency?: DeploymentResidency;
}

export interface DeploymentResidency {
  /** Copies, 1 to 100 each. */
  readonly min: number;
  readonly max: number;
  /** Only says what would be better. Absent: false. */
  readonly advise?: boolean;
  /** As the operator has them; the leader's hold besides. */
  readonly constraints: PlacementConstraints;
}

/** One replica that the leader wants on a host. */
export interface AssignedReplica {
  readonly deployment: string;
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly device: DeviceId;
  /** Number of the copy within its deployment, never used again: whoever serves in its place has another one. */
  readonly replica: number;
  /** Which piece of the model, from 0; a whole model is one. All shards of a copy are assigned, or none. */
  readonly shard: number;
  /** Of a piece: the split it is of. */
  readonly split?: SplitSpec;
  /** A further replica of this shard alone, of no copy: it takes over where a copy's shard is lost. */
  readonly standby?: true;
  /** Of a whole model: which form the device is to have. Absent: the host chooses. */
  readonly form?: AssignedForm;
}

/** A form of a model, as the leader chose it for a device. */
export interface AssignedForm {
  /** Name of a variant; empty: the exact model. */
  readonly variant: string;
  /** Why this one; empty when there is nothing to say. */
  readonly reason: string;
}

export interface HostAssignment {
  readonly format: 1;
  readonly host: HostId;
  /** The host's incarnation it was made for; another one ignores it. */
  readonly generation: Generation;
  /** Create revision of the leader's key: the fence. */
  readonly epoch: number;
  readonly replicas: readonly AssignedReplica[];
  /** Models of the host's own repository that it no longer serves by itself: a deployment serves them elsewhere. */
  readonly withdrawn: readonly ModelName[];
}

/** A model version as deployments name it, whole or in certain pieces: another split is another edition. */
export interface Edition {
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly split?: SplitSpec;
}

/** How far a deployment has come. Kept in the store so that a new leader goes on where the old one ended. */
export interface RolloutRecord {
  readonly format: 1;
  readonly deployment: string;
  /** Revision of the deployment that this answers: applying the same text again tries again. */
  readonly deploymentRevision: number;
  /** What served last when all its copies were ready; a rollback goes back to it. Absent before the first success. */
  readonly stable?: Edition;
  readonly target: Edition;
  /**
   * `progressing`: copies of the target are being started. `complete`: all are ready, or were once. `rolled-back`: the
   * target failed and the stable edition serves. `stalled`: it failed and there is nothing to go back to; it goes on trying.
   */
  readonly phase: 'progressing' | 'complete' | 'rolled-back' | 'stalled';
  /** Why it is not complete, or which copies are missing; empty otherwise. */
  readonly reason: string;
  /** Most copies of the target that were ready at once in this rollout. */
  readonly readyMost: number;
  /** Milliseconds without progress, as far as they were written down: a new leader counts on from here. */
  readonly waitedMs: number;
  /** Number that the next copy gets. */
  readonly nextReplica: number;
  /** The deployment was taken back. Kept so that hosts that were away then give their copies up when they return. */
  readonly removed?: true;
  /** As the deployment has it: for gateways. */
  readonly strategy?: SpreadStrategy;
}

/** Something an operator may want to know, in a ring of `gridEventsMax` keys. */
export interface GridEvent {
  readonly format: 1;
  /** Grows by one with each event. */
  readonly sequence: number;
  readonly wallMs: number;
  readonly level: 'info' | 'warn';
  /** What it is about, such as `deployment digits` or `host a`. */
  readonly subject: string;
  readonly text: string;
}

export const gridEventsMax = 512;

/**
 * What a gateway must know of a served version to check requests: the same for all hosts that serve the same artefact with
 * the same configuration, hence stored once, under a fingerprint of its content. Never changed; see served-facts.ts.
 */
export interface ServedRecord {
  readonly format: 1;
  /** The facts as tagged JSON. */
  readonly facts: string;
}

/** A model version as files, so that hosts without a repository can serve it. */
export interface ModelManifest {
  readonly format: 1;
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly digest: ArtifactDigest;
  /** Estimate of one loaded copy, bytes. */
  readonly memoryBytes: number;
  /** Every file of the model's folder that is needed, `config.pbtxt` included, by path inside the folder. */
  readonly files: readonly { readonly path: string; readonly bytes: number; readonly sha256: string }[];
}
