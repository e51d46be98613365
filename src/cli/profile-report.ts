/** What `intarsia profile` asks and is told: plain data between the command line and the program. */

export interface ProfileRequest {
  /** Path of the ONNX file. */
  readonly model: string;
  /** `cpu`, `wasm:0`, `emulated:nvidia-l4`; empty: every device of this machine. */
  readonly devices: readonly string[];
  readonly batches: readonly number[];
  /** Legal cuts between which pieces are measured. */
  readonly cuts: number;
  /** Timed runs of a shard at most, and milliseconds spent on them. */
  readonly repeat: number;
  readonly shardMs: number;
  /** Seconds for everything; what is left then is named. */
  readonly seconds: number;
  /** Folder of the profile database; empty for this user's. */
  readonly store: string;
  /** Name of this machine in records; empty: its host name. */
  readonly host: string;
  /** Parquet file that all records of the model are written to; empty for none. */
  readonly exportPath: string;
  readonly vectors: string;
  readonly profilesPath: string;
}

export interface ProfiledShard {
  readonly device: string;
  readonly provider: string;
  readonly engine: string;
  readonly emulated: boolean;
  /** Positions in the sorted graph; the whole model where these are all. */
  readonly from: number;
  readonly to: number;
  readonly batch: number;
  /** Timed runs. */
  readonly count: number;
  readonly meanMs: number;
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly minMs: number;
  /** Standard deviation by the mean. */
  readonly spread: number;
  readonly weightBytes: number;
  readonly peakActivationBytes: number;
  readonly loadedBytes: number;
  readonly inputBytes: number;
  readonly outputBytes: number;
}

export interface ProfiledNodes {
  readonly device: string;
  readonly batch: number;
  readonly method: 'engine' | 'prefixes';
  /** The slowest, at most 20. */
  readonly slowest: readonly { readonly node: number; readonly operator: string; readonly ms: number }[];
  /** Of all nodes. */
  readonly totalMs: number;
}

export interface ProfiledLink {
  readonly device: string;
  readonly roundTripMs: number;
  readonly bytesPerSecond: number;
}

export interface ProfileReport {
  readonly model: string;
  readonly digest: string;
  readonly nodes: number;
  readonly precision: string;
  readonly cuts: readonly number[];
  readonly shards: readonly ProfiledShard[];
  readonly nodeTimes: readonly ProfiledNodes[];
  readonly links: readonly ProfiledLink[];
  /** What was asked for and is not there. */
  readonly missing: readonly { readonly device: string; readonly what: string; readonly reason: string }[];
  /** Devices that were gone before all of theirs was measured. */
  readonly lostDevices: readonly string[];
  readonly store: string;
  /** Records written. */
  readonly records: number;
  /** Records of the model exported; 0 without an export. */
  readonly exported: number;
  readonly exportPath: string;
  readonly notes: readonly string[];
}
