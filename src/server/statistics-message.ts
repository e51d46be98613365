/** Counts and durations of a model version as the message of ModelStatistics. */
import type { ModelStatistics, StatisticDuration } from '#core/model-statistics.js';
import type { ModelName, ModelVersion } from '#core/ids.js';
import {
  ModelStatistics as ModelStatisticsMessage,
  type StatisticDuration as DurationMessage,
} from '#gen/inference.js';

/** What a host knows about one loaded version. */
export interface ModelStatisticsRow {
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly statistics: ModelStatistics;
  /** Bytes per kind of memory: `CPU` or `GPU`, with the index of the device. */
  readonly memory: readonly { readonly type: 'CPU' | 'GPU'; readonly index: number; readonly bytes: number }[];
}

export function statisticsMessage({ model, version, statistics, memory }: ModelStatisticsRow): ModelStatisticsMessage {
  return ModelStatisticsMessage.create({
    name: model,
    version,
    lastInference: BigInt(Math.round(statistics.lastInferenceMs)),
    inferenceCount: BigInt(statistics.inferenceCount),
    executionCount: BigInt(statistics.executionCount),
    inferenceStats: {
      success: duration(statistics.success),
      fail: duration(statistics.fail),
      queue: duration(statistics.queue),
      computeInput: duration(statistics.computeInput),
      computeInfer: duration(statistics.computeInfer),
      computeOutput: duration(statistics.computeOutput),
      cacheHit: duration(none),
      cacheMiss: duration(none),
    },
    batchStats: statistics.batches.map((batch) => ({
      batchSize: BigInt(batch.batchSize),
      computeInput: duration(batch.computeInput),
      computeInfer: duration(batch.computeInfer),
      computeOutput: duration(batch.computeOutput),
    })),
    memoryUsage: memory.map(({ type, index, bytes }) => ({
      type,
      id: BigInt(index),
      byteSize: BigInt(Math.round(bytes)),
    })),
  });
}

const none: StatisticDuration = { count: 0, ns: 0 };

function duration({ count, ns }: StatisticDuration): DurationMessage {
  return { count: BigInt(count), ns: BigInt(Math.round(ns)) };
}
