import { describe, expect, it } from 'vitest';
import {
  batchFeatureCount,
  batchFeatureNames,
  newBatchCandidate,
  newBatchQueueView,
  writeBatchFeatures,
} from '#core/scheduling/batch-features.js';
import {
  newDispatchCandidate,
  newFleetView,
  type DispatchCandidate,
  type DispatchRequest,
  type FleetView,
} from '#core/scheduling/dispatch-view.js';
import {
  candidateFeatureNames,
  featureCount,
  featureNames,
  fleetFeatureNames,
  writeRows,
} from '#core/scheduling/features.js';

const request: DispatchRequest = {
  model: 'resnet',
  items: 1,
  sloMs: 300,
  class: 'interactive',
  nowMs: 1030,
  arrivedMs: 1000,
  mayShed: true,
};

const fleet: FleetView = {
  ...newFleetView(),
  load1s: 0.8,
  load30s: 0.5,
  burstiness: 4,
  interactiveShare: 0.25,
  hourPhase: 0.25,
};

const busy: DispatchCandidate = {
  ...newDispatchCandidate(),
  netMs: 3,
  runningMs: 12,
  queuedAheadMs: 60,
  serviceMs: 24,
  marginalMs: 2,
  soloMs: 10,
  workMs: 90,
  queueItems: 19,
  itemsMax: 16,
  spread: 0.5,
  usdPerHour: 0.36,
  priceRank: 0.5,
  watts: 40,
  freeMemoryBytes: 5e9,
  needBytes: 1e9,
  transferMs: 1.5,
  spotHazardPerHour: 0.1,
  thermalHeadroom: 0.75,
  telemetryAgeMs: 1000,
  errorRate: 0.05,
  ratioEwma: 1.2,
  stages: 2,
};

const cheap: DispatchCandidate = {
  ...newDispatchCandidate(),
  serviceMs: 40,
  marginalMs: 40,
  soloMs: 40,
  usdPerHour: 0.018,
  watts: 10,
  resident: false,
  loadMs: 2700,
};

function rowsOf(candidates: readonly DispatchCandidate[]): number[][] {
  const out = new Float32Array((candidates.length + 1) * featureCount);
  const count = writeRows(request, candidates, fleet, { usd: 0, joules: 0 }, out);
  return Array.from({ length: count }, (_, row) => [...out.subarray(row * featureCount, (row + 1) * featureCount)]);
}

function expectRow(row: readonly number[] | undefined, golden: readonly number[]): void {
  expect(row).toHaveLength(golden.length);
  golden.forEach((value, index) => {
    expect(row?.[index], featureNames[index] ?? batchFeatureNames[index]).toBeCloseTo(value, 6);
  });
}

const fleetGolden = [0.8, 0.5, Math.log(5), 0.25, 1, 0, 0, 1];

