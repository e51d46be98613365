/**
 * The objective that policies are judged and trained by: the mean over requests of what they cost, in units of the cheapest
 * way to serve each, and of a price for each that was late or not served.
 *
 *   J = mean( C/c_ref + λ_class · missed + 0.2 · λ_class · clip((D − T)/T, 0, 2) + η · E/e_ref ) + lost runs
 *
 * C: US dollars of the request's share of its run. c_ref: the least it can cost in a run of its own that is in time; where
 * none is, the least at all. missed: late, shed or failed. D: time taken, T: target. E: joules. Lost runs: what was computed
 * for nobody, in units of the mean c_ref. Money for devices that stand idle belongs to residency, not to J. Lower is better.
 *
 * Worked: a request costs 3e-7 USD where 2e-7 were enough and is in time: 1.5. With λ = 10, one that took 1.2 times its target
 * adds 10 + 0.2 · 10 · 0.2 = 10.4 to its own cost.
 */
import { sloClasses } from './slo-class.js';

export interface ObjectiveWeights {
  /** λ by class, in the order of `sloClasses`. */
  readonly missWeight: readonly number[];
  /** Of the lateness of an answer, in units of λ. */
  readonly lateWeight: number;
  /** η. */
  readonly energyWeight: number;
}

export const defaultObjective: ObjectiveWeights = { missWeight: [10, 10, 10], lateWeight: 0.2, energyWeight: 0 };

/** Columns over requests. */
export interface ObjectiveRows {
  /** C/c_ref and E/e_ref; 0 for what was not served. */
  readonly cost: Float64Array;
  readonly energy: Float64Array;
  /** 1 when it was late or not served. */
  readonly missed: Uint8Array;
  /** (D − T)/T; 0 or less when in time, and for what was not served. */
  readonly lateness: Float64Array;
  /** Index into `sloClasses`. */
  readonly sloClass: Uint8Array;
  /** US dollars of runs that answered nobody, over the mean c_ref. */
  readonly lost: number;
}

export interface Objective {
  readonly total: number;
  /** Its parts, which add up to it. */
  readonly cost: number;
  readonly misses: number;
  readonly lateness: number;
  readonly energy: number;
  /** Share of requests missed, by class; NaN for a class without requests. */
  readonly missShare: readonly number[];
}

const latenessMax = 2;

/** @param from First row that counts: those before warm the fleet up. Default 0. */
export function objectiveOf(rows: ObjectiveRows, weights: ObjectiveWeights = defaultObjective, from = 0): Objective {
  const { cost, energy, missed, lateness, sloClass, lost } = rows;
  const count = cost.length - from;
  const requests = sloClasses.map(() => 0);
  const misses = sloClasses.map(() => 0);
  let costSum = lost;
  let missSum = 0;
  let lateSum = 0;
  let energySum = 0;
  for (let index = from; index < cost.length; index += 1) {
    const at = sloClass[index] as number;
    const weight = weights.missWeight[at] ?? 0;
    requests[at] = (requests[at] ?? 0) + 1;
    costSum += cost[index] as number;
    energySum += weights.energyWeight * (energy[index] as number);
    if (missed[index] === 1) {
      misses[at] = (misses[at] ?? 0) + 1;
      missSum += weight;
      lateSum += weights.lateWeight * weight * Math.min(latenessMax, Math.max(0, lateness[index] as number));
    }
  }
  return {
    total: (costSum + missSum + lateSum + energySum) / count,
    cost: costSum / count,
    misses: missSum / count,
    lateness: lateSum / count,
    energy: energySum / count,
    missShare: misses.map((missedOf, at) => missedOf / (requests[at] ?? 0)),
  };
}
