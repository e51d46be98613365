/**
 * Where a host gets the files of a model from that it was told to serve: its own repository, its cache, another host.
 *
 * Promises:
 * - A held model's files are on this machine, have the manifest's SHA-256, and stay until it is released, whatever the
 *   cache throws out and whatever other hosts do. `ModelFiles.open` of this host finds the model from then on.
 * - Several fetches of one file are one transfer. What was transferred before a failure, a cancellation or a crash is not
 *   transferred again.
 * - Bytes of other hosts are used only after their SHA-256 is the manifest's; a host that sent others is not asked again.
 * - Failures: UNAVAILABLE (nobody who can be reached holds a file; retryable), STORAGE_FULL (names the folder, or the
 *   cache's bound), DEADLINE_EXCEEDED, CANCELLED, INVALID_ARGUMENT (a manifest that breaks its rules).
 */
import type { ModelManifest } from '#core/grid/records.js';
import type { DescribedVariant } from '#core/grid/variant-verification.js';
import type { HostId, ModelName, ModelVersion } from '#core/ids.js';

export interface FetchProgress {
  readonly filesDone: number;
  readonly filesTotal: number;
  /** Bytes on this machine, those of a file under way included. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
  /** Bytes that came from other hosts. */
  readonly bytesReceived: number;
}

export interface FetchOptions {
  /** Moment on the monotonic clock, ms, by which it must be done; Infinity for none. */
  readonly deadlineMs: number;
  /** Called now and then while bytes arrive, never synchronously and never after the end. */
  readonly onProgress?: (progress: FetchProgress) => void;
}

/** A model whose files are here. */
export interface HeldModel {
  readonly manifest: ModelManifest;
  /** Lets the cache throw the files out when it needs room. Further calls do nothing. */
  release(): Promise<void>;
}

export interface ModelFetch {
  readonly held: Promise<HeldModel>;
  /** Makes `held` fail with CANCELLED, unless it has ended. Others who want the same files are not disturbed. */
  cancel(): void;
}

export interface ArtifactSource {
  /** Makes the model's files be here. */
  ensure(manifest: ModelManifest, options: FetchOptions): ModelFetch;
  /** Manifest of a model version of this host's own repository, to be published; undefined when it has no such version. */
  describe(model: ModelName, version: ModelVersion): Promise<ModelManifest | undefined>;
  /** Of such a version: its variants that were compared with it and that its configuration allows. */
  variants(model: ModelName, version: ModelVersion): Promise<readonly DescribedVariant[]>;
  /** Frees what it holds; transfers under way fail with CANCELLED. */
  close(): Promise<void>;
}

/** Another host that may hold files, as far as this one knows. */
export interface ArtifactPeer {
  readonly host: HostId;
  /** `address:port` of its links. */
  readonly linkAddress: string;
  readonly zone: string;
  /** It runs on this machine. */
  readonly sameMachine: boolean;
  /** Round-trip time, ms; Infinity when it was not measured. */
  readonly rttMs: number;
  /** It says that it serves the model, so it holds the files. */
  readonly serves: boolean;
}

/** Who may hold a model's files now. Asked again whenever a transfer looks for a holder. */
export type ArtifactPeers = (manifest: ModelManifest) => readonly ArtifactPeer[];

/** One file's bytes on their way, in order and without gaps. */
export interface TransferSink {
  /** Takes a piece. The sender waits for it: this is the flow control. */
  write(bytes: Uint8Array): Promise<void>;
}

export interface TransferCall {
  readonly done: Promise<void>;
  cancel(): void;
}

/** The way to other hosts' files. */
export interface ArtifactTransfer {
  /** Which of these SHA-256 the peer holds and gives. @throws UNAVAILABLE … */
  holds(peer: ArtifactPeer, sha256s: readonly string[], timeoutMs: number): Promise<ReadonlySet<string>>;
  /**
   * Streams a file from an offset to its end into the sink.
   * `done` fails with UNAVAILABLE when the peer goes silent for longer than its idle limit, NOT_FOUND when it does not hold
   * the file, RESOURCE_EXHAUSTED when it gives to as many as it may already, or the sink's own failure.
   */
  fetch(peer: ArtifactPeer, sha256: string, offset: number, sink: TransferSink): TransferCall;
  close(): void;
}

/** A file that this host gives to others, open for reading. */
export interface GivenFile {
  readonly bytes: number;
  /** Up to `length` bytes from an offset; shorter only at the end. */
  read(offset: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** What this host gives: files of published manifests that it holds, found by SHA-256 and by nothing else. */
export interface ArtifactShelf {
  holds(sha256: string): Promise<boolean>;
  /** @throws NOT_FOUND when it is not held or belongs to no published manifest. */
  open(sha256: string): Promise<GivenFile>;
}
