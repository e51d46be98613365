/**
 * What a dispatch policy sees of one decision: the request, a row of figures for each replica or plan that might take it, and
 * the fleet as a whole. All of it is mutable and reused from decision to decision, so that a decision allocates nothing:
 * whoever wants to keep a figure copies it. policies/README.md says what each figure means and where it comes from.
 */
import type { SloClass } from './slo-class.js';

/** A replica, or a plan of several stages, that might take the request. Times in ms, predicted from profiles. */
export interface DispatchCandidate {
  /** Number of the first device, the same for all models on it; small, from 0 on. */
  device: number;
  /** There and back, and the stages after the first. */
  netMs: number;
  /** What is left of the batch that runs on the first device. */
  runningMs: number;
  /** Waiting work that runs before the batch which this request would join, all models of the device. */
  queuedAheadMs: number;
  /** The batch which this request would join, with it inside. */
  serviceMs: number;
  /** What the request adds to the device's work: ℓ(n + items) - ℓ(n), n what waits in its batch. */
  marginalMs: number;
  /** A batch of this request alone. */
  soloMs: number;
  /** The largest batch the model takes here. */
  fullMs: number;
  /** All work on the device without this request: the rest of what runs and everything that waits. */
  workMs: number;
  /** Items of this model that wait on the device. */
  queueItems: number;
  /** Items of all models sent to the device and not answered. */
  deviceItems: number;
  /** Items of the largest batch, at least 1. */
  itemsMax: number;
  /** (p95 - p50) / p50 of a run's time. */
  spread: number;
  /** USD per hour while busy; for a plan such that `marginalMs` times it is the cost over all stages. 0 when unknown. */
  usdPerHour: number;
  /** Where the price stands among the fleet's devices, 0 the cheapest to 1 the dearest. */
  priceRank: number;
  /** Watts while busy; 0 when unknown. */
  watts: number;
  /** USD for moving the request's bytes. */
  transferUsd: number;
  /** Whether the model is loaded; when it is not, `loadMs` is how long loading takes. */
  resident: boolean;
  loadMs: number;
  freeMemoryBytes: number;
  /** What the request needs on the device while it runs. */
  needBytes: number;
  /** Time to move the request's bytes over the slowest link, part of `netMs`. */
  transferMs: number;
  /** Share of a prompt's prefix that the device has already, 0 to 1. */
  prefixHit: number;
  /** Expected losses of the device per hour; 0 where it is not spot. */
  spotHazardPerHour: number;
  /** 1 cool, 0 at its limit. */
  thermalHeadroom: number;
  /** Age of what is known of others' work on the device; 0 on the own host. */
  telemetryAgeMs: number;
  /** Recent share of failed attempts, 0 to 1. */
  errorRate: number;
  /** Recent mean of actual over predicted run time; 1 when as predicted or unknown. */
  ratioEwma: number;
  /** At least 1. */
  stages: number;
  /** Why it may not be chosen; empty when it may. */
  masked: string;
}

export interface DispatchRequest {
  model: string;
  items: number;
  /** Milliseconds from arrival to a timely answer, above 0. */
  sloMs: number;
  class: SloClass;
  nowMs: number;
  arrivedMs: number;
  /** Whether the request may be refused when no candidate can be in time. */
  mayShed: boolean;
}

/** The fleet as the sender knows it. */
export interface FleetView {
  /** Arriving work over what the fleet can do, mean of about 1 s and of about 30 s; 1 is as much as it can do. */
  load1s: number;
  load30s: number;
  /** Variance over mean of the arrivals in 100 ms, last 10 s; 1 for a Poisson stream. */
  burstiness: number;
  /** Share of interactive items among those under way, 0 to 1. */
  interactiveShare: number;
  /** Time of day, 0 to 1. */
  hourPhase: number;
  /** Price of energy where devices' prices do not include it; 0 where they do. */
  usdPerKwh: number;
}

/** The part of a random stream that policies use. */
export interface Chance {
  /** Uniform in [0, 1). */
  next(): number;
  /** Uniform whole number in [0, bound). */
  below(bound: number): number;
}

