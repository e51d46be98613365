/**
 * Messages of the model registry: one a host. It turns what the repository holds and what operators ask for into loaded
 * versions on devices, and publishes the catalogue. A failed reload leaves the old version serving.
 */
import type { Catalog } from '#core/catalog.js';
import type { IntarsiaError } from '#core/errors.js';
import type { ArtifactDigest, DeviceId, ModelName, ModelVersion } from '#core/ids.js';
import type { Placement } from '#actors/device/protocol.js';
import type { ReplyTo } from '#runtime/actor.js';

/** What a load request may bring along: Triton's `config` and `file:<version>/<name>` parameters. */
export interface LoadOverrides {
  /** JSON text of a ModelConfig, instead of config.pbtxt. */
  readonly configJson?: string;
  /** Bytes by `<version>/<file>`; with them the model's folder is not read. */
  readonly files: ReadonlyMap<string, Uint8Array>;
}

export type RegistryOutcome = { readonly ok: true } | { readonly ok: false; readonly error: IntarsiaError };

/** A version, or one device of it, that could not be brought to where it was imposed. */
export interface ImposeFailure {
  readonly version: ModelVersion;
  /** Undefined: it failed before any device was asked. */
  readonly device: DeviceId | undefined;
  readonly error: IntarsiaError;
}

export interface ImposeOutcome {
  /** Empty: everything is where it was imposed and nowhere else. */
  readonly failures: readonly ImposeFailure[];
  /** Why it was not tried at all. */
  readonly error?: IntarsiaError;
}

/** A version prepared to be loaded by somebody beside the registry. */
export type LendOutcome =
  | {
      readonly ok: true;
      /** Of the exact model, or of the shard that goes by that name. */
      readonly placement: Placement;
      /** Whoever gets it calls this when it is loaded nowhere any more. */
      release(): Promise<void>;
    }
  | { readonly ok: false; readonly error: IntarsiaError };

export type ModelRegistryMessage =
  | {
      readonly type: 'load';
      readonly model: string;
      readonly overrides: LoadOverrides;
      readonly replyTo: ReplyTo<RegistryOutcome>;
    }
  /** A device has put a version out of service, through the version's own fault. */
  | {
      readonly type: 'version-out';
      readonly device: DeviceId;
      readonly model: ModelName;
      readonly version: ModelVersion;
      readonly digest: ArtifactDigest;
      readonly error: IntarsiaError;
    }
  | { readonly type: 'unload'; readonly model: string; readonly replyTo: ReplyTo<RegistryOutcome> }
  /** Look at the repository again: modes `none` (once, at start) and `poll`. */
  | { readonly type: 'scan'; readonly replyTo: ReplyTo<RegistryOutcome> }
  /**
   * From now on exactly these versions of the model are loaded, each on exactly these devices, whatever its configuration,
   * the residency policy and the mode say; none: it is not served. Undefined: the model is the registry's own again.
   * `forms`: variants that devices are to have, by name, empty for the exact model; elsewhere the registry chooses.
   * Devices that have a version in that form already keep it untouched. Answered when everything was loaded or has failed.
   */
  | {
      readonly type: 'impose';
      readonly model: ModelName;
      readonly versions: ReadonlyMap<ModelVersion, readonly DeviceId[]> | undefined;
      readonly forms: ReadonlyMap<ModelVersion, ReadonlyMap<DeviceId, string>>;
      readonly replyTo: ReplyTo<ImposeOutcome>;
    }
  /** Prepares a version as its files are here now, for somebody beside the registry. Changes nothing that is served. */
  | {
      readonly type: 'lend';
      readonly model: ModelName;
      readonly version: ModelVersion;
      readonly replyTo: ReplyTo<LendOutcome>;
    }
  | { readonly type: 'catalog'; readonly replyTo: ReplyTo<Catalog> };
