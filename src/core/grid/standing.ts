/**
 * What a gateway has learned of replicas, devices and hosts from its own requests: how long attempts take, what the link
 * costs, who failed and is left alone for a while. Mutable, kept by whoever sends, read by pickers.
 *
 * A ban is this gateway's own experience and needs nobody's agreement: it comes at the first failure, long before
 * detectors or leases say anything, and ends by itself or with the next success. Afterwards one request goes ahead; the
 * others stay away until it is answered.
 */
import type { HostId } from '../ids.js';

/** A device or a host as something that may fail. */
export interface Standing {
  /** Moment (ms, monotonic) until which it gets nothing; -Infinity when it is in. */
  bannedUntilMs: number;
  /** Failures since the last success. */
  failuresInRow: number;
}

export interface HostStanding extends Standing {
  readonly host: HostId;
  /** The gateway's own host: no link between. */
  readonly local: boolean;
  /** Mean of what an attempt takes beside queueing and computing, ms; 0 before the first answer; and when it was learned. */
  linkMs: number;
  linkAtMs: number;
  /** Time of a small message to the host and back, ms, as others measured it; 0 when unknown. */
  roundTripMs: number;
}

export interface ReplicaStanding {
  readonly host: HostStanding;
  /** Shared by all replicas on the device. */
  readonly device: Standing;
  /** Relative speed of the device where nothing was measured; 1 is a core of a CPU. */
  readonly speed: number;
  /** Mean time of an attempt from sending to its answer, ms; 0 before the first. */
  attemptMs: number;
  /** Mean of how far attempts were from that mean, ms. */
  deviationMs: number;
  /** How long the last answered request waited in queues over there, ms, and when that was known. */
  queueMs: number;
  queueAtMs: number;
  /** When it last answered, ms; -Infinity before. */
  answeredMs: number;
}

export interface BanRules {
  /** First time out, ms, doubled with each failure in a row. */
  readonly banMsMin: number;
  readonly banMsMax: number;
}

export const defaultBanRules: BanRules = { banMsMin: 250, banMsMax: 10_000 };

export function newHostStanding(host: HostId, local: boolean): HostStanding {
  return { host, local, linkMs: 0, linkAtMs: 0, roundTripMs: 0, bannedUntilMs: -Infinity, failuresInRow: 0 };
}

export function newDeviceStanding(): Standing {
  return { bannedUntilMs: -Infinity, failuresInRow: 0 };
}

export function newReplicaStanding(host: HostStanding, device: Standing, speed: number): ReplicaStanding {
  return { host, device, speed, attemptMs: 0, deviationMs: 0, queueMs: 0, queueAtMs: 0, answeredMs: -Infinity };
}

/** Whether neither the device nor its host is banned. */
export function isIn(standing: ReplicaStanding, nowMs: number): boolean {
  return standing.device.bannedUntilMs <= nowMs && standing.host.bannedUntilMs <= nowMs;
}

/** It failed. Answers whether it was sent out by this: failures of attempts that were under way by then say nothing new. */
export function banFor(standing: Standing, nowMs: number, rules: BanRules): boolean {
  if (standing.bannedUntilMs > nowMs) return false;
  const banMs = Math.min(rules.banMsMax, rules.banMsMin * 2 ** Math.min(30, standing.failuresInRow));
  standing.failuresInRow += 1;
  standing.bannedUntilMs = nowMs + banMs;
  return true;
}

/** It answered: whatever was held against it is forgotten. */
export function forgive(standing: ReplicaStanding): void {
  const { device, host } = standing;
  if (device.failuresInRow > 0) clear(device);
  if (host.failuresInRow > 0) clear(host);
}

/** A request goes to somebody whose ban is over and who has not answered since: the others wait for what becomes of it. */
export function probe(standing: ReplicaStanding, untilMs: number): void {
  const { device, host } = standing;
  if (device.failuresInRow > 0) device.bannedUntilMs = Math.max(device.bannedUntilMs, untilMs);
  if (host.failuresInRow > 0) host.bannedUntilMs = Math.max(host.bannedUntilMs, untilMs);
}

function clear(standing: Standing): void {
  standing.failuresInRow = 0;
  standing.bannedUntilMs = -Infinity;
}

/** What an answered attempt tells. Milliseconds. */
export interface AttemptFigures {
  readonly nowMs: number;
  /** From sending to the answer. */
  readonly elapsedMs: number;
  readonly queueMs: number;
  /** Computing and everything else on that host. */
  readonly serviceMs: number;
  /** It took too long: how much too long says nothing of the link or of other attempts. */
  readonly overdue: boolean;
}

const meanWeight = 0.1;
const deviationWeight = 0.25;

/** Link figures lose their weight over this time, ms: who was once slow to reach is tried again. */
const linkKeptMs = 60_000;
/** Figures of a replica are trusted for this long after its last answer, ms. */
const figuresKeptMs = 5000;

/** Takes the figures of an attempt into the means. */
export function learn(
  standing: ReplicaStanding,
  { nowMs, elapsedMs, queueMs, serviceMs, overdue }: AttemptFigures,
): void {
  standing.answeredMs = nowMs;
  standing.queueMs = Math.min(queueMs, elapsedMs);
  standing.queueAtMs = nowMs;
  if (overdue) {
    // A host that is slow for long raises its limit step by step, one that stood still once does not.
    if (standing.attemptMs > 0) standing.attemptMs *= 1 + meanWeight;
    return;
  }
  if (standing.attemptMs === 0) {
    standing.attemptMs = elapsedMs;
    standing.deviationMs = elapsedMs / 2;
  } else {
    const offMs = elapsedMs - standing.attemptMs;
    standing.deviationMs += deviationWeight * (Math.abs(offMs) - standing.deviationMs);
    standing.attemptMs += meanWeight * offMs;
  }
  const { host } = standing;
  if (host.local) return;
  const linkMs = Math.max(0, elapsedMs - queueMs - serviceMs);
  const weight = Math.min(1, Math.max(meanWeight, (nowMs - host.linkAtMs) / linkKeptMs));
  host.linkMs = host.linkMs === 0 ? linkMs : host.linkMs + weight * (linkMs - host.linkMs);
  host.linkAtMs = nowMs;
}

/** What the link to the host costs, ms, by what is known now. */
export function linkCostMs({ linkMs, linkAtMs, roundTripMs }: HostStanding, nowMs: number): number {
  if (linkMs === 0) return roundTripMs;
  return Math.max(roundTripMs, linkMs * Math.min(1, Math.max(0, 1 - (nowMs - linkAtMs) / linkKeptMs)));
}

/** Whether the replica has been silent for so long that its figures say nothing of how it is now. */
export function isStale({ answeredMs }: ReplicaStanding, nowMs: number): boolean {
  return nowMs - answeredMs > figuresKeptMs;
}

/** What is left of the last known queue: it shrinks by a millisecond a millisecond when nobody adds to it. */
export function queueLeftMs(standing: ReplicaStanding, nowMs: number): number {
  return Math.max(0, standing.queueMs - Math.max(0, nowMs - standing.queueAtMs));
}
