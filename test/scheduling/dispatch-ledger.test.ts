import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { deviceId, hostId, modelName, modelVersion, replicaId } from '#core/ids.js';
import type { Replica } from '#core/replica.js';
import { ArrivalMeter } from '#core/scheduling/arrival-meter.js';
import { DispatchLedger, type Lane } from '#core/scheduling/dispatch-ledger.js';
import { expectedMs, newDispatchCandidate, type DispatchCandidate } from '#core/scheduling/dispatch-view.js';
import { unknownDevice, unknownReplica, type FleetBook } from '#core/scheduling/fleet-book.js';
import { RunTimes } from '#core/scheduling/run-times.js';
import { serviceMs, type ServiceProfile } from '#core/scheduling/service-profile.js';

const profile: ServiceProfile = { batches: [1, 2, 4, 8], ms: [10, 11, 14, 20], spread: 0.1 };

function replica(model: string, device = 'gpu:0'): Replica {
  const stage = { digest: 'd' as never, host: hostId('h'), device: deviceId(device) };
  return {
    id: replicaId(`${model}/1@h/${device}`),
    model: modelName(model),
    version: modelVersion('1'),
    stages: [stage],
  };
}

function book(facts: Partial<ReturnType<FleetBook['replica']>> = {}): FleetBook {
  return {
    revision: 0,
    device: (key) => ({ ...unknownDevice, usdPerHour: key.endsWith('0') ? 2 : 1 }),
    replica: () => ({ ...unknownReplica, profile, itemsMax: 8, ...facts }),
  };
}

function view(ledger: DispatchLedger, lane: Lane, nowMs: number, items = 1): DispatchCandidate {
  const candidate = newDispatchCandidate();
  ledger.fill(lane, candidate, items, 1, nowMs);
  return candidate;
}

const ok = (batchItems: number, computeMs: number) => ({ ok: true, batchItems, computeMs });

