/**
 * The model repository as the host reads it: folders of models, Triton's layout.
 *
 *     <repository>/<model>/config.pbtxt              optional
 *     <repository>/<model>/<version>/model.onnx      and its external data beside it
 *     <repository>/<model>/<version>/variants/<name>/model.onnx, variant.json
 *     <repository>/<model>/<label file>, warmup/<file>, initial_state/<file>
 *
 * Promises:
 * - Nothing outside the repository can be read through it: not by `..`, not by links, not by exchanging files while they
 *   are opened. A repository's own path may be a link.
 * - What is read is bounded in size and in number; the bound is in the message when it is met.
 * - An artefact's bytes are those that were hashed, for as long as it is held: what happens to the repository later does
 *   not reach it.
 * - Failures: MODEL_NOT_FOUND, NOT_FOUND (a file), MODEL_INVALID, STORAGE_FULL (names the path), UNAVAILABLE (a repository
 *   cannot be read now).
 */
import type { ArtifactDigest, ModelName, ModelVersion } from '#core/ids.js';
import type { ModelFacts } from '#core/onnx/model-facts.js';
import type { SplitSpec } from '#core/split/split-spec.js';

/** One model as a look at the repositories found it. */
export interface ModelListing {
  readonly name: ModelName;
  /** Ascending. */
  readonly versions: readonly ModelVersion[];
  /** Another text whenever a file of the model was added, removed or written. */
  readonly fingerprint: string;
  /** Why the model cannot be opened, such as two repositories having it; empty when it can. */
  readonly problem: string;
}

export interface RepositoryListing {
  /** By name. */
  readonly models: readonly ModelListing[];
  /** Folders that cannot be models, and why; one sentence each. */
  readonly notes: readonly string[];
}

/** A model file with its external data, held on this machine until it is released. */
export interface ModelArtifact {
  /** Of all its files: SHA-256 of the model file, or of the list of its files' digests when it has external data. */
  readonly digest: ArtifactDigest;
  /** Where an engine loads it from; external data lies beside it. */
  readonly path: string;
  readonly facts: ModelFacts;
  /** Every file with its size and SHA-256; the model file first. */
  readonly files: readonly { readonly name: string; readonly bytes: number; readonly sha256: string }[];
  /** Of a piece of a model: what it is a piece of. */
  readonly part?: ArtifactPart;
  /** Gives it back; the last holder's call frees its disk space. Further calls do nothing. */
  release(): Promise<void>;
}

/** What a piece of a model tells of the whole. */
export interface ArtifactPart {
  readonly model: ModelName;
  readonly shard: number;
  readonly split: SplitSpec;
  /** Of the whole model. */
  readonly digest: ArtifactDigest;
  readonly facts: ModelFacts;
  /** Names that each stage takes and gives, in order. */
  readonly stages: readonly { readonly inputs: readonly string[]; readonly outputs: readonly string[] }[];
}

/** A model's folder, opened. */
export interface ModelFolder {
  /** Ascending. */
  readonly versions: readonly ModelVersion[];
  /** Versions to serve, whatever the configuration's version policy says; absent: the policy decides. */
  readonly servedVersions?: readonly ModelVersion[];
  /** Content of config.pbtxt; undefined when there is none. */
  readonly configText: string | undefined;
  /** Reads, hashes and keeps the model file of a version. */
  artifact(version: ModelVersion, fileName: string): Promise<ModelArtifact>;
  /** Names of the folders in a version's `variants`; absent: this kind of folder has none. */
  variants?(version: ModelVersion): Promise<readonly string[]>;
  /** A file of the folder, such as `warmup/input.bin`. Path parts are joined by `/`. */
  bytes(path: string): Promise<Uint8Array>;
  /** Forgets what was brought along with a load request. */
  close(): Promise<void>;
}

export interface ModelFiles {
  list(): Promise<RepositoryListing>;
  /**
   * Opens a model's folder.
   * @param files Instead of what the repository holds: bytes by path inside the model's folder, such as `1/model.onnx`.
   */
  open(name: ModelName, files?: ReadonlyMap<string, Uint8Array>): Promise<ModelFolder>;
  /** Frees everything that is held on disk. */
  close(): Promise<void>;
}
