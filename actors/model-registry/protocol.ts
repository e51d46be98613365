/**
 * Messages of the model registry: one a host. It turns what the repository holds and what operators ask for into loaded
 * versions on devices, and publishes the catalogue. A failed reload leaves the old version serving.
 */
import type { Catalog } from '#core/catalog.js';
import type { IntarsiaError } from '#core/errors.js';
import type { ArtifactDigest, DeviceId, ModelName, ModelVersion } from '#core/ids.js';
import type { ReplyTo } from '#runtime/actor.js';

/** What a load request may bring along: Triton's `config` and `file:<version>/<name>` parameters. */
export interface LoadOverrides {
  /** JSON text of a ModelConfig, instead of config.pbtxt. */
  readonly configJson?: string;
  /** Bytes by `<version>/<file>`; with them the model's folder is not read. */
  readonly files: ReadonlyMap<string, Uint8Array>;
}

export type RegistryOutcome = { readonly ok: true } | { readonly ok: false; readonly error: IntarsiaError };

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
  | { readonly type: 'catalog'; readonly replyTo: ReplyTo<Catalog> };
