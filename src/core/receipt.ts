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
  /** Name of the variant that ran; absent: the exact model. */
  readonly variant?: string;
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
  /** Of a split model: what each stage took, in order. The figures above are then of all stages together. */
  readonly stages?: readonly StageReceipt[];
  /** Of a batch that was spread: what each device did of it. The figures above are then of all devices together. */
  readonly shares?: readonly ShareReceipt[];
}

/** What one device did of a batch that was spread over several. */
export interface ShareReceipt {
  /** Empty outside of a grid. */
  readonly host: string;
  readonly device: DeviceId;
  readonly emulated: boolean;
  readonly items: number;
  /** Pieces in which it took them. */
  readonly chunks: number;
  readonly computeUs: number;
  readonly energyJoules?: number;
  readonly costUsd?: number;
}

/** One stage of a split model, as its own device tells. */
export interface StageReceipt {
  /** Empty outside of a grid. */
  readonly host: string;
  readonly device: DeviceId;
  readonly emulated: boolean;
  readonly queueUs: number;
  readonly computeUs: number;
  readonly batchItems: number;
  readonly energyJoules?: number;
  readonly costUsd?: number;
}

export interface ReceiptInput {
  readonly device: {
    readonly id: DeviceId;
    readonly emulated: boolean;
    readonly price?: DevicePrice;
    readonly busyWatts?: { readonly watts: number; readonly source: FigureSource };
  };
  readonly variant?: string | undefined;
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
  // One a request: what is not always there is set afterwards, as spreading it in costs more than all the rest.
  const receipt: { -readonly [Key in keyof Receipt]: Receipt[Key] } = {
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
  };
  if (input.variant !== undefined) receipt.variant = input.variant;
  if (busyWatts !== undefined) {
    receipt.energyJoules = (busyWatts.watts * computeUs * share) / 1e6;
    receipt.energySource = busyWatts.source;
  }
  if (price !== undefined) {
    receipt.costUsd = (price.usdPerHour * computeUs * share) / 3.6e9;
    receipt.price = price;
  }
  return receipt;
}

/**
 * The receipt of a stage and of all that follow it. Times, energy and cost add up; a sum is known only where every part is.
 * @param items What the client is billed for.
 * @param rest Of the stages behind it; undefined for the last one.
 */
export function stageReceipt(own: Receipt, host: string, items: number, rest: Receipt | undefined): Receipt {
  const { device, emulated, queueUs, computeInputUs, computeInferUs, computeOutputUs, batchItems } = own;
  const { energyJoules, costUsd, energySource: _source, price: _price, ...base } = own;
  const stage: StageReceipt = {
    host,
    device,
    emulated,
    queueUs,
    computeUs: computeInputUs + computeInferUs + computeOutputUs,
    batchItems,
    ...(energyJoules === undefined ? {} : { energyJoules }),
    ...(costUsd === undefined ? {} : { costUsd }),
  };
  if (rest === undefined) return { ...own, billedUnits: items, stages: [stage] };
  const energy = sumKnown(energyJoules, rest.energyJoules);
  const cost = sumKnown(costUsd, rest.costUsd);
  return {
    ...base,
    emulated: emulated || rest.emulated,
    queueUs: queueUs + rest.queueUs,
    computeInputUs: computeInputUs + rest.computeInputUs,
    computeInferUs: computeInferUs + rest.computeInferUs,
    computeOutputUs: computeOutputUs + rest.computeOutputUs,
    linkUs: own.linkUs + rest.linkUs,
    billedUnits: items,
    ...(energy === undefined ? {} : { energyJoules: energy }),
    ...(cost === undefined ? {} : { costUsd: cost }),
    stages: [stage, ...(rest.stages ?? [])],
  };
}

/** One piece of a batch that was spread. */
export interface SharePart {
  readonly host: string;
  readonly items: number;
  readonly receipt: Receipt;
}

/**
 * The receipt of a batch that was spread: work, energy and cost add up, the wait is the longest of its pieces, and the device
 * named is the one with the most items. At least one part.
 */
export function sharedReceipt([first, ...rest]: readonly [SharePart, ...SharePart[]]): Receipt {
  const shares = new Map<string, ShareReceipt>();
  let total = first.receipt;
  for (const { host, items, receipt } of [first, ...rest]) {
    const key = `${host}/${receipt.device}`;
    const known = shares.get(key);
    const energy = known === undefined ? receipt.energyJoules : sumKnown(known.energyJoules, receipt.energyJoules);
    const cost = known === undefined ? receipt.costUsd : sumKnown(known.costUsd, receipt.costUsd);
    shares.set(key, {
      host,
      device: receipt.device,
      emulated: receipt.emulated,
      items: (known?.items ?? 0) + items,
      chunks: (known?.chunks ?? 0) + 1,
      computeUs: (known?.computeUs ?? 0) + receipt.computeInputUs + receipt.computeInferUs + receipt.computeOutputUs,
      ...(energy === undefined ? {} : { energyJoules: energy }),
      ...(cost === undefined ? {} : { costUsd: cost }),
    });
    if (receipt !== first.receipt) total = sideBySide(total, receipt);
  }
  const listed = [...shares.values()].sort((a, b) => b.items - a.items);
  const { stages: _stages, ...figures } = total;
  return { ...figures, device: listed[0]?.device ?? total.device, shares: listed };
}

function sideBySide(one: Receipt, other: Receipt): Receipt {
  const { energyJoules, costUsd, energySource, price, ...base } = one;
  const energy = sumKnown(energyJoules, other.energyJoules);
  const cost = sumKnown(costUsd, other.costUsd);
  return {
    ...base,
    emulated: one.emulated || other.emulated,
    queueUs: Math.max(one.queueUs, other.queueUs),
    computeInputUs: one.computeInputUs + other.computeInputUs,
    computeInferUs: one.computeInferUs + other.computeInferUs,
    computeOutputUs: one.computeOutputUs + other.computeOutputUs,
    linkUs: one.linkUs + other.linkUs,
    batchItems: Math.max(one.batchItems, other.batchItems),
    billedUnits: one.billedUnits + other.billedUnits,
    ...(energy === undefined ? {} : { energyJoules: energy }),
    ...(energy === undefined || energySource === undefined ? {} : { energySource }),
    ...(cost === undefined ? {} : { costUsd: cost }),
    ...(cost === undefined || price === undefined ? {} : { price }),
  };
}

function sumKnown(one: number | undefined, other: number | undefined): number | undefined {
  return one === undefined || other === undefined ? undefined : one + other;
}
