/**
 * The receipt of a request: where it ran, how long each part took, and what it cost, with the source of each figure.
 *
 * Cost is busy time × price × the request's share of the batch's items. Idle time is not billed to requests.
 */
import type { DevicePrice, FigureSource } from './device.js';
import type { Billing } from './billing.js';
import type { DeviceId } from './ids.js';

export interface Receipt {
  readonly device: DeviceId;
  readonly emulated: boolean;
  /** Microseconds from arrival at the gateway to the hand-over to the executor. */
  readonly queueUs: number;
  /** Microseconds making the engine's tensors. */
  readonly computeInputUs: number;
  /** Microseconds inside the engine, for the whole batch. */
  readonly computeInferUs: number;
  /** Microseconds turning results into bytes. */
  readonly computeOutputUs: number;
  /** Microseconds between hosts and processes: the executor's round trip less its compute time. */
  readonly linkUs: number;
  /** Items of the batch it ran in, its own included. */
  readonly batchItems: number;
  /** What is billed: items of this request (tokens for token models). */
  readonly billedUnits: number;
  readonly unit: 'items' | 'tokens';
  readonly billing: Billing;
  /** Joules of this request's share; undefined when nothing is known about the device's power. */
  readonly energyJoules?: number;
  readonly energySource?: FigureSource;
  /** United States dollars of this request's share; undefined when the device has no price. */
  readonly costUsd?: number;
  readonly price?: DevicePrice;
}

export interface ReceiptInput {
  readonly device: {
    readonly id: DeviceId;
    readonly emulated: boolean;
    readonly price?: DevicePrice;
    readonly busyWatts?: { readonly watts: number; readonly source: FigureSource };
  };
  readonly billing: Billing;
  readonly items: number;
  readonly batchItems: number;
  readonly queueUs: number;
  readonly roundTripUs: number;
  readonly computeInputUs: number;
  readonly computeInferUs: number;
  readonly computeOutputUs: number;
}

/** The receipt of one request of a batch. Pure arithmetic; shares of a batch add up to the batch. */
export function makeReceipt(input: ReceiptInput): Receipt {
  const computeUs = input.computeInputUs + input.computeInferUs + input.computeOutputUs;
  const share = input.batchItems > 0 ? input.items / input.batchItems : 1;
  const { price, busyWatts } = input.device;
  return {
    device: input.device.id,
    emulated: input.device.emulated,
    queueUs: input.queueUs,
    computeInputUs: input.computeInputUs,
    computeInferUs: input.computeInferUs,
    computeOutputUs: input.computeOutputUs,
    linkUs: Math.max(0, input.roundTripUs - computeUs),
    batchItems: input.batchItems,
    billedUnits: input.items,
    unit: 'items',
    billing: input.billing,
    ...(busyWatts === undefined
      ? {}
      : { energyJoules: (busyWatts.watts * computeUs * share) / 1e6, energySource: busyWatts.source }),
    ...(price === undefined ? {} : { costUsd: (price.usdPerHour * computeUs * share) / 3.6e9, price }),
  };
}
