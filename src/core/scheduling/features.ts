/**
 * The one feature builder of dispatch: what the live gateway scores, the simulator feeds, the trainer learns from and the
 * decision log keeps. Skew between these is the commonest silent failure of learned schedulers, so nobody else computes a
 * feature. policies/README.md explains each; the golden vectors of its test pin them.
 *
 * Times are divided by the request's own target, costs by the cheapest way to serve it alone, everything is clipped to
 * [-3, 3]: one network is valid for every model, device and target.
 */
import {
  expectedMs,
  marginalUsd,
  soloUsd,
  type DispatchCandidate,
  type DispatchRequest,
  type FleetView,
} from './dispatch-view.js';

/** Changes whenever a feature's meaning does: artefacts and logs of another schema are refused. */
export const dispatchSchema = 'dispatch-1';

export const candidateFeatureNames: readonly string[] = [
  'net',
  'running',
  'ahead',
  'service',
  'slack',
  'spread',
  'queue',
  'work',
  'marginal',
  'room',
  'cost',
  'energy',
  'price_rank',
  'resident',
  'load',
  'memory',
  'prefix_hit',
  'transfer',
  'spot_risk',
  'thermal_headroom',
  'telemetry_age',
  'error_rate',
  'ratio',
  'stages',
];

export const fleetFeatureNames: readonly string[] = [
  'load_1s',
  'load_30s',
  'burstiness',
  'interactive_share',
  'class_interactive',
  'class_standard',
  'class_batch',
  'hour',
];

export const featureNames: readonly string[] = [...candidateFeatureNames, ...fleetFeatureNames];
export const featureCount = 32;

/** A network that also sees what the fluid programme would do: the row of `dispatchSchema`, and these behind it. */
export const planSchema = 'dispatch-2';
export const planFeatureNames: readonly string[] = ['plan_turn', 'plan_share', 'plan_busy', 'plan_known'];
export const planFeatureCount = 36;
export type DispatchSchema = typeof dispatchSchema | typeof planSchema;

/** Names of the elements of a row, by schema. */
export function featuresOf(schema: DispatchSchema): readonly string[] {
  return schema === planSchema ? [...featureNames, ...planFeatureNames] : featureNames;
}
const fleetOffset = 24;

/** Where the elements are that others look at. */
export const slackFeature = 4;
export const costFeature = 10;
export const stagesFeature = 23;

const clipAt = 3;

function clip(value: number): number {
  // NaN falls through both comparisons and stays visible: the shield refuses it.
  return value > clipAt ? clipAt : value < -clipAt ? -clipAt : value;
}

/** What all rows of one decision are measured by. */
export interface DispatchScale {
  /** Least `soloUsd` of the candidates that may be chosen; 0 when unknown. */
  usd: number;
  /** Least joules of the request in a batch of its own; 0 when unknown. */
  joules: number;
}

/** Least costs among the first `count` candidates that are not masked; all of them when all are. */
export function measureScale(
  candidates: readonly DispatchCandidate[],
  count: number,
  fleet: FleetView,
  scale: DispatchScale,
): void {
  let usd = Infinity;
  let joules = Infinity;
  for (let index = 0; index < count; index += 1) {
    const candidate = candidates[index] as DispatchCandidate;
    if (candidate.masked !== '') continue;
    const ownUsd = soloUsd(candidate, fleet);
    const ownJoules = (candidate.watts * candidate.soloMs) / 1000;
    if (ownUsd > 0 && ownUsd < usd) usd = ownUsd;
    if (ownJoules > 0 && ownJoules < joules) joules = ownJoules;
  }
  scale.usd = usd === Infinity ? 0 : usd;
  scale.joules = joules === Infinity ? 0 : joules;
}

