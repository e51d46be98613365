import { describe, expect, it } from 'vitest';
import { ModelStatisticsRecorder, addStatistics, type CompletedRun } from '#core/model-statistics.js';

const run: CompletedRun = {
  requests: 2,
  items: 3,
  requestUs: 500,
  queueUs: 100,
  computeInputUs: 10,
  computeInferUs: 150,
  computeOutputUs: 40,
  finishedWallMs: 77,
};

describe('model statistics', () => {
  it('count durations once per request, and by batch size once per run', () => {
    const recorder = new ModelStatisticsRecorder();
    recorder.recordRun(run);
    recorder.recordFailures(1, 5);
    const figures = recorder.snapshot();
    expect(figures).toMatchObject({
      lastInferenceMs: 77,
      inferenceCount: 3,
      executionCount: 1,
      success: { count: 2, ns: 500_000 },
      fail: { count: 1, ns: 5000 },
      queue: { count: 2, ns: 100_000 },
      computeInfer: { count: 2, ns: 300_000 },
    });
    expect(figures.batches).toEqual([
      {
        batchSize: 3,
        computeInput: { count: 1, ns: 10_000 },
        computeInfer: { count: 1, ns: 150_000 },
        computeOutput: { count: 1, ns: 40_000 },
      },
    ]);
    expect([recorder.meanRunUs(3), recorder.meanRunUs(4)]).toEqual([200, 0]);
  });

  it('of several devices add up', () => {
    const one = new ModelStatisticsRecorder();
    const two = new ModelStatisticsRecorder();
    one.recordRun(run);
    two.recordRun(run);
    two.recordRun({ ...run, items: 1, finishedWallMs: 90 });
    const sum = addStatistics([one.snapshot(), two.snapshot()]);
    expect(sum).toMatchObject({ lastInferenceMs: 90, inferenceCount: 7, executionCount: 3, success: { count: 6 } });
    expect(sum.batches.map((batch) => [batch.batchSize, batch.computeInfer.count])).toEqual([
      [1, 1],
      [3, 2],
    ]);
  });
});
