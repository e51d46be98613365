/** What the registry knows about one model. */
import type { CatalogEntry, ModelState, ServedModel, VersionStatus } from '#core/catalog.js';
import type { IntarsiaError } from '#core/errors.js';
import type { DeviceId, ModelName, ModelVersion } from '#core/ids.js';
import type { ModelListing } from '#ports/model-files.js';
import type { ReplyTo } from '#runtime/actor.js';
import type { ImposeFailure, ImposeOutcome, LoadOverrides, RegistryOutcome } from './protocol.js';

/** A version that devices have. */
export interface LoadedVersion {
  readonly served: ServedModel;
  /** What it was made from; empty once a device has lost it, so that the next load brings it back there. */
  readonly identity: string;
  /** Names of the variants that devices have, empty for the exact model; of devices that only ever had it, absent. */
  readonly forms: ReadonlyMap<DeviceId, string>;
  release(): Promise<void>;
}

export interface VersionEntry {
  state: ModelState;
  reason: string;
  /** Never while devices have it. */
  isQuarantined: boolean;
  /** Set exactly while devices have it; it takes requests while the state is READY too. */
  loaded: LoadedVersion | undefined;
}

/** A scan that waits for the loads and unloads it started. */
export interface PendingScan {
  readonly replies: readonly ReplyTo<RegistryOutcome>[];
  open: number;
}

/** Something asked for one model; at most one is carried out at a time, the others wait in order. */
export interface ModelRequest {
  /** `forget`: the folder is gone. `restore`: nothing is imposed any more. */
  readonly kind: 'load' | 'unload' | 'forget' | 'restore';
  readonly overrides: LoadOverrides;
  readonly replyTo: ReplyTo<RegistryOutcome> | undefined;
  readonly scan: PendingScan | undefined;
  /** Of a message `impose`. */
  readonly impose?: { readonly replyTo: ReplyTo<ImposeOutcome>; readonly failures: ImposeFailure[] };
}

/** Versions that are imposed on the registry, their devices, and which variant a device is to have. */
export type ImposedVersions = ReadonlyMap<ModelVersion, readonly DeviceId[]>;
export type ImposedForms = ReadonlyMap<ModelVersion, ReadonlyMap<DeviceId, string>>;

export interface Operation {
  readonly id: number;
  readonly request: ModelRequest;
  /** What was imposed when it began. */
  readonly imposed: ImposedVersions | undefined;
  readonly forms: ImposedForms;
  /** Versions the policy selects; undefined until the model is read. */
  selected: ReadonlySet<ModelVersion> | undefined;
  /** Versions that devices are loading. */
  readonly placing: Set<ModelVersion>;
  readonly errors: Map<ModelVersion, IntarsiaError>;
  /** Versions being taken off their devices. */
  removing: boolean;
}

export class ModelEntry {
  readonly name: ModelName;
  readonly versions = new Map<ModelVersion, VersionEntry>();
  /** As the last look found it; undefined when the repository does not have it. */
  listing: ModelListing | undefined;
  /** Fingerprint of the files that were last tried; empty when none were or a new try is worth it. */
  tried = '';
  reason = '';
  /** Where its versions are to be, by somebody else's word; undefined: the registry decides. */
  imposed: ImposedVersions | undefined;
  imposedForms: ImposedForms = new Map();
  running: Operation | undefined;
  readonly waiting: ModelRequest[] = [];

  constructor(name: ModelName) {
    this.name = name;
  }

  get isLoaded(): boolean {
    for (const { loaded } of this.versions.values()) if (loaded !== undefined) return true;
    return false;
  }

  version(version: ModelVersion): VersionEntry {
    let entry = this.versions.get(version);
    if (entry === undefined) {
      entry = { state: 'UNAVAILABLE', reason: '', isQuarantined: false, loaded: undefined };
      this.versions.set(version, entry);
    }
    return entry;
  }

  /** The versions without a session, in this state; the others keep theirs. */
  markUnloaded(state: ModelState, reason: string): void {
    for (const entry of this.versions.values()) {
      if (entry.loaded !== undefined) continue;
      entry.state = state;
      entry.reason = reason;
      entry.isQuarantined = false;
    }
  }

  /** What the catalogue says. */
  view(): CatalogEntry {
    const ascending = [...this.versions].sort(([a], [b]) => Number(a) - Number(b));
    const served = new Map<ModelVersion, ServedModel>();
    const versions: VersionStatus[] = [];
    for (const [version, { state, reason, isQuarantined, loaded }] of ascending) {
      versions.push({ version, state, reason, isQuarantined });
      if (state === 'READY' && loaded !== undefined) served.set(version, loaded.served);
    }
    const defaultVersion = [...served.keys()].at(-1);
    const { name, reason } = this;
    return { name, versions, served, reason, ...(defaultVersion === undefined ? {} : { defaultVersion }) };
  }
}
