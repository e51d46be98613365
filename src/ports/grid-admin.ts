/**
 * What a grid tells clients and operators through any of its gateways: the door between the gRPC service of proto/grid.proto
 * and whoever knows membership, store and controller.
 *
 * Promises: `discover` answers from what this host knows, without waiting; the others may ask the store and throw
 * STORE_UNAVAILABLE, NOT_FOUND, INVALID_ARGUMENT, FAILED_PRECONDITION. A listener is called soon and never synchronously,
 * each time with the whole; the function that comes back ends it.
 */
import type { Caller } from './inference-gateway.js';
import type { PolicyAdmin } from './policy-admin.js';

export interface GridGateway {
  readonly host: string;
  /** `host:port`; empty for none. */
  readonly grpcEndpoint: string;
  readonly httpEndpoint: string;
  readonly role: string;
  readonly zone: string;
  readonly tier: string;
  readonly state: string;
}

export interface GridHosts {
  readonly grid: string;
  readonly revision: number;
  readonly gateways: readonly GridGateway[];
}

export interface GridDeviceStatus {
  readonly id: string;
  readonly provider: string;
  readonly profile: string;
  readonly emulated: boolean;
  readonly memoryBytes: number;
  readonly memoryUsedBytes: number;
  readonly pricePerHour: number;
  readonly queued: number;
  readonly inFlight: number;
  readonly degraded: string;
  /** Empty and 0 where the host does not say. */
  readonly name: string;
  readonly threads: number;
}

export interface GridHostStatus extends GridGateway {
  readonly cordoned: boolean;
  readonly generation: number;
  readonly spot: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly softwareVersion: string;
  readonly linkAddress: string;
  readonly devices: readonly GridDeviceStatus[];
  /** From the host that was asked, ms; 0 when unknown. */
  readonly roundTripMs: number;
  readonly degraded: string;
}

export interface GridReplicaStatus {
  readonly model: string;
  readonly version: string;
  readonly host: string;
  readonly device: string;
  readonly state: string;
  readonly reason: string;
  readonly memoryBytes: number;
  readonly deployment: string;
  /** Of a piece of a model: which stage, from 1, of how many, and of which split; 0 and empty for a whole model. */
  readonly stage: number;
  readonly stages: number;
  readonly split: string;
  readonly standby: boolean;
  /** Name of the variant that serves in place of the exact model, and what the two were found to be; empty for the exact one. */
  readonly variant: string;
  readonly variantGate: string;
}

export interface GridDeploymentStatus {
  readonly name: string;
  readonly model: string;
  readonly version: string;
  readonly wanted: number;
  readonly ready: number;
  readonly state: string;
  readonly reason: string;
  /** What the equivalence gate found of its split, in one line; empty for a whole model. */
  readonly gate: string;
}

export interface GridStatus {
  readonly grid: string;
  readonly revision: number;
  /** The host that answers, and the leader; empty when there is none. */
  readonly host: string;
  readonly leader: string;
  readonly store: string;
  readonly storeConnected: boolean;
  readonly hosts: readonly GridHostStatus[];
  readonly replicas: readonly GridReplicaStatus[];
  readonly deployments: readonly GridDeploymentStatus[];
}

export interface GridEventLine {
  readonly number: number;
  /** Milliseconds since 1970. */
  readonly wallMs: number;
  readonly level: string;
  readonly subject: string;
  readonly text: string;
}

export interface DeployOutcome {
  readonly name: string;
  readonly differences: readonly string[];
  readonly refusals: readonly string[];
  readonly applied: boolean;
  /** Where its copies are or would go, one line for each copy or stage. */
  readonly placements: readonly string[];
}

/** A deployment with the split it wanted, made and compared. */
export interface PreparedSplit {
  /** For `deploy`. */
  readonly deploymentJson: string;
  /** Why it is refused, with the numbers; empty when it is not. */
  readonly refusal: string;
  /** One line for each stage. */
  readonly stages: readonly string[];
  /** What the comparison gave, in one line, and as JSON; empty when nothing was compared. */
  readonly verdict: string;
  readonly verificationJson: string;
}

/** What plans ask of a grid beside its hosts. */
export interface GridProfiles {
  /** Lists of profile records as JSON, one a host, as they were published: whoever reads them checks them. */
  readonly recordsJson: readonly string[];
  /** Versions whose file has the digest. */
  readonly models: readonly { readonly model: string; readonly version: string }[];
}

/** Who asks, and until when (monotonic ms; Infinity without a deadline). */
export interface GridCall {
  readonly caller: Caller;
  readonly deadlineMs: number;
}

export interface GridEventListener {
  event(event: GridEventLine): void;
  /** No more will come: all that were kept were told and nothing was to be followed, or something failed. */
  end(error?: unknown): void;
}

export interface GridAdmin extends PolicyAdmin {
  discover(): GridHosts;
  watchHosts(listener: (hosts: GridHosts) => void): () => void;
  status(call: GridCall): Promise<GridStatus>;
  watchEvents(options: { readonly after: number; readonly follow: boolean }, listener: GridEventListener): () => void;
  deploy(
    request: { readonly deploymentJson: string; readonly dryRun: boolean },
    call: GridCall,
  ): Promise<DeployOutcome>;
  /**
   * Makes the split that a deployment wants on this host, and compares it with the whole model.
   * @throws INVALID_ARGUMENT, UNIMPLEMENTED (a host that cannot), RESOURCE_EXHAUSTED (one is being compared here already).
   */
  prepareSplit(
    request: { readonly deploymentJson: string; readonly dryRun: boolean },
    call: GridCall,
    onProgress: (share: number, words: string) => void,
  ): Promise<PreparedSplit>;
  profiles(request: { readonly digest: string }, call: GridCall): Promise<GridProfiles>;
  undeploy(request: { readonly name: string }, call: GridCall): Promise<{ readonly replicas: number }>;
  order(
    request: {
      readonly host: string;
      readonly order: 'cordon' | 'uncordon' | 'drain';
      readonly reason: string;
      readonly withinMs: number;
    },
    call: GridCall,
  ): Promise<{ readonly cordoned: boolean; readonly draining: boolean }>;
}