/** Writes the row of one candidate: `featureCount` numbers from `offset` on. */
export function writeFeatures(
  request: DispatchRequest,
  candidate: DispatchCandidate,
  fleet: FleetView,
  scale: DispatchScale,
  out: Float32Array,
  offset: number,
): void {
  const perTarget = 1 / request.sloMs;
  const doneMs = expectedMs(candidate);
  const { itemsMax, needBytes } = candidate;
  const filled = candidate.queueItems % itemsMax;
  out[offset] = clip(candidate.netMs * perTarget);
  out[offset + 1] = clip(candidate.runningMs * perTarget);
  out[offset + 2] = clip(candidate.queuedAheadMs * perTarget);
  out[offset + 3] = clip(candidate.serviceMs * perTarget);
  out[offset + 4] = clip(1 - (request.nowMs - request.arrivedMs + doneMs) * perTarget);
  out[offset + 5] = clip(candidate.spread * candidate.serviceMs * perTarget);
  out[offset + 6] = clip(candidate.queueItems / itemsMax);
  out[offset + 7] = clip(Math.log1p(candidate.workMs * perTarget));
  out[offset + 8] = clip(candidate.soloMs > 0 ? candidate.marginalMs / candidate.soloMs : 1);
  out[offset + 9] = clip(filled === 0 ? 0 : (itemsMax - filled) / itemsMax);
  out[offset + 10] = scale.usd > 0 ? clip(Math.log1p(marginalUsd(candidate, fleet) / scale.usd)) : 0;
  out[offset + 11] =
    scale.joules > 0 ? clip(Math.log1p((candidate.watts * candidate.marginalMs) / 1000 / scale.joules)) : 0;
  out[offset + 12] = clip(candidate.priceRank);
  out[offset + 13] = candidate.resident ? 1 : 0;
  out[offset + 14] = candidate.resident ? 0 : clip(Math.log1p(candidate.loadMs * perTarget));
  out[offset + 15] =
    needBytes > 0 ? clip(Math.log1p(Math.max(0, candidate.freeMemoryBytes - needBytes) / needBytes)) : clipAt;
  out[offset + 16] = clip(candidate.prefixHit);
  out[offset + 17] = clip(candidate.transferMs * perTarget);
  out[offset + 18] = clip(Math.log1p((candidate.spotHazardPerHour * doneMs) / 360));
  out[offset + 19] = clip(candidate.thermalHeadroom);
  out[offset + 20] = clip(Math.log1p(candidate.telemetryAgeMs / 1000));
  out[offset + 21] = clip(candidate.errorRate);
  out[offset + 22] = clip(Math.log(candidate.ratioEwma));
  out[offset + 23] = clip(candidate.stages / 8);
  writeFleet(request, fleet, out, offset + fleetOffset);
}

/**
 * Writes the row of refusing the request: no device, no time, no cost, and the best slack and the least cost that the
 * candidates offer instead. Only this row has 0 stages.
 */
export function writeShedFeatures(
  request: DispatchRequest,
  candidates: readonly DispatchCandidate[],
  count: number,
  fleet: FleetView,
  scale: DispatchScale,
  out: Float32Array,
  offset: number,
): void {
  let leastMs = Infinity;
  let leastUsd = Infinity;
  for (let index = 0; index < count; index += 1) {
    const candidate = candidates[index] as DispatchCandidate;
    if (candidate.masked !== '') continue;
    leastMs = Math.min(leastMs, expectedMs(candidate));
    leastUsd = Math.min(leastUsd, marginalUsd(candidate, fleet));
  }
  out.fill(0, offset, offset + fleetOffset);
  out[offset + slackFeature] = clip(1 - (request.nowMs - request.arrivedMs + leastMs) / request.sloMs);
  out[offset + costFeature] = scale.usd > 0 ? clip(Math.log1p(leastUsd / scale.usd)) : 0;
  writeFleet(request, fleet, out, offset + fleetOffset);
}

function writeFleet(request: DispatchRequest, fleet: FleetView, out: Float32Array, offset: number): void {
  out[offset] = clip(fleet.load1s);
  out[offset + 1] = clip(fleet.load30s);
  out[offset + 2] = clip(Math.log1p(fleet.burstiness));
  out[offset + 3] = clip(fleet.interactiveShare);
  out[offset + 4] = request.class === 'interactive' ? 1 : 0;
  out[offset + 5] = request.class === 'standard' ? 1 : 0;
  out[offset + 6] = request.class === 'batch' ? 1 : 0;
  out[offset + 7] = Math.sin(2 * Math.PI * fleet.hourPhase);
}

/** What writes the features behind those of `dispatchSchema`: `RatePlan`, told of the request before. */
export interface PlanWriter {
  write(candidate: DispatchCandidate, out: Float32Array, offset: number): void;
}

/**
 * All rows of a decision: the candidates in their order, then the row of refusing when the request may be refused. Answers
 * how many rows; `out` must have room for `candidates.length + 1`. With a plan they are rows of `planSchema`.
 */
export function writeRows(
  request: DispatchRequest,
  candidates: readonly DispatchCandidate[],
  fleet: FleetView,
  scale: DispatchScale,
  out: Float32Array,
  plan?: PlanWriter,
): number {
  const count = candidates.length;
  const width = plan === undefined ? featureCount : planFeatureCount;
  measureScale(candidates, count, fleet, scale);
  for (let index = 0; index < count; index += 1) {
    const candidate = candidates[index] as DispatchCandidate;
    writeFeatures(request, candidate, fleet, scale, out, index * width);
    plan?.write(candidate, out, index * width + featureCount);
  }
  if (!request.mayShed) return count;
  writeShedFeatures(request, candidates, count, fleet, scale, out, count * width);
  // Nothing is refused by plan: it sends or drops whole shares.
  if (plan !== undefined) out.fill(0, count * width + featureCount, (count + 1) * width);
  return count + 1;
}
