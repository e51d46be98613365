/**
 * What a device served since it was last asked, as records: runs of whole models by batch size. Statistics only grow, so
 * the difference of two of them is what happened in between; of it only counts and means are known.
 */
import type { BatchStatistics } from '../model-statistics.js';
import { profileSchema, type ProfiledDevice, type ShardRecord } from './profile-record.js';
import { timesOfMean } from './time-stats.js';

/** Runs of a batch size in one interval that are worth a record. */
export const servedRunsMin = 3;

export interface ServedModelRuns {
  /** Digest of the artefact that was served. */
  readonly model: string;
  readonly batches: readonly BatchStatistics[];
  /** The same a while ago; empty when there was nothing. */
  readonly before: readonly BatchStatistics[];
  readonly memoryBytes: number;
}

/** Records of what was served in between; batch sizes with less than `servedRunsMin` runs wait for the next time. */
export function servedRecords(
  { model, batches, before, memoryBytes }: ServedModelRuns,
  device: ProfiledDevice,
  atMs: number,
): { readonly records: readonly ShardRecord[]; readonly counted: readonly BatchStatistics[] } {
  const records: ShardRecord[] = [];
  const counted = batches.map((batch): BatchStatistics => {
    const known = before.find(({ batchSize }) => batchSize === batch.batchSize);
    // Less than before: the device began again.
    const base = known !== undefined && known.computeInfer.count <= batch.computeInfer.count ? known : undefined;
    const count = batch.computeInfer.count - (base?.computeInfer.count ?? 0);
    if (count < servedRunsMin) return base ?? noRuns(batch.batchSize);
    const ms = (totalNs(batch) - (base === undefined ? 0 : totalNs(base))) / count / 1e6;
    const times = timesOfMean(ms, count);
    if (times.count > 0) {
      records.push({
        ...{ type: 'shard', schema: profileSchema, model, nodes: 0, from: 0, to: 0, source: 'served' },
        ...device,
        ...{ precision: 'unstated', optimization: 'unstated', batch: batch.batchSize, atMs, times },
        ...{ weightBytes: 0, peakActivationBytes: 0, loadedBytes: memoryBytes, inputBytes: 0, outputBytes: 0 },
      });
    }
    return batch;
  });
  return { records, counted };
}

function totalNs({ computeInput, computeInfer, computeOutput }: BatchStatistics): number {
  return computeInput.ns + computeInfer.ns + computeOutput.ns;
}

function noRuns(batchSize: number): BatchStatistics {
  const none = { count: 0, ns: 0 };
  return { batchSize, computeInput: none, computeInfer: none, computeOutput: none };
}
