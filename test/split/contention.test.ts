/** Devices that slow each other down: what was measured of it, and what becomes of plans. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readProfileRecord } from '#core/profile/profile-check.js';
import { mergeRecords } from '#core/profile/profile-merge.js';
import { profileColumns } from '#core/profile/profile-columns.js';
import type { ContentionRecord } from '#core/profile/profile-record.js';
import { ServiceTable } from '#core/profile/service-table.js';
import { timeStats } from '#core/profile/time-stats.js';
import { Contention, type MeasuredContention, type Slowdown } from '#core/split/contention.js';
import { choosePlan, type ChoiceOptions } from '#core/split/plan-choice.js';
import type { PlannerDevice, PlannerProblem } from '#core/split/plan-problem.js';

const measured = (
  kind: string,
  beside: readonly string[],
  [from, to]: readonly [number, number],
  slowdown: number,
): MeasuredContention => ({ kind, beside, from, to, batch: 1, aloneMs: 10, paceMs: 10 * slowdown });

describe('what devices leave each other', () => {
  const contention = new Contention([
    measured('cpu 1', ['wasm 1'], [0, 4], 1.2),
    measured('cpu 1', ['wasm 1'], [4, 8], 1.8),
    measured('cpu 1', ['cpu 1'], [0, 4], 1.5),
    measured('cpu 1', ['cpu 1', 'wasm 1'], [0, 4], 2.5),
  ]);
  const shard = { from: 0, to: 4, batch: 1 };
  const of = (kind: string, beside: readonly string[], asked: typeof shard, ms = 10): Slowdown =>
    contention.beside(kind, beside)(asked, ms);

  it('is what was measured of the shard in that company', () => {
    expect(of('cpu 1', ['wasm 1'], shard)).toEqual({ factor: 1.2, isMeasured: true });
    expect(of('cpu 1', ['wasm 1', 'cpu 1'], shard).factor).toBe(2.5);
    // What was seen is the pace there; alone it may take another time by now.
    expect(of('cpu 1', ['wasm 1'], shard, 8).factor).toBe(12 / 8);
  });

  it('is the mean of other shards where this one was not measured', () => {
    const { factor, isMeasured } = of('cpu 1', ['wasm 1'], { ...shard, batch: 2 });
    expect(factor).toBeCloseTo(Math.sqrt(1.2 * 1.8), 12);
    expect(isMeasured).toBe(true);
  });

  it('is the sum of pairs where they were never measured all together', () => {
    const more = of('cpu 1', ['cpu 1', 'cpu 1'], shard);
    expect(more.factor).toBeCloseTo(2, 12);
    expect(more.isMeasured).toBe(true);
  });

  it('is nothing alone, and unknown beside a device nobody measured', () => {
    expect(of('cpu 1', [], shard)).toEqual({ factor: 1, isMeasured: true });
    expect(of('cpu 1', ['wasm 1', 'cpu 9'], shard)).toEqual({ factor: 1, isMeasured: false });
  });
});

describe('plans of devices that slow each other down', () => {
  const device = (id: string): PlannerDevice => ({ id, type: id, memoryBytes: Infinity, usdPerHour: 1, busyWatts: 1 });
  const [first, second] = [device('first'), device('second')];
  const options: ChoiceOptions = {
    ...{ goal: 'throughput', items: 1, latencyMsMax: Infinity, strategies: ['whole', 'pipeline', 'data'] },
    ...{ frontierMax: 1000, sweepSteps: Infinity, worthwhile: 0 },
  };
  function problem(slowdown: number, more: Partial<PlannerProblem> = {}): PlannerProblem {
    return {
      ...{ segments: 10, devices: [first, second] },
      stageMs: (_, from, to) => to - from,
      stageBytes: () => 0,
      transferMs: () => 0,
      slowdown: (_, others) => () => (others.length === 0 ? 1 : slowdown),
      ...more,
    };
  }

  it('a full pipe is as slow as its stages are in company, one request alone is not', () => {
    const { bestOf } = choosePlan([{ batch: 1, problem: problem(1.5) }], options);
    expect(bestOf.pipeline?.requestsPerSecond).toBeCloseTo(1000 / (5 * 1.5), 9);
    expect(bestOf.pipeline?.latencyMs).toBeCloseTo(10, 9);
    expect(bestOf.data?.requestsPerSecond).toBeCloseTo(2 * (1000 / (10 * 1.5)), 9);
    expect(bestOf.whole?.requestsPerSecond).toBeCloseTo(100, 9);
  });

  it('device time in company is paid for', () => {
    const { bestOf } = choosePlan([{ batch: 1, problem: problem(1.5) }], options);
    const { bestOf: undisturbed } = choosePlan([{ batch: 1, problem: problem(1) }], options);
    expect(bestOf.pipeline?.usdPer1000).toBeCloseTo(1.5 * (undisturbed.pipeline?.usdPer1000 ?? 0), 9);
    expect(bestOf.data?.joulesPerRequest).toBeCloseTo(1.5 * (undisturbed.data?.joulesPerRequest ?? 0), 9);
  });

  it('are not chosen when together they give less than one alone', () => {
    const found = choosePlan([{ batch: 1, problem: problem(2.5) }], options);
    expect(found.choice?.strategy).toBe('whole');
    expect(found.lowerBound).toBeCloseTo(10, 9);
    expect(found.isExact).toBe(true);
  });

  it('are cut where stages are even in company, and no pair of stages is better', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 2, maxLength: 9 }),
        fc.double({ min: 1, max: 3, noNaN: true }),
        (work, factor) => {
          const sum = (from: number, to: number): number => work.slice(from, to).reduce((total, ms) => total + ms, 0);
          const uneven = problem(1, {
            segments: work.length,
            stageMs: (_, from, to) => sum(from, to),
            // The second device alone suffers.
            slowdown: (one, others) => () => (others.length > 0 && one === second ? factor : 1),
          });
          let best = sum(0, work.length);
          for (let at = 1; at < work.length; at += 1) {
            for (const [begin, end] of [
              [1, factor],
              [factor, 1],
            ] as const) {
              best = Math.min(best, Math.max(begin * sum(0, at), end * sum(at, work.length)));
            }
          }
          const strategies = ['whole', 'pipeline'] as const;
          const { choice, lowerBound } = choosePlan([{ batch: 1, problem: uneven }], { ...options, strategies });
          expect(1000 / (choice?.requestsPerSecond ?? 0)).toBeCloseTo(best, 6);
          expect(lowerBound).toBeLessThanOrEqual(best * (1 + 1e-9));
        },
      ),
    );
  });
});

describe('records of devices in company', () => {
  const record: ContentionRecord = {
    ...{
      type: 'contention',
      schema: 1,
      model: 'a'.repeat(64),
      nodes: 8,
      precision: 'fp32',
      optimization: 'all',
      batch: 1,
    },
    ...{ host: 'here', device: 'cpu:0', silicon: 'a cpu', provider: 'cpu', engine: 'an engine', threads: 1 },
    ...{ emulated: false, atMs: 1000, from: 0, to: 4, beside: ['wasm 1'], times: timeStats([10, 12]), aloneMs: 10 },
  };

  it('are read as they were written, and no others are', () => {
    expect(readProfileRecord(JSON.parse(JSON.stringify(record)))).toEqual(record);
    for (const wrong of [{ beside: [] }, { beside: [1] }, { aloneMs: 0 }, { from: 4 }, { to: 9 }, { times: {} }]) {
      expect(readProfileRecord({ ...record, ...wrong })).toBeUndefined();
    }
  });

  it('add up by company, apart from those of the shard alone', () => {
    const merged = mergeRecords([record, { ...record, atMs: 2000 }, { ...record, beside: ['cpu 1', 'wasm 1'] }]);
    expect(merged.map((each) => (each.type === 'contention' ? each.times.count : 0))).toEqual([4, 2]);
    const table = new ServiceTable(merged, { model: record.model });
    expect(table.contention({ provider: 'cpu', threads: 1 })).toHaveLength(2);
    expect(table.measured({})).toEqual([]);
  });

  it('are rows of an export', () => {
    const columns = new Map(profileColumns([record]).map(({ name, values }) => [name, values[0]]));
    expect(columns.get('type')).toBe('contention');
    expect(columns.get('beside')).toBe('wasm 1');
    expect(columns.get('alone_ms')).toBe(10);
    expect(columns.get('mean_ms')).toBe(11);
  });
});
