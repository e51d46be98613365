/** What came of a simulated run: one row a request in columns, and sums. */
import type { IntarsiaError } from '#core/errors.js';
import type { InferenceOutcome } from '#core/inference.js';
import type { Trace } from '../trace.js';
import type { Arrivals } from './arrivals.js';
import type { Fleet } from './fleet.js';

/** How a request ended. `lost`: an error other than being shed. */
export const fleetOutcomes = ['in-time', 'late', 'shed', 'lost'] as const;
const none = 255;

/** Requests in order of arrival. Moments in ms from the first moment of the arrivals. */
export interface SimulationResult {
  readonly arrivals: Arrivals;
  /** When it was answered, failed or was shed. */
  readonly doneMs: Float64Array;
  /** Index of the device that answered; -1 for none. */
  readonly device: Int16Array;
  /** US dollars and joules of its share of the run that answered. */
  readonly costUsd: Float64Array;
  readonly joules: Float64Array;
  /** Items of the batch it ran in; 0 for none. */
  readonly batchItems: Uint16Array;
  /** Index into `fleetOutcomes`. */
  readonly outcome: Uint8Array;
  readonly devices: readonly DeviceSummary[];
  /** Decisions of the picker: one for each attempt. */
  readonly decisions: number;
  /** Tasks that virtual time ran. */
  readonly steps: number;
  /** From the first arrival to the last answer, virtual ms. */
  readonly spanMs: number;
  /** Equal for equal runs. */
  readonly hash: string;
}

export interface DeviceSummary {
  readonly id: string;
  readonly busyMs: number;
  /** Of runs that were lost with the device: computed, paid for, answered nobody. */
  readonly lostMs: number;
  readonly runs: number;
  readonly items: number;
  readonly losses: number;
}

/** Whether the request was refused, or given up, because its target could not be met. */
function wasShed({ code, details }: IntarsiaError): boolean {
  return code === 'DEADLINE_EXCEEDED' || code === 'QUEUE_TIMEOUT' || details['reason'] === 'shed';
}

/** Fills the columns as requests end. */
export class ResultColumns {
  readonly #fleet: Fleet;
  readonly #arrivals: Arrivals;
  readonly #devices: ReadonlyMap<string, number>;
  readonly doneMs: Float64Array;
  readonly device: Int16Array;
  readonly costUsd: Float64Array;
  readonly joules: Float64Array;
  readonly batchItems: Uint16Array;
  readonly outcome: Uint8Array;
  /** Requests without an outcome yet. */
  left: number;

  constructor(fleet: Fleet, arrivals: Arrivals) {
    const { length } = arrivals.atMs;
    this.#fleet = fleet;
    this.#arrivals = arrivals;
    this.#devices = new Map(fleet.devices.map(({ id }, index) => [id, index]));
    this.doneMs = new Float64Array(length);
    this.device = new Int16Array(length).fill(-1);
    this.costUsd = new Float64Array(length);
    this.joules = new Float64Array(length);
    this.batchItems = new Uint16Array(length);
    this.outcome = new Uint8Array(length).fill(none);
    this.left = length;
  }

  /** @param atMs From the first moment of the arrivals. */
  end(index: number, outcome: InferenceOutcome, atMs: number, priceFactor: (device: number) => number): void {
    if (this.outcome[index] !== none) throw new Error(`request ${index} ended twice`);
    this.left -= 1;
    this.doneMs[index] = atMs;
    if (!outcome.ok) {
      this.outcome[index] = wasShed(outcome.error) ? 2 : 3;
      return;
    }
    const { receipt } = outcome;
    const device = this.#devices.get(receipt.device) ?? -1;
    this.device[index] = device;
    this.costUsd[index] = (receipt.costUsd ?? 0) * priceFactor(device);
    this.joules[index] = receipt.energyJoules ?? 0;
    this.batchItems[index] = receipt.batchItems;
    const { atMs: arrivedMs, model, sloClass } = this.#arrivals;
    const sloMs = this.#fleet.models[model[index] as number]?.sloMs[sloClass[index] as number] ?? Infinity;
    this.outcome[index] = atMs - (arrivedMs[index] as number) <= sloMs ? 0 : 1;
  }

  /** The columns enter the fingerprint. */
  fold(trace: Trace): void {
    const { doneMs, device, costUsd, outcome } = this;
    for (let index = 0; index < doneMs.length; index += 1) {
      trace.number(doneMs[index] as number);
      trace.number(costUsd[index] as number);
      trace.number((device[index] as number) * 4 + (outcome[index] as number));
    }
  }
}