describe('dispatch features', () => {
  it('names every element once and has as many names as elements', () => {
    expect(featureNames).toHaveLength(featureCount);
    expect(candidateFeatureNames).toHaveLength(24);
    expect(fleetFeatureNames).toHaveLength(8);
    expect(new Set(featureNames).size).toBe(featureCount);
  });

  it('builds the golden vectors of a busy replica, of one that is not loaded, and of refusing', () => {
    const rows = rowsOf([busy, cheap]);
    // c_ref is that of the second one: 40 ms at 0.018 USD an hour. What the first one adds, 2 ms at 0.36 USD, costs as much.
    expectRow(rows[0], [
      0.01,
      0.04,
      0.2,
      0.08,
      1 - (30 + 99) / 300,
      0.04,
      19 / 16,
      Math.log(1.3),
      0.2,
      13 / 16,
      Math.log(2),
      Math.log(1 + 0.08 / 0.4),
      0.5,
      1,
      0,
      Math.log(5),
      0,
      0.005,
      Math.log1p((0.1 * 99) / 360),
      0.75,
      Math.log(2),
      0.05,
      Math.log(1.2),
      0.25,
      ...fleetGolden,
    ]);
    expectRow(rows[1], [
      0,
      0,
      0,
      40 / 300,
      -3,
      0,
      0,
      0,
      1,
      0,
      Math.log(2),
      Math.log(2),
      0,
      0,
      Math.log(10),
      3,
      0,
      0,
      0,
      1,
      0,
      0,
      0,
      0.125,
      ...fleetGolden,
    ]);
    const shed = new Array<number>(24).fill(0);
    shed[4] = 1 - (30 + 99) / 300;
    shed[10] = Math.log(2);
    expectRow(rows[2], [...shed, ...fleetGolden]);
  });

  it('leaves masked candidates out of the scale and out of what refusing is compared with', () => {
    const rows = rowsOf([busy, { ...cheap, masked: 'draining' }]);
    // c_ref is now the busy one's own: 10 ms of 0.36 USD an hour against 2 ms.
    expect(rows[0]?.[10]).toBeCloseTo(Math.log(1.2), 6);
    expect(rows[0]?.[11]).toBeCloseTo(Math.log(1.2), 6);
    expect(rows[2]?.[10]).toBeCloseTo(Math.log(1.2), 6);
  });

  it('has no row of refusing for a request that must be served, and no costs where nothing has a price', () => {
    const out = new Float32Array(3 * featureCount);
    const free = { ...busy, usdPerHour: 0, watts: 0 };
    expect(writeRows({ ...request, mayShed: false }, [free, free], fleet, { usd: 1, joules: 1 }, out)).toBe(2);
    expect([out[10], out[11]]).toEqual([0, 0]);
  });

  it('clips to 3 and lets NaN be seen', () => {
    const rows = rowsOf([{ ...busy, runningMs: 1e9, netMs: Number.NaN }]);
    expect(rows[0]?.[1]).toBe(3);
    expect(rows[0]?.[4]).toBeNaN();
  });
});

describe('batching features', () => {
  it('builds the golden vectors of a launch and of a wait', () => {
    expect(batchFeatureNames).toHaveLength(batchFeatureCount);
    const queue = {
      ...newBatchQueueView(),
      queueItems: 6,
      itemsMax: 8,
      headSloMs: 200,
      headSlackMs: 120,
      headAgeMs: 80,
      otherWorkMs: 100,
      otherQueues: 2,
      otherSlackMs: 60,
      urgency: 0.25,
      itemsPerMs: 0.05,
    };
    const launch = { ...newBatchCandidate(), items: 4, runMs: 20, soloMs: 10, laterItems: 6, laterRunMs: 24 };
    const wait = { ...launch, launch: false, waitMs: 40, laterItems: 8, laterRunMs: 30 };
    const out = new Float32Array(2 * batchFeatureCount);
    writeBatchFeatures(queue, launch, out, 0);
    writeBatchFeatures(queue, wait, out, batchFeatureCount);
    const golden = [
      [1, 0.1, 0, 0.6, 0.5, 0.2, 0.5, 0.25, 0.5, 0, 0.4, Math.log(1.5), 0.25, 0.25, Math.log(1.5), 0.4],
      [0, 0.1, 0.2, 0.6, 0.25, -0.05, 0.5, 0.75, 0.5, 0.25, 0.375, Math.log(1.5), 0.25, 0.25, Math.log(1.5), 0.4],
    ];
    golden.forEach((values, row) => {
      values.forEach((value, index) => {
        expect(out[row * batchFeatureCount + index], `${row} ${batchFeatureNames[index] ?? ''}`).toBeCloseTo(value, 6);
      });
    });
  });

  it('sees no hurry elsewhere when the other queues are empty', () => {
    const out = new Float32Array(batchFeatureCount);
    writeBatchFeatures(newBatchQueueView(), newBatchCandidate(), out, 0);
    expect(out[5]).toBe(3);
  });
});
