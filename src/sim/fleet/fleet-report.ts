/** A result in the words of people and of the objective: costs by the cheapest way, misses by class, percentiles, goodput. */
import { serviceMs } from '#core/scheduling/service-profile.js';
import { sloClasses } from '#core/scheduling/slo-class.js';
import {
  defaultObjective,
  objectiveOf,
  type Objective,
  type ObjectiveRows,
  type ObjectiveWeights,
} from '#core/scheduling/objective.js';
import type { Arrivals } from './arrivals.js';
import type { SimulationResult } from './fleet-result.js';
import { linkMs, type Fleet, type FleetDevice, type FleetModel } from './fleet.js';

const hourMs = 3_600_000;

/** The cheapest way to serve one request in a run of its own, in time if any device can. */
export interface Reference {
  readonly usd: number;
  readonly joules: number;
  /** Milliseconds on the fastest device of an empty fleet, link included (LB5). */
  readonly fastestMs: number;
}

/** References by model, class and items, each computed once. */
export class References {
  readonly #fleet: Fleet;
  readonly #known = new Map<number, Reference>();

  constructor(fleet: Fleet) {
    this.#fleet = fleet;
  }

  of(model: number, sloClass: number, items: number): Reference {
    const key = (items * this.#fleet.models.length + model) * sloClasses.length + sloClass;
    let known = this.#known.get(key);
    if (known === undefined) {
      known = this.#compute(this.#fleet.models[model] as FleetModel, model, sloClass, items);
      this.#known.set(key, known);
    }
    return known;
  }

  #compute(model: FleetModel, index: number, sloClass: number, items: number): Reference {
    const sloMs = model.sloMs[sloClass] as number;
    let feasible = { usd: Infinity, joules: 0 };
    let any = { usd: Infinity, joules: 0 };
    let fastestMs = Infinity;
    for (const device of this.#fleet.devices) {
      const profile = device.service[index];
      if (profile === undefined) continue;
      const ms = serviceMs(profile, items);
      const cost = { usd: (ms * device.usdPerHour) / hourMs, joules: (ms * device.watts) / 1000 };
      const takenMs = linkMs(device, model, items) + ms;
      fastestMs = Math.min(fastestMs, takenMs);
      if (cost.usd < any.usd) any = cost;
      if (takenMs <= sloMs && cost.usd < feasible.usd) feasible = cost;
    }
    return { ...(feasible.usd < Infinity ? feasible : any), fastestMs };
  }
}

/** A result's columns as the objective takes them. */
export function objectiveRows(
  fleet: Fleet,
  result: SimulationResult,
  references = new References(fleet),
): ObjectiveRows {
  const { arrivals, doneMs, costUsd, joules, outcome } = result;
  const { length } = doneMs;
  const cost = new Float64Array(length);
  const energy = new Float64Array(length);
  const missed = new Uint8Array(length);
  const lateness = new Float64Array(length);
  let referenceUsd = 0;
  for (let index = 0; index < length; index += 1) {
    const { model, sloClass } = kindOf(arrivals, index);
    const reference = references.of(model, sloClass, arrivals.items[index] as number);
    referenceUsd += reference.usd / length;
    // A free device leaves nothing to compare with.
    cost[index] = reference.usd > 0 ? (costUsd[index] as number) / reference.usd : 0;
    energy[index] = reference.joules > 0 ? (joules[index] as number) / reference.joules : 0;
    missed[index] = outcome[index] === 0 ? 0 : 1;
    const sloMs = (fleet.models[model] as FleetModel).sloMs[sloClass] as number;
    if ((outcome[index] as number) < 2) {
      lateness[index] = ((doneMs[index] as number) - (arrivals.atMs[index] as number)) / sloMs - 1;
    }
  }
  const lostUsd = lostUsdOf(fleet, result);
  return {
    cost,
    energy,
    missed,
    lateness,
    sloClass: arrivals.sloClass,
    lost: referenceUsd > 0 ? lostUsd / referenceUsd : 0,
  };
}

export interface FleetReport {
  readonly requests: number;
  readonly objective: Objective;
  readonly usdPerThousand: number;
  readonly joulesPerRequest: number;
  /** Milliseconds from arrival to answer, of those answered. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Answers in time, a virtual second. */
  readonly goodput: number;
  readonly late: number;
  readonly shed: number;
  readonly lost: number;
  /** Mean of actual time over that on an empty fleet. */
  readonly slowdown: number;
  readonly meanBatch: number;
  readonly spanMs: number;
  readonly decisions: number;
  readonly hash: string;
}

export function fleetReport(
  fleet: Fleet,
  result: SimulationResult,
  weights: ObjectiveWeights = defaultObjective,
): FleetReport {
  const references = new References(fleet);
  const { arrivals, doneMs, costUsd, joules, outcome, batchItems, spanMs, decisions, hash } = result;
  const { length } = doneMs;
  const takenMs: number[] = [];
  const counts = [0, 0, 0, 0];
  let usd = lostUsdOf(fleet, result);
  let energy = 0;
  let slowdown = 0;
  let batch = 0;
  for (let index = 0; index < length; index += 1) {
    const kind = outcome[index] as number;
    counts[kind] = (counts[kind] ?? 0) + 1;
    usd += costUsd[index] as number;
    energy += joules[index] as number;
    if (kind >= 2) continue;
    const ms = (doneMs[index] as number) - (arrivals.atMs[index] as number);
    const { model, sloClass } = kindOf(arrivals, index);
    takenMs.push(ms);
    slowdown += ms / references.of(model, sloClass, arrivals.items[index] as number).fastestMs;
    batch += batchItems[index] as number;
  }
  const answered = Math.max(1, takenMs.length);
  const sorted = Float64Array.from(takenMs).sort();
  const percentile = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
  const [inTime = 0, late = 0, shed = 0, lost = 0] = counts;
  return {
    requests: length,
    objective: objectiveOf(objectiveRows(fleet, result, references), weights),
    usdPerThousand: (usd / length) * 1000,
    joulesPerRequest: energy / length,
    p50Ms: percentile(0.5),
    p99Ms: percentile(0.99),
    goodput: spanMs > 0 ? (inTime / spanMs) * 1000 : 0,
    ...{ late, shed, lost },
    slowdown: slowdown / answered,
    meanBatch: batch / answered,
    ...{ spanMs, decisions, hash },
  };
}

function kindOf(arrivals: Arrivals, index: number): { readonly model: number; readonly sloClass: number } {
  return { model: arrivals.model[index] as number, sloClass: arrivals.sloClass[index] as number };
}

/** US dollars of runs that were lost with their device. */
export function lostUsdOf(fleet: Fleet, { devices }: SimulationResult): number {
  return devices.reduce(
    (sum, { lostMs }, index) => sum + (lostMs * (fleet.devices[index] as FleetDevice).usdPerHour) / hourMs,
    0,
  );
}
