/** What the registry hears of, and what it wants done about it. */
import type { Catalog } from '#core/catalog.js';
import type { IntarsiaError } from '#core/errors.js';
import type { DeviceId, ModelName, ModelVersion } from '#core/ids.js';
import type { RepositoryListing } from '#ports/model-files.js';
import type { ReplyTo } from '#runtime/actor.js';
import type { ImposedDevices, PlacementResult } from './place-version.js';
import type { PreparedModel, PreparedVersion } from './prepare-model.js';
import type { ImposeOutcome, LoadOverrides, ModelRegistryMessage, RegistryOutcome } from './protocol.js';

export type RegistryEvent =
  | Exclude<ModelRegistryMessage, { readonly type: 'lend' }>
  /** The time between two looks has passed. */
  | { readonly type: 'poll' }
  | { readonly type: 'listed'; readonly listing: RepositoryListing }
  | { readonly type: 'list-failed'; readonly error: IntarsiaError }
  | {
      readonly type: 'prepared';
      readonly model: ModelName;
      readonly operation: number;
      readonly prepared: PreparedModel;
    }
  | {
      readonly type: 'prepare-failed';
      readonly model: ModelName;
      readonly operation: number;
      readonly error: IntarsiaError;
    }
  | {
      readonly type: 'placed';
      readonly model: ModelName;
      readonly operation: number;
      readonly prepared: PreparedVersion;
      readonly result: PlacementResult;
    }
  | { readonly type: 'removed'; readonly model: ModelName; readonly operation: number }
  | { readonly type: 'device-gone'; readonly device: DeviceId };

/** A version to be taken off devices. */
export interface Removal {
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly devices: readonly DeviceId[];
}

export type RegistryEffect =
  | { readonly type: 'publish'; readonly catalog: Catalog }
  | { readonly type: 'list' }
  | { readonly type: 'poll-later' }
  | {
      readonly type: 'prepare';
      readonly model: ModelName;
      readonly operation: number;
      readonly overrides: LoadOverrides;
      /** Versions to prepare; undefined: the configuration decides. */
      readonly imposed?: readonly ModelVersion[];
    }
  | {
      readonly type: 'place';
      readonly operation: number;
      readonly prepared: PreparedVersion;
      readonly previous: readonly DeviceId[];
      readonly imposed?: ImposedDevices;
    }
  | {
      readonly type: 'remove';
      readonly model: ModelName;
      readonly operation: number;
      readonly removals: readonly Removal[];
    }
  /** `replaced`: something may still need the files for a while. */
  | { readonly type: 'release'; readonly version: { release(): Promise<void> }; readonly replaced: boolean }
  | { readonly type: 'reply'; readonly to: ReplyTo<RegistryOutcome>; readonly outcome: RegistryOutcome }
  | { readonly type: 'reply-imposed'; readonly to: ReplyTo<ImposeOutcome>; readonly outcome: ImposeOutcome }
  | { readonly type: 'tell-catalog'; readonly to: ReplyTo<Catalog>; readonly catalog: Catalog }
  | { readonly type: 'log'; readonly level: 'info' | 'warn'; readonly message: string; readonly model?: ModelName };
