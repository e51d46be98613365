/**
 * The catalogue: every model version a host knows, with its state. Immutable; the model registry publishes a new one
 * whenever something changes, and the hot path reads whichever is current.
 */
import type { ArtifactDigest, DeviceId, ModelName, ModelVersion } from './ids.js';
import type { ModelConfig } from './model-config.js';
import type { SplitRoute } from './split/stage-route.js';
import type { SpreadStrategy } from './split/spread-rule.js';
import type { TensorSpec } from './tensor.js';

/** Triton's words for the repository index. */
export type ModelState = 'READY' | 'UNAVAILABLE' | 'LOADING' | 'UNLOADING';

/** One loaded version: what the gateway needs to check and to answer requests. */
export interface ServedModel {
  readonly name: ModelName;
  readonly version: ModelVersion;
  readonly config: ModelConfig;
  /** As on the API: with -1 in front when the model batches. Sequence controls and states are left out. */
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
  /** Names of inputs that may be left out. */
  readonly optionalInputs: ReadonlySet<string>;
  readonly digest: ArtifactDigest;
  /** Class labels by output name, for the classification extension. */
  readonly labels: ReadonlyMap<string, readonly string[]>;
  /** Devices of this host that it is loaded on, in order of preference. */
  readonly devices: readonly DeviceId[];
  /** Devices of other hosts that serve it, written `host/device`; absent outside of a grid. */
  readonly elsewhere?: readonly string[];
  /** Of a model that is served in pieces: how requests are run. `devices` and `elsewhere` are then of its first stage. */
  readonly split?: SplitRoute;
  /** What a deployment says of large requests; absent: what the configuration says. */
  readonly strategy?: SpreadStrategy;
  /** Of a piece of a model, which clients never see: what it is a piece of. */
  readonly part?: ModelPart;
}

/** What a piece of a split model tells of the whole, so that whoever knows its pieces can serve it. */
export interface ModelPart {
  readonly shard: number;
  readonly route: SplitRoute;
  readonly whole: Omit<ServedModel, 'devices' | 'elsewhere' | 'split' | 'strategy' | 'part'>;
}

export interface VersionStatus {
  readonly version: ModelVersion;
  readonly state: ModelState;
  /** Why it is unavailable, or `unloaded`. Empty when ready, but for a version whose reload failed: it serves as before. */
  readonly reason: string;
  /** It crashed executors again and again: kept out until it is loaded again. */
  readonly isQuarantined: boolean;
}

export interface CatalogEntry {
  readonly name: ModelName;
  /** Every version known, ascending. */
  readonly versions: readonly VersionStatus[];
  /** Versions that answer requests. */
  readonly served: ReadonlyMap<ModelVersion, ServedModel>;
  /** Version used when a request names none: the highest that is served. */
  readonly defaultVersion?: ModelVersion;
  /** Why the model as a whole is unavailable, such as an error in its configuration; empty otherwise. */
  readonly reason: string;
}

export interface Catalog {
  /** Grows with each publication. */
  readonly revision: number;
  readonly models: ReadonlyMap<ModelName, CatalogEntry>;
}

export const emptyCatalog: Catalog = { revision: 0, models: new Map() };
