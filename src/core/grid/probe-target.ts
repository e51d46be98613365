/**
 * One host that is observed: where its probe stands, how often it failed, since when it is suspected. Rounds follow each
 * other: a direct probe; when no answer comes in time, the same through helpers; when that fails too, the round failed.
 */
import type { HostId } from '../ids.js';
import { FlapDamping, type FlapLimits } from './flap-damping.js';
import type { Generation } from './records.js';
import { RoundTrip, type RoundTripLimits } from './round-trip.js';

export interface TargetLimits {
  readonly roundTrip: RoundTripLimits;
  readonly flaps: FlapLimits;
  /** Rounds that fail one after the other before a host is suspected. */
  readonly failuresToSuspect: number;
}

/** Probes whose answers are still of use, those that came too late included. */
const sentMax = 4;

export class ProbeTarget {
  readonly host: HostId;
  generation: Generation;
  process: string;
  readonly trip: RoundTrip;
  /** Whether it follows this host in the ring; otherwise it is probed only until it is no longer suspected. */
  isObserved = true;
  stage: 'idle' | 'direct' | 'indirect' = 'idle';
  /** Idle: moment of the next probe. Otherwise: moment at which the stage has failed. */
  dueMs: number;
  /** Number of the probe of this round. */
  number = 0;
  helpersAsked = 0;
  helpersAnswered = 0;
  /** Rounds that failed since the last sign of life. */
  failures = 0;
  /** Rounds since the last direct answer. */
  pathFailures = 0;
  /** Moment of the last failed round. */
  failedMs = -Infinity;
  reason = '';
  readonly #limits: TargetLimits;
  readonly #flaps: FlapDamping;
  readonly #sent: { readonly number: number; readonly atMs: number }[] = [];
  #isSuspected = false;
  #isSuspectedByAll = false;
  /** Whether this spell of suspicion, its own or everybody's, was counted. */
  #isCounted = false;
  /** Whether it answered since it was suspected. */
  #hasAnswered = false;
  /** First sign of life since the last failed round. */
  #goodSinceMs: number | undefined;

  constructor(
    host: HostId,
    incarnation: { readonly generation: Generation; readonly process: string },
    limits: TargetLimits,
    dueMs: number,
  ) {
    this.host = host;
    this.generation = incarnation.generation;
    this.process = incarnation.process;
    this.#limits = limits;
    this.trip = new RoundTrip(limits.roundTrip);
    this.#flaps = new FlapDamping(limits.flaps);
    this.dueMs = dueMs;
  }

  get isSuspected(): boolean {
    return this.#isSuspected;
  }

  /** Whether requests can be sent there from here. */
  get isReachable(): boolean {
    return !this.#isSuspected && this.pathFailures < this.#limits.failuresToSuspect;
  }

  /** Another incarnation took its place: what was known of the old one is void, how it flapped is not. */
  become(generation: Generation, process: string, nowMs: number): void {
    const isOtherProcess = process !== this.process;
    this.generation = generation;
    this.process = process;
    if (!isOtherProcess) return;
    this.#isSuspected = false;
    this.#sent.length = 0;
    this.forgive(nowMs);
  }

  /** Whatever is in flight says nothing: the next probe begins anew. */
  forgive(nextMs: number): void {
    this.stage = 'idle';
    this.dueMs = nextMs;
    this.failures = 0;
    this.pathFailures = 0;
  }

  startRound(number: number, nowMs: number, waitMs: number): void {
    this.stage = 'direct';
    this.number = number;
    this.dueMs = nowMs + waitMs;
    this.helpersAsked = 0;
    this.helpersAnswered = 0;
    this.#sent.push({ number, atMs: nowMs });
    if (this.#sent.length > sentMax) this.#sent.shift();
  }

  /** Moment at which a probe was sent; undefined when its answer is of no use any more. */
  sentMs(number: number): number | undefined {
    return this.#sent.find((probe) => probe.number === number)?.atMs;
  }

  /** A sign of life, by itself or through a helper. True when it is no longer suspected with that. */
  onAlive(how: 'direct' | 'indirect', nowMs: number, nextMs: number): boolean {
    this.stage = 'idle';
    this.dueMs = nextMs;
    this.failures = 0;
    this.pathFailures = how === 'direct' ? 0 : this.pathFailures + 1;
    if (!this.#isSuspected) return false;
    this.#hasAnswered = true;
    this.#goodSinceMs ??= nowMs;
    if (nowMs - this.#goodSinceMs < this.#flaps.quietMs(nowMs)) return false;
    this.#isSuspected = false;
    this.#hasAnswered = false;
    this.#count(nowMs);
    return true;
  }

  /** A round without a sign of life. `proven`: its process is known to be gone. */
  onFailed(nowMs: number, nextMs: number, reason: string, proven: boolean): void {
    this.stage = 'idle';
    this.dueMs = nextMs;
    this.failures = proven ? Math.max(this.failures + 1, this.#limits.failuresToSuspect) : this.failures + 1;
    this.pathFailures += 1;
    this.failedMs = nowMs;
    this.reason = reason;
    this.#goodSinceMs = undefined;
    if (this.failures < this.#limits.failuresToSuspect) return;
    // A relapse before it was believed again is one too.
    if (this.#hasAnswered) this.#isCounted = false;
    this.#hasAnswered = false;
    this.#isSuspected = true;
    this.#count(nowMs);
  }

  /** What the view says of it. Everybody who observes it counts its relapses, whoever voted. */
  onView(isSuspected: boolean, nowMs: number): void {
    this.#isSuspectedByAll = isSuspected;
    this.#count(nowMs);
  }

  #count(nowMs: number): void {
    const isBad = this.#isSuspected || this.#isSuspectedByAll;
    if (isBad && !this.#isCounted) this.#flaps.onSuspected(nowMs);
    this.#isCounted = isBad;
  }
}
