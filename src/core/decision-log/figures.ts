/**
 * A candidate's figures as a record of numbers, so that a decision can be made again from the log: exactly as they were, 64
 * bits each, in the order below. The order is part of `dispatchSchema`.
 */
import type { DispatchCandidate, FleetView } from '../scheduling/dispatch-view.js';

export const figureCount = 29;

/** Writes all figures but the mask, from `at` on. Allocates nothing. */
export function writeFigures(candidate: DispatchCandidate, out: Float64Array, at: number): void {
  out[at] = candidate.device;
  out[at + 1] = candidate.netMs;
  out[at + 2] = candidate.runningMs;
  out[at + 3] = candidate.queuedAheadMs;
  out[at + 4] = candidate.serviceMs;
  out[at + 5] = candidate.marginalMs;
  out[at + 6] = candidate.soloMs;
  out[at + 7] = candidate.fullMs;
  out[at + 8] = candidate.workMs;
  out[at + 9] = candidate.queueItems;
  out[at + 10] = candidate.deviceItems;
  out[at + 11] = candidate.itemsMax;
  out[at + 12] = candidate.spread;
  out[at + 13] = candidate.usdPerHour;
  out[at + 14] = candidate.priceRank;
  out[at + 15] = candidate.watts;
  out[at + 16] = candidate.transferUsd;
  out[at + 17] = candidate.resident ? 1 : 0;
  out[at + 18] = candidate.loadMs;
  out[at + 19] = candidate.freeMemoryBytes;
  out[at + 20] = candidate.needBytes;
  out[at + 21] = candidate.transferMs;
  out[at + 22] = candidate.prefixHit;
  out[at + 23] = candidate.spotHazardPerHour;
  out[at + 24] = candidate.thermalHeadroom;
  out[at + 25] = candidate.telemetryAgeMs;
  out[at + 26] = candidate.errorRate;
  out[at + 27] = candidate.ratioEwma;
  out[at + 28] = candidate.stages;
}

/** Reads them back into a candidate. */
export function readFigures(from: Float64Array, at: number, masked: string, into: DispatchCandidate): void {
  const figure = (index: number): number => from[at + index] as number;
  const read: DispatchCandidate = {
    device: figure(0),
    netMs: figure(1),
    runningMs: figure(2),
    queuedAheadMs: figure(3),
    serviceMs: figure(4),
    marginalMs: figure(5),
    soloMs: figure(6),
    fullMs: figure(7),
    workMs: figure(8),
    queueItems: figure(9),
    deviceItems: figure(10),
    itemsMax: figure(11),
    spread: figure(12),
    usdPerHour: figure(13),
    priceRank: figure(14),
    watts: figure(15),
    transferUsd: figure(16),
    resident: figure(17) === 1,
    loadMs: figure(18),
    freeMemoryBytes: figure(19),
    needBytes: figure(20),
    transferMs: figure(21),
    prefixHit: figure(22),
    spotHazardPerHour: figure(23),
    thermalHeadroom: figure(24),
    telemetryAgeMs: figure(25),
    errorRate: figure(26),
    ratioEwma: figure(27),
    stages: figure(28),
    masked,
  };
  Object.assign(into, read);
}

export const fleetFigureCount = 6;

export function writeFleetFigures(fleet: FleetView, out: Float64Array, at: number): void {
  out[at] = fleet.load1s;
  out[at + 1] = fleet.load30s;
  out[at + 2] = fleet.burstiness;
  out[at + 3] = fleet.interactiveShare;
  out[at + 4] = fleet.hourPhase;
  out[at + 5] = fleet.usdPerKwh;
}

export function readFleetFigures(from: Float64Array, at: number): FleetView {
  return {
    load1s: from[at] as number,
    load30s: from[at + 1] as number,
    burstiness: from[at + 2] as number,
    interactiveShare: from[at + 3] as number,
    hourPhase: from[at + 4] as number,
    usdPerKwh: from[at + 5] as number,
  };
}
