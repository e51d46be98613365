/** Records for tests. */
import { profileSchema, type LinkRecord, type NodesRecord, type ShardRecord } from '#core/profile/profile-record.js';
import { timeStats } from '#core/profile/time-stats.js';

export const modelDigest = 'ab'.repeat(32);
/** 2026-01-01. */
export const newYearMs = 1_767_225_600_000;

const base = {
  schema: profileSchema,
  model: modelDigest,
  nodes: 10,
  host: 'alpha',
  device: 'cpu:0',
  silicon: 'test-cpu',
  provider: 'cpu',
  engine: 'onnxruntime-node 1.30.0',
  threads: 1,
  emulated: false,
  precision: 'fp32',
  optimization: 'all',
  batch: 1,
  atMs: newYearMs,
};

export function shardRecord(times: readonly number[], change: Partial<ShardRecord> = {}): ShardRecord {
  return {
    ...base,
    type: 'shard',
    ...{ from: 0, to: 10, source: 'profiled', times: timeStats(times) },
    ...{ weightBytes: 100, peakActivationBytes: 20, loadedBytes: 150, inputBytes: 4, outputBytes: 8 },
    ...change,
  };
}

export function nodesRecord(nodeMs: readonly number[], change: Partial<NodesRecord> = {}): NodesRecord {
  return { ...base, type: 'nodes', method: 'engine', nodes: nodeMs.length, nodeMs, ...change };
}

export function linkRecord(bytes: number, times: readonly number[], change: Partial<LinkRecord> = {}): LinkRecord {
  return {
    type: 'link',
    schema: profileSchema,
    from: { host: 'alpha', device: '' },
    to: { host: 'alpha', device: 'cpu:0' },
    bytes,
    times: timeStats(times),
    atMs: newYearMs,
    ...change,
  };
}