/** Answer of a policy that refuses the request. */
export const SHED = -1;
/** Answer of a policy when every candidate is masked. */
export const NONE = -2;

/** How the last choice came about, beside the choice itself. Mutable, overwritten by the next one. */
export interface ChoiceTrace {
  /** Chance with which the choice was made, given the candidates; 1 where nothing was drawn. */
  propensity: number;
  /** Why a learned policy left the decision to its rule; empty when it did not. */
  fallback: string;
  /** Score of a candidate, or of refusing (`SHED`), in the last choice; NaN for one that was not scored. For the decision log. */
  scoreOf?(choice: number): number;
  /**
   * Writes what the fluid programme said of a candidate at the last choice, `planFeatureNames` of them, until the next one; absent
   * for policies that see nothing of it. For the decision log.
   */
  writePlan?(candidate: DispatchCandidate, out: Float32Array, offset: number): void;
}

export interface DispatchPolicy {
  /** Goes into receipts and the decision log. */
  readonly name: string;
  /** Absent for rules that neither draw nor fall back. */
  readonly trace?: ChoiceTrace;
  /** Tells the policy what became of a request that came at `arrivedMs`, late or not; for those that watch themselves. */
  finished?(model: string, sloClass: SloClass, late: boolean, nowMs: number, arrivedMs?: number): void;
  /**
   * Index of the chosen candidate, never a masked one; `SHED` only where the request may be refused; `NONE` when all are
   * masked. Synchronous, without allocation; all chance comes from `random`.
   */
  choose(request: DispatchRequest, candidates: readonly DispatchCandidate[], fleet: FleetView, random: Chance): number;
}

export function newDispatchCandidate(): DispatchCandidate {
  return {
    device: 0,
    netMs: 0,
    runningMs: 0,
    queuedAheadMs: 0,
    serviceMs: 1,
    marginalMs: 1,
    soloMs: 1,
    fullMs: 1,
    workMs: 0,
    queueItems: 0,
    deviceItems: 0,
    itemsMax: 1,
    spread: 0,
    usdPerHour: 0,
    priceRank: 0,
    watts: 0,
    transferUsd: 0,
    resident: true,
    loadMs: 0,
    freeMemoryBytes: 0,
    needBytes: 0,
    transferMs: 0,
    prefixHit: 0,
    spotHazardPerHour: 0,
    thermalHeadroom: 1,
    telemetryAgeMs: 0,
    errorRate: 0,
    ratioEwma: 1,
    stages: 1,
    masked: '',
  };
}

export function newFleetView(): FleetView {
  return { load1s: 0, load30s: 0, burstiness: 1, interactiveShare: 0, hourPhase: 0, usdPerKwh: 0 };
}

/** Milliseconds from now to the answer (E in policies/README.md), loading included. */
export function expectedMs(candidate: DispatchCandidate): number {
  const waitMs = candidate.runningMs + candidate.queuedAheadMs;
  return candidate.netMs + (candidate.resident ? waitMs : Math.max(waitMs, candidate.loadMs)) + candidate.serviceMs;
}

const hourMs = 3_600_000;
const kwhJoules = 3_600_000;

/** USD of so many milliseconds of the candidate, energy included. */
export function busyUsd(candidate: DispatchCandidate, ms: number, fleet: FleetView): number {
  return (candidate.usdPerHour / hourMs + ((candidate.watts / 1000) * fleet.usdPerKwh) / kwhJoules) * ms;
}

/** USD that the request adds to what the candidate does anyway (κ): busy time, energy, transfer. */
export function marginalUsd(candidate: DispatchCandidate, fleet: FleetView): number {
  return busyUsd(candidate, candidate.marginalMs, fleet) + candidate.transferUsd;
}

/** USD of the request in a batch of its own: the least over all candidates is what its cost is measured by (c_ref). */
export function soloUsd(candidate: DispatchCandidate, fleet: FleetView): number {
  return busyUsd(candidate, candidate.soloMs, fleet) + candidate.transferUsd;
}
