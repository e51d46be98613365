/** What a host agent is given. */
import type { Catalog } from '#core/catalog.js';
import type { GridKeys } from '#core/grid/keys.js';
import type { DeviceId, HostId, ModelName, ModelVersion } from '#core/ids.js';
import type { ArtifactSource } from '#ports/artifact-source.js';
import type { SplitSpec } from '#core/split/split-spec.js';
import type { Store } from '#ports/store.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import type { MembershipMessage } from '#actors/membership/protocol.js';
import type { ModelRegistryMessage } from '#actors/model-registry/protocol.js';
import type { ActorRef } from '#runtime/actor.js';

export interface HostAgentOptions {
  readonly host: HostId;
  readonly store: Store;
  readonly keys: GridKeys;
  readonly membership: ActorRef<MembershipMessage>;
  readonly registry: ActorRef<ModelRegistryMessage>;
  readonly artifacts: Pick<ArtifactSource, 'ensure' | 'describe' | 'variants'>;
  /** To learn what loaded versions take. */
  readonly devices: readonly { readonly id: DeviceId; readonly ref: ActorRef<DeviceMessage> }[];
  /** Catalogue at the start; later ones come as messages. */
  readonly catalog: Catalog;
  /**
   * Called before the registry is asked for anything: models that deployments rule here. The repository's own files of
   * these are not to be served; the held ones are. `splits`: those of which shards are to be made here, by id.
   */
  readonly onRuled?: (models: ReadonlySet<ModelName>, splits: ReadonlyMap<string, SplitSpec>) => void;
  /** Whether the version is in the host's own repository, so that its manifest is published. Default: all that are served. */
  readonly isOwn?: (model: ModelName, version: ModelVersion) => boolean;
  /** Time for one call of the store, ms, default 5,000. */
  readonly callMs?: number;
  /** Least time between two publications, ms, default 200. */
  readonly publishMsMin?: number;
  /** A replica is told to leave for so long before it is unloaded, ms, default 2,000: gateways route elsewhere meanwhile. */
  readonly routeAwayMs?: number;
  /** First wait before what failed is tried again, ms, doubled up to the maximum. Defaults 1,000 and 60,000. */
  readonly retryMsMin?: number;
  readonly retryMsMax?: number;
  /** Longest time one model's files may take to come, ms, default 3,600,000. */
  readonly fetchMsMax?: number;
  /** Longest time the registry may take for one model, ms, default 900,000. */
  readonly imposeMsMax?: number;
}

export type CompleteAgentOptions = Required<HostAgentOptions>;

export function completeAgent(options: HostAgentOptions): CompleteAgentOptions {
  return {
    onRuled: () => {},
    isOwn: () => true,
    callMs: 5_000,
    publishMsMin: 200,
    routeAwayMs: 2_000,
    retryMsMin: 1_000,
    retryMsMax: 60_000,
    fetchMsMax: 3_600_000,
    imposeMsMax: 900_000,
    ...options,
  };
}
