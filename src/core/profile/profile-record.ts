/**
 * Records of the performance profile database: what was measured, of what, where. A record is one measurement or several
 * of the same day added up; which ones are the same is its key (profileKey). Nothing here is estimated.
 */
import type { TimeStats } from './time-stats.js';

/** Version of the records' layout. Records of a later one are left alone; so are those of an earlier one. */
export const profileSchema = 1;

/** What ran the measured work. */
export interface ProfiledDevice {
  readonly host: string;
  /** On its host, such as `cpu:0`. */
  readonly device: string;
  /** Kind of silicon: the key of its hardware profile, or its name where it has none. Equal ones are comparable. */
  readonly silicon: string;
  /** Execution provider. */
  readonly provider: string;
  /** Engine with its version, and the driver's where there is one. */
  readonly engine: string;
  /** Threads of one run; 0 where that means nothing. */
  readonly threads: number;
  /** Times of an emulated device come from a hardware profile, not from silicon. */
  readonly emulated: boolean;
}

interface MeasuredOn extends ProfiledDevice {
  readonly schema: number;
  /** SHA-256 of the whole model's file. */
  readonly model: string;
  /** Nodes of its sorted graph; 0 in records of the whole model by who did not count them. */
  readonly nodes: number;
  /** Of most of its weights: `fp32`, `fp16`, `int8` … */
  readonly precision: string;
  /** Level of the engine's optimiser that was really used. */
  readonly optimization: string;
  /** Items of one run. */
  readonly batch: number;
  /** Moment of the last measurement in it, ms since 1970. */
  readonly atMs: number;
}

/** Runs of a shard; of the whole model where `from` is 0 and `to` is `nodes`. */
export interface ShardRecord extends MeasuredOn {
  readonly type: 'shard';
  /** Positions in the sorted graph: first node, and the node behind the last. */
  readonly from: number;
  readonly to: number;
  /** `profiled`: alone on the device. `served`: in production, whatever else ran; then times are means of intervals. */
  readonly source: 'profiled' | 'served';
  /** Of one run inside the executor: making tensors, computing, handing out. */
  readonly times: TimeStats;
  /** Bytes of the weights it holds; 0 where not known. */
  readonly weightBytes: number;
  /** Bytes of activations alive at once at most, from the sizes of its values; 0 where not known. */
  readonly peakActivationBytes: number;
  /** Bytes that the executor grew by when it loaded the shard; 0 where that cannot be told. */
  readonly loadedBytes: number;
  /** Bytes of values that it is given and gives in one run. */
  readonly inputBytes: number;
  readonly outputBytes: number;
}

/** Runs of a shard while other devices of its host ran theirs: what a processor or a memory that they share gives each. */
export interface ContentionRecord extends MeasuredOn {
  readonly type: 'contention';
  readonly from: number;
  readonly to: number;
  /** The other devices that ran all the time: provider and threads of each, such as `cpu 1`, sorted. */
  readonly beside: readonly string[];
  /** From one answer to the next, seen from the host's process, with the next run always waiting. */
  readonly times: TimeStats;
  /** Median of one run inside the executor while nothing else ran, right before. */
  readonly aloneMs: number;
}

/** Milliseconds of every node in one run of the whole model. */
export interface NodesRecord extends MeasuredOn {
  readonly type: 'nodes';
  /** `engine`: by the engine's own profile. `prefixes`: differences of shards that begin at the first node. */
  readonly method: 'engine' | 'prefixes';
  /** By position in the sorted graph; 0 for what the optimiser removed or fused into a neighbour. */
  readonly nodeMs: readonly number[];
}

/** A way for bytes. */
export interface LinkEnd {
  readonly host: string;
  /** A device's executor; empty for the host's own process. */
  readonly device: string;
}

/** Messages of one size on their way. */
export interface LinkRecord {
  readonly type: 'link';
  readonly schema: number;
  readonly from: LinkEnd;
  readonly to: LinkEnd;
  readonly bytes: number;
  /** One way: half of a round trip that carries as much there as back. */
  readonly times: TimeStats;
  readonly atMs: number;
}

/** In place of a model's digest: under which hosts publish links alone. */
export const linksModel = '0'.repeat(64);

export type ProfileRecord = ShardRecord | ContentionRecord | NodesRecord | LinkRecord;

/** What of a record must be the same for two to be measurements of the same thing. */
export function profileKey(record: ProfileRecord): string {
  if (record.type === 'link') {
    const { from, to, bytes } = record;
    return JSON.stringify(['link', from.host, from.device, to.host, to.device, bytes]);
  }
  const { type, model, nodes, precision, optimization, batch } = record;
  const { host, device, silicon, provider, engine, threads, emulated } = record;
  const part = partOf(record);
  const place = [host, device, silicon, provider, engine, threads, emulated];
  return JSON.stringify([type, model, nodes, ...part, ...place, precision, optimization, batch]);
}

function partOf(record: Exclude<ProfileRecord, LinkRecord>): readonly unknown[] {
  switch (record.type) {
    case 'shard':
      return [record.from, record.to, record.source];
    case 'contention':
      return [record.from, record.to, ...record.beside];
    case 'nodes':
      return [record.method];
  }
}

/** Host on which a record was measured. */
export function profileHost(record: ProfileRecord): string {
  return record.type === 'link' ? record.from.host : record.host;
}
