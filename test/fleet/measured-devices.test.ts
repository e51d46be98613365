import { describe, expect, it } from 'vitest';
import { measuredDevices } from '#sim/fleet/measured-devices.js';
import { measuredRuns, overlapShares, type AnsweredRequest, type MeasuredRun } from '#sim/fleet/measured-runs.js';
import { ServiceNoise } from '#sim/fleet/service-noise.js';
import { seededRandom } from '#sim/random.js';

function request(changes: Partial<AnsweredRequest>): AnsweredRequest {
  const base = { device: 'd', arrivedMs: 0, durationMs: 12, queueMs: 0, computeMs: 10, linkMs: 1, batchItems: 1 };
  return { ...base, ...changes };
}

describe('runs of a log', () => {
  it('requests that were launched at one moment were one run, and a run begins when the one before is answered', () => {
    const runs = measuredRuns([
      request({ arrivedMs: 0, queueMs: 2, batchItems: 2 }),
      request({ arrivedMs: 1, queueMs: 1, batchItems: 2 }),
      // Handed over at 5, while the first computes until 13: eight of its nine ms of way are that wait.
      request({ arrivedMs: 4, queueMs: 1, computeMs: 10, linkMs: 9 }),
    ]);
    expect(runs).toEqual([
      { device: 'd', items: 2, startMs: 2, endMs: 13, computeMs: 10 },
      { device: 'd', items: 1, startMs: 13, endMs: 24, computeMs: 10 },
    ]);
  });

  it('counts the share of a run in which another device computed', () => {
    const at = (device: string, startMs: number, endMs: number): MeasuredRun => {
      return { device, items: 1, startMs, endMs, computeMs: endMs - startMs };
    };
    const runs = [at('a', 0, 10), at('b', 5, 7), at('b', 9, 20), at('a', 10, 20), at('a', 30, 40)];
    expect([...overlapShares(runs, 'a', 'b')]).toEqual([0.3, 1, 0]);
  });
});

/** A device whose speed swings, with batches that grow when it is slow: as queues make them. */
function swinging(count: number): readonly MeasuredRun[] {
  const random = seededRandom('swinging');
  const swing = new ServiceNoise(random.stream('swing'), 0.2, { share: 1, ms: 400 });
  const white = new ServiceNoise(random.stream('white'), 0.05, { share: 0, ms: 1 });
  const runs: MeasuredRun[] = [];
  let nowMs = 0;
  for (let index = 0; index < count; index += 1) {
    const slowness = swing.factor(nowMs);
    const items = Math.max(1, Math.min(8, Math.round(4 * slowness) + random.below(5) - 2));
    const computeMs = (10 + 5 * items) * slowness * white.factor(nowMs);
    const startMs = nowMs;
    nowMs += computeMs + 0.5;
    runs.push({ device: 'd', items, startMs, endMs: nowMs, computeMs });
  }
  return runs;
}

describe('what runs tell of a device', () => {
  it('tells sizes apart although large batches are those of slow moments, where means by size mistake one for the other', () => {
    const runs = swinging(6000);
    const table = measuredDevices(runs).get('d')?.table ?? {};
    const meanOf = (items: number): number => {
      const own = runs.filter((run) => run.items === items);
      return own.reduce((sum, { computeMs }) => sum + computeMs, 0) / own.length;
    };
    const right = 40 / 20;
    const naive = Math.abs(meanOf(6) / meanOf(2) / right - 1);
    const fitted = Math.abs((table[6] ?? 0) / (table[2] ?? 1) / right - 1);
    expect(naive).toBeGreaterThan(0.1);
    expect(fitted).toBeLessThan(naive / 3);
    for (const items of [2, 4, 6]) expect(Math.abs((table[items] ?? 0) / (10 + 5 * items) - 1)).toBeLessThan(0.08);
  });

  it('finds how irregular a device is, how much of that lasts and for how long, and what a run costs beside', () => {
    const device = measuredDevices(swinging(6000)).get('d');
    expect(device?.noise).toBeCloseTo(Math.hypot(0.2, 0.05), 1);
    expect(device?.lasting.share).toBeGreaterThan(0.85);
    expect(device?.lasting.ms).toBeGreaterThan(200);
    expect(device?.lasting.ms).toBeLessThan(800);
    expect(device?.handOverMs).toBeCloseTo(0.5, 5);
  });

  it('finds by how much a device is slowed by another one, and says nothing where there is nothing', () => {
    const random = seededRandom('slowed');
    const runs: MeasuredRun[] = [];
    for (let index = 0; index < 400; index += 1) {
      const startMs = index * 100;
      const beside = random.next() < 0.4;
      const computeMs = 20 * (beside ? 1.5 : 1) * (0.95 + 0.1 * random.next());
      runs.push({ device: 'slowed', items: 1, startMs, endMs: startMs + computeMs, computeMs });
      if (beside) runs.push({ device: 'other', items: 1, startMs, endMs: startMs + 60, computeMs: 60 });
    }
    const measured = measuredDevices(runs);
    expect(measured.get('slowed')?.slowedBy.get('other')).toBeCloseTo(1.5, 1);
    expect(measured.get('slowed')?.table[1]).toBeCloseTo(20, 0);
    expect(measured.get('other')?.slowedBy.size).toBe(0);
  });

  it('leaves out devices with a run or two, and names none of them as slowing others', () => {
    const at = (device: string, startMs: number, computeMs: number): MeasuredRun => {
      return { device, items: 1, startMs, endMs: startMs + computeMs, computeMs };
    };
    const often = Array.from({ length: 100 }, (_, index) => at('often', index * 100, index === 40 ? 90 : 10));
    const measured = measuredDevices([...often, at('seldom', 4000, 95)].sort((a, b) => a.startMs - b.startMs));
    expect([...measured.keys()]).toEqual(['often']);
    expect(measured.get('often')?.slowedBy.size).toBe(0);
  });

  it('a table never falls with the batch, and sizes seen once or twice are left to their neighbours', () => {
    const runs = [1, 2, 1, 2, 1, 2, 1, 2, 3].map((items, index): MeasuredRun => {
      const computeMs = items === 1 ? 12 : 10;
      return { device: 'd', items, startMs: index * 20, endMs: index * 20 + computeMs, computeMs };
    });
    const table = measuredDevices(runs).get('d')?.table ?? {};
    expect(Object.keys(table)).toEqual(['1', '2']);
    expect(table[1]).toBeCloseTo(table[2] ?? 0, 6);
    expect(table[1]).toBeCloseTo(11, 0);
  });
});