describe('dispatch ledger', () => {
  it('predicts an idle device, the rest of a running batch, and the batch that is forming', () => {
    const ledger = new DispatchLedger({ book: book() });
    const lane = ledger.laneOf(replica('m'));
    expect(expectedMs(view(ledger, lane, 0))).toBe(10);
    ledger.sent(lane, 1, 'standard', 0);
    const second = view(ledger, lane, 4);
    expect([second.runningMs, second.queuedAheadMs, second.serviceMs, second.marginalMs]).toEqual([6, 0, 10, 10]);
    ledger.sent(lane, 1, 'standard', 4);
    const third = view(ledger, lane, 4);
    expect([third.runningMs, third.queuedAheadMs, third.serviceMs, third.marginalMs]).toEqual([6, 0, 11, 1]);
    expect([third.queueItems, third.deviceItems, third.workMs]).toEqual([1, 2, 16]);
  });

  it('starts the next batch with what waited when an answer comes, whichever items shared the batch', () => {
    const ledger = new DispatchLedger({ book: book() });
    const lane = ledger.laneOf(replica('m'));
    for (let index = 0; index < 12; index += 1) ledger.sent(lane, 1, 'standard', 0);
    ledger.answered(lane, 1, 'standard', 10, ok(1, 10));
    // 11 are left: 8 run, 3 wait.
    const next = view(ledger, lane, 10);
    expect([next.runningMs, next.queueItems, next.serviceMs]).toEqual([20, 3, 14]);
    for (let index = 0; index < 8; index += 1) ledger.answered(lane, 1, 'standard', 30, ok(8, 20));
    const last = view(ledger, lane, 30);
    expect([last.runningMs, last.queueItems, last.deviceItems]).toEqual([12.5, 0, 3]);
    for (let index = 0; index < 3; index += 1) ledger.answered(lane, 1, 'standard', 44, ok(3, 12.5));
    expect(expectedMs(view(ledger, lane, 44))).toBe(10);
  });

  it('sees the work of other models on the device, and nothing of other devices', () => {
    const ledger = new DispatchLedger({ book: book() });
    const [one, other, far] = [replica('a'), replica('b'), replica('a', 'gpu:1')].map((each) => ledger.laneOf(each));
    ledger.sent(one as Lane, 8, 'standard', 0);
    ledger.sent(other as Lane, 4, 'standard', 0);
    const row = view(ledger, one as Lane, 0);
    expect([row.runningMs, row.queuedAheadMs, row.serviceMs]).toEqual([20, 14, 10]);
    expect(view(ledger, far as Lane, 0).workMs).toBe(0);
  });

  it('counts what others told until it would be done, without counting its own work twice', () => {
    const ledger = new DispatchLedger({ book: book() });
    const lane = ledger.laneOf(replica('m'));
    ledger.sent(lane, 8, 'standard', 0);
    ledger.hear(lane, { backlogMs: 50, atMs: 0 }, 0);
    expect(view(ledger, lane, 0).queuedAheadMs).toBe(30);
    expect(view(ledger, lane, 10).queuedAheadMs).toBe(20);
    expect(view(ledger, lane, 100).queuedAheadMs).toBe(0);
    // Older news change nothing.
    ledger.hear(lane, { backlogMs: 500, atMs: -5 }, 100);
    expect(view(ledger, lane, 100).queuedAheadMs).toBe(0);
    expect(view(ledger, lane, 100).telemetryAgeMs).toBe(100);
  });

  it('follows a device that is slower than its profile and one that fails, and forgets both when nobody sends there', () => {
    const ledger = new DispatchLedger({ book: book() });
    const lane = ledger.laneOf(replica('m'));
    for (let index = 0; index < 60; index += 1) {
      ledger.sent(lane, 1, 'standard', index * 30);
      ledger.answered(lane, 1, 'standard', index * 30 + 30, ok(1, 30));
    }
    expect(view(ledger, lane, 1800).serviceMs).toBeCloseTo(30, 0);
    expect(view(ledger, lane, 1800).errorRate).toBe(0);
    for (let index = 0; index < 40; index += 1) {
      ledger.sent(lane, 1, 'standard', 1800);
      ledger.answered(lane, 1, 'standard', 1800, { ok: false, batchItems: 0, computeMs: 0 });
    }
    expect(view(ledger, lane, 1800).errorRate).toBeGreaterThan(0.8);
    expect(view(ledger, lane, 300_000).errorRate).toBeLessThan(0.001);
    expect(view(ledger, lane, 300_000).ratioEwma).toBeCloseTo(1, 3);
  });

  it('learns run times by batch size where no profile is known', () => {
    const ledger = new DispatchLedger({ book: book({ profile: undefined }) });
    const lane = ledger.laneOf(replica('m'));
    expect(view(ledger, lane, 0, 3).serviceMs).toBe(3);
    ledger.sent(lane, 1, 'standard', 0);
    ledger.answered(lane, 1, 'standard', 10, ok(1, 10));
    ledger.sent(lane, 4, 'standard', 20);
    ledger.answered(lane, 4, 'standard', 36, ok(4, 16));
    expect([1, 2, 4, 8].map((items) => view(ledger, lane, 40, items).serviceMs)).toEqual([10, 12, 16, 32]);
  });

  it('keeps sums exact and nothing negative, whatever is sent, answered, fails or is withdrawn in whatever order', () => {
    const step = fc.record({
      lane: fc.nat({ max: 3 }),
      items: fc.integer({ min: 1, max: 12 }),
      end: fc.constantFrom('no', 'ok', 'failed', 'withdrawn'),
      afterMs: fc.nat({ max: 20 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const ledger = new DispatchLedger({ book: book() });
        const lanes = [replica('a'), replica('b'), replica('a', 'gpu:1'), replica('c')].map((each) =>
          ledger.laneOf(each),
        );
        const open: { lane: Lane; items: number }[] = [];
        let nowMs = 0;
        for (const { lane: index, items, end, afterMs } of steps) {
          nowMs += afterMs;
          const lane = lanes[index] as Lane;
          ledger.sent(lane, items, 'interactive', nowMs);
          open.push({ lane, items });
          if (end === 'no') continue;
          const done = open.splice(items % open.length, 1)[0] as (typeof open)[number];
          if (end === 'ok') ledger.answered(done.lane, done.items, 'interactive', nowMs, ok(done.items, 5));
          else if (end === 'failed')
            ledger.answered(done.lane, done.items, 'interactive', nowMs, { ok: false, batchItems: 0, computeMs: 0 });
          else ledger.withdrawn(done.lane, done.items, 'interactive', nowMs);
          for (const each of lanes) {
            const row = view(ledger, each, nowMs);
            const onDevice = open.filter((other) => other.lane.device === each.device);
            expect(row.deviceItems).toBe(onDevice.reduce((total, other) => total + other.items, 0));
            expect(row.queueItems).toBeGreaterThanOrEqual(0);
            expect(row.workMs).toBeGreaterThanOrEqual(0);
            const waiting = [...new Set(lanes)].filter((other) => other.device === each.device);
            const slowMs = waiting.reduce((total, other) => {
              let ms = 0;
              for (let left = other.waiting; left > 0; left -= 8) ms += serviceMs(profile, Math.min(left, 8));
              return total + ms;
            }, 0);
            expect(row.workMs - row.runningMs).toBeCloseTo(slowMs * row.ratioEwma, 6);
            if (onDevice.length === 0) expect(row.workMs).toBeCloseTo(0, 9);
          }
        }
        for (const { lane, items } of open) ledger.withdrawn(lane, items, 'interactive', nowMs);
        expect(ledger.fleet(nowMs).interactiveShare).toBe(0);
        for (const lane of lanes) expect(view(ledger, lane, nowMs).deviceItems).toBe(0);
      }),
      { numRuns: 200 },
    );
  });

  it('takes in facts that change and forgets replicas that are gone once nothing is on its way to them', () => {
    let revision = 0;
    let current = profile;
    const ledger = new DispatchLedger({
      book: {
        get revision() {
          return revision;
        },
        device: () => unknownDevice,
        replica: () => ({ ...unknownReplica, profile: current, itemsMax: 8 }),
      },
    });
    const kept = replica('m');
    const lane = ledger.laneOf(kept);
    ledger.sent(lane, 1, 'standard', 0);
    ledger.sent(lane, 8, 'standard', 0);
    current = { ...profile, ms: [20, 22, 28, 40] };
    revision = 1;
    ledger.keepOnly([kept]);
    expect(view(ledger, lane, 0).workMs).toBe(60);
    ledger.keepOnly([]);
    expect(ledger.laneOf(replica('m'))).toBe(lane);
    ledger.answered(lane, 1, 'standard', 1, ok(1, 1));
    ledger.answered(lane, 8, 'standard', 2, ok(8, 1));
    ledger.keepOnly([]);
    expect(ledger.laneOf(replica('m'))).not.toBe(lane);
  });

  it('ranks prices among the devices it knows', () => {
    const ledger = new DispatchLedger({ book: book() });
    const lanes = [replica('m'), replica('m', 'gpu:1')].map((each) => ledger.laneOf(each));
    expect(lanes.map((lane) => view(ledger, lane, 0).priceRank)).toEqual([1, 0]);
  });
});

describe('run times', () => {
  it('are those of the profile, and drain as a loop over batches does', () => {
    const runs = new RunTimes(profile, 8);
    fc.assert(
      fc.property(fc.nat({ max: 100 }), (items) => {
        let slow = 0;
        for (let left = items; left > 0; left -= 8) slow += serviceMs(profile, Math.min(left, 8));
        expect(runs.drain(items)).toBeCloseTo(slow, 9);
      }),
    );
  });
});

describe('arrival meter', () => {
  it('comes to the rate of a steady stream and forgets it afterwards', () => {
    const meter = new ArrivalMeter();
    for (let nowMs = 0; nowMs < 200_000; nowMs += 10) meter.arrive(5, nowMs);
    expect(meter.load1s(200_000)).toBeCloseTo(0.5, 2);
    expect(meter.load30s(200_000)).toBeCloseTo(0.5, 2);
    expect(meter.load1s(210_000)).toBeLessThan(0.001);
  });

  it('has the dispersion that a count over the bins of the last ten seconds gives', () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 700 }), { minLength: 1, maxLength: 200 }), (gaps) => {
        const meter = new ArrivalMeter();
        const times: number[] = [];
        let nowMs = 0;
        for (const gap of gaps) {
          nowMs += gap;
          times.push(nowMs);
          meter.arrive(1, nowMs);
        }
        const first = Math.floor((times[0] as number) / 100);
        const last = Math.floor(nowMs / 100);
        const counts: number[] = [];
        for (let bin = Math.max(first, last - 99); bin <= last; bin += 1) {
          counts.push(times.filter((time) => Math.floor(time / 100) === bin).length);
        }
        const mean = counts.reduce((total, count) => total + count, 0) / counts.length;
        const variance = counts.reduce((total, count) => total + (count - mean) ** 2, 0) / counts.length;
        expect(meter.burstiness(nowMs)).toBeCloseTo(variance / mean, 6);
      }),
    );
  });
});
