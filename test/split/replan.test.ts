import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { defaultDrift, driftStep, noDrift, rebalanced, type DriftState } from '#core/split/replan.js';
import { shardModelName, type SplitSpec } from '#core/split/split-spec.js';
import { StagePace } from '#core/split/stage-pace.js';
import { exportStageMetrics, StageCounts } from '#server/stage-counts.js';
import { RecordingMetrics } from '#sim/recording-metrics.js';

const second = 1_000;

/** Moments at which it plans, looking every second. */
function plans(ratios: readonly number[]): readonly number[] {
  let state: DriftState = noDrift;
  return ratios.flatMap((ratio, at) => {
    const step = driftStep(state, [1, ratio], at * second, defaultDrift);
    state = step.state;
    return step.drifting.length > 0 ? [at * second] : [];
  });
}

describe('a split that serves is planned again', () => {
  it('when a stage is out of its band for long enough, in either direction', () => {
    expect(plans(Array.from({ length: 60 }, (_, at) => (at < 10 ? 1 : 5)))).toEqual([
      10 * second + defaultDrift.holdMs,
    ]);
    expect(plans(Array.from({ length: 60 }, () => 0.2))).toEqual([defaultDrift.holdMs]);
  });

  it('not for a pause, not at the edge of the band, and not again before the cool-down is over', () => {
    expect(plans(Array.from({ length: 600 }, (_, at) => (at % 29 === 0 ? 1 : 5)))).toEqual([]);
    expect(plans(Array.from({ length: 600 }, () => defaultDrift.band))).toEqual([]);
    const [first = 0, next = 0] = plans(Array.from({ length: 600 }, () => 5));
    expect(next - first).toBeGreaterThanOrEqual(defaultDrift.coolDownMs);
  });

  it('never twice within the cool-down, and only after a whole hold out of the inner band, whatever the times are', () => {
    const ratio = fc.oneof(
      fc.constantFrom(1, 1.2, 1.3, 1.5, 1.7, 5, 0.1),
      fc.double({ min: 0.05, max: 20, noNaN: true }),
    );
    fc.assert(
      fc.property(fc.array(ratio, { maxLength: 500 }), (ratios) => {
        const moments = plans(ratios);
        const holds = defaultDrift.holdMs / second;
        for (const [index, moment] of moments.entries()) {
          const before = moments[index - 1];
          if (before !== undefined) expect(moment - before).toBeGreaterThanOrEqual(defaultDrift.coolDownMs);
          const at = moment / second;
          const seen = ratios.slice(at - holds, at + 1);
          expect(seen).toHaveLength(holds + 1);
          expect(seen.every((one) => Math.max(one, 1 / one) > defaultDrift.calmBand)).toBe(true);
        }
      }),
    );
  });
});

describe('the new cut', () => {
  it('gives a device that became five times slower less work, so that the slowest stage is fast again', () => {
    const work = Array.from({ length: 30 }, () => 1);
    const legal = Array.from({ length: 29 }, (_, at) => at + 1);
    const found = rebalanced({ work, legal, cuts: [10, 20], stageMs: [10, 50, 10] });
    expect(found?.cuts).toEqual([14, 16]);
    expect(found?.kept).toEqual([0, 1, 2]);
    expect([found?.beforeMs, found?.afterMs]).toEqual([50, 14]);
  });

  it('is none where the split is balanced already, and leaves out a device that is too slow for any work', () => {
    const work = Array.from({ length: 12 }, () => 1);
    const legal = Array.from({ length: 11 }, (_, at) => at + 1);
    expect(rebalanced({ work, legal, cuts: [4, 8], stageMs: [4, 4, 4.2] })).toBeUndefined();
    expect(rebalanced({ work, legal, cuts: [4, 8], stageMs: [4, 400, 4] })).toMatchObject({ cuts: [6], kept: [0, 2] });
  });

  it('is the best over all legal cuts on the same devices', () => {
    const stages = fc.tuple(
      fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 4, maxLength: 8 }),
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 1, max: 60 }),
    );
    fc.assert(
      fc.property(stages, ([work, first, second_]) => {
        const legal = work.slice(1).map((_, at) => at + 1);
        const cut = 2;
        const sum = (from: number, to: number): number => work.slice(from, to).reduce((a, b) => a + b, 0);
        const pace = [first / sum(0, cut), second_ / sum(cut, work.length)];
        const best = Math.min(...legal.map((at) => Math.max(sum(0, at) * pace[0]!, sum(at, work.length) * pace[1]!)));
        const found = rebalanced({ work, legal, cuts: [cut], stageMs: [first, second_] });
        const whole = Math.min(...pace.map((one) => sum(0, work.length) * one));
        if (found !== undefined) expect(found.afterMs).toBeCloseTo(best, 9);
        // No better by a tenth, or one device alone is as good.
        else expect(Math.min(best, whole) > Math.max(first, second_) * 0.899 || whole <= best).toBe(true);
      }),
    );
  });
});

describe('what is expected of a stage', () => {
  it('is the median of its first runs, and what is observed follows the latest ones', () => {
    const pace = new StagePace();
    for (let run = 0; run < 49; run += 1) pace.add(run < 10 ? 100 : run % 2 === 0 ? 9 : 11);
    expect(pace.now).toBeUndefined();
    pace.add(9);
    for (let run = 0; run < 200; run += 1) pace.add(50);
    expect([9, 11]).toContain(pace.now?.expectedMs);
    expect(pace.now?.observedMs).toBeCloseTo(50, 1);
  });

  it('is what its plan says where it has one, in the metric too', () => {
    const counts = new StageCounts();
    const split = { shards: [{ memoryBytes: 1, plannedMs: 4 }, { memoryBytes: 1 }] } as unknown as SplitSpec;
    counts.splits = new Map([['0123456789', split]]);
    for (let run = 0; run < 60; run += 1) {
      for (const shard of [0, 1]) counts.ran(shardModelName('m' as never, '0123456789', shard), 'cpu:0', 8);
    }
    expect(counts.rows().map(({ shard, expectedMs, observedMs }) => [shard, expectedMs, observedMs])).toEqual([
      [0, 4, 8],
      [1, 8, 8],
    ]);
    const metrics = new RecordingMetrics();
    exportStageMetrics(metrics, counts);
    expect(metrics.value('intarsia_stage_ratio', 'm', '1', 'cpu:0')).toBe(2);
    expect(metrics.value('intarsia_stage_ratio', 'm', '2', 'cpu:0')).toBe(1);
  });
});
