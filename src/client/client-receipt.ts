/**
 * The receipt as it arrives: `intarsia_*` parameters of an answer. Numbers may come as any kind of parameter, because
 * older dialects of the protocol have no floating point parameter and carry such figures as text.
 */
import type { InferParameters } from '#core/inference-message.js';

export interface ClientReceipt {
  /** Device that ran it, such as `cpu:0`. */
  readonly device: string;
  /** Host it ran on; undefined where the server is no grid. */
  readonly host: string | undefined;
  /** The device pretends: its times are those of a profile. */
  readonly emulated: boolean;
  /** Microseconds from arrival to the hand-over to the executor. */
  readonly queueUs: number;
  /** Microseconds of computing, for the whole batch: making the engine's tensors, running, and making bytes of results. */
  readonly computeUs: number;
  /** Microseconds between processes and hosts. */
  readonly linkUs: number;
  /** Items of the batch it ran in, its own included. */
  readonly batchItems: number;
  readonly billedUnits: number;
  readonly unit: string;
  readonly tenant: string;
  readonly project: string;
  readonly user: string;
  readonly energyJoules: number | undefined;
  /** How the energy is known: measured, profile, configured or estimated. */
  readonly energySource: string | undefined;
  readonly costUsd: number | undefined;
  /** Where the price of the cost comes from. */
  readonly priceSource: string | undefined;
}

/** The receipt among the parameters; undefined when there is none. */
export function receiptOfParameters(parameters: InferParameters): ClientReceipt | undefined {
  const text = (name: string): string | undefined => {
    const value = parameters.get(`intarsia_${name}`)?.value;
    return value === undefined ? undefined : String(value);
  };
  const number = (name: string): number | undefined => {
    const written = text(name);
    return written === undefined ? undefined : Number(written);
  };
  const device = text('device');
  if (device === undefined) return undefined;
  return {
    device,
    host: text('host'),
    emulated: text('emulated') === 'true',
    queueUs: number('queue_us') ?? 0,
    computeUs: number('compute_us') ?? 0,
    linkUs: number('link_us') ?? 0,
    batchItems: number('batch_items') ?? 0,
    billedUnits: number('billed_units') ?? 0,
    unit: text('unit') ?? 'items',
    tenant: text('tenant') ?? '',
    project: text('project') ?? '',
    user: text('user') ?? '',
    energyJoules: number('energy_joules'),
    energySource: text('energy_source'),
    costUsd: number('cost_usd'),
    priceSource: text('price_source'),
  };
}
