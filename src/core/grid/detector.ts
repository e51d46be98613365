/**
 * Finds hosts that do not answer: what to send when, whom to suspect, whom to believe again. Views, messages and the time
 * go in, messages come out; it knows no clock and no network.
 *
 * Each host probes those that follow it in the ring, a number that does not grow with the grid. It suspects one after
 * several rounds without a sign of life, neither direct nor through helpers, and then wants to vote against it; whether
 * enough others do too is decided by the votes in the store. A host that cannot tell whether it is itself cut off, or that
 * was paused, accuses nobody.
 */
import type { HostId } from '../ids.js';
import type { DetectorOptions } from './detector-options.js';
import { boundedDevices, type DeviceLoad, type HostNews, type PeerStatus, type ProbeMessage } from './host-load.js';
import { LocalHealth } from './local-health.js';
import { PeerTable } from './peer-table.js';
import { ProbeTarget } from './probe-target.js';
import { RelayDesk } from './relay-desk.js';
import type { Generation, View } from './records.js';
import { emptyView } from './records.js';
import { successorsOf } from './ring.js';
import { SelfCheck } from './self-check.js';

/** What it draws lots with; the Random port fits. */
export interface Chance {
  next(): number;
  below(bound: number): number;
}

export interface ProbeToSend {
  readonly to: HostId;
  readonly message: ProbeMessage;
}

export interface WantedVote {
  readonly generation: Generation;
  readonly reason: string;
}

/** Own news are gathered anew at most this often, ms. */
const ownNewsMs = 200;
/** Longest wait for a stage, however much this host doubts itself, ms. */
const waitMsMax = 10_000;

export class Detector {
  readonly #options: DetectorOptions;
  readonly #chance: Chance;
  readonly #readLoad: () => readonly DeviceLoad[];
  readonly #targets = new Map<HostId, ProbeTarget>();
  readonly #health: LocalHealth;
  readonly #selfCheck: SelfCheck;
  readonly #peers: PeerTable;
  readonly #relays = new RelayDesk();
  readonly #dirty = new Set<HostId>();
  #wanted: ReadonlyMap<HostId, WantedVote> = new Map();
  #statuses: ReadonlyMap<HostId, PeerStatus> = new Map();
  #view: View = emptyView;
  #numbers = 0;
  #sequence = 0;
  #own: HostNews | undefined;
  #ownMs = -Infinity;
  /** Moment for which the next tick was asked for. */
  #tickMs = Infinity;
  #sends: ProbeToSend[] = [];

  constructor(options: DetectorOptions, chance: Chance, readLoad: () => readonly DeviceLoad[]) {
    this.#options = options;
    this.#chance = chance;
    this.#readLoad = readLoad;
    this.#health = new LocalHealth(options.localHealth);
    this.#selfCheck = new SelfCheck(options.selfCheck);
    this.#peers = new PeerTable(options.host);
  }

  /** Votes this host wants in the store; the same map until they change. */
  get wantedVotes(): ReadonlyMap<HostId, WantedVote> {
    return this.#wanted;
  }

  /** Why this host is degraded by its own judgement; empty when it is not. */
  get ownDegraded(): string {
    return this.#own?.load.degraded ?? '';
  }

  /** What is known of each host of the view but this one; the same map until that changes. */
  statuses(): ReadonlyMap<HostId, PeerStatus> {
    if (this.#dirty.size === 0) return this.#statuses;
    const statuses = new Map(this.#statuses);
    for (const host of this.#dirty) {
      if (this.#view.hosts.has(host) && host !== this.#options.host) statuses.set(host, this.#status(host));
      else statuses.delete(host);
    }
    this.#dirty.clear();
    this.#statuses = statuses;
    return statuses;
  }

  /** Moment of the next tick; call it after everything else, and tick then. */
  nextTickMs(nowMs: number): number {
    let nextMs = Math.min(nowMs + this.#options.intervalMs, this.#relays.nextMs);
    for (const target of this.#targets.values()) nextMs = Math.min(nextMs, target.dueMs);
    this.#tickMs = Math.max(nowMs, nextMs);
    return this.#tickMs;
  }

  onView(view: View, nowMs: number): readonly ProbeToSend[] {
    this.#noticeLag(nowMs);
    for (const [host, before] of this.#view.hosts) if (view.hosts.get(host) !== before) this.#dirty.add(host);
    for (const host of view.hosts.keys()) if (!this.#view.hosts.has(host)) this.#dirty.add(host);
    this.#view = view;
    this.#own = undefined;
    this.#peers.onHosts(view.hosts);
    this.#chooseTargets(nowMs);
    for (const target of this.#targets.values()) target.onView(this.#isSuspect(target.host), nowMs);
    this.#updateVotes(nowMs);
    return this.#takeSends();
  }

  onTick(nowMs: number): readonly ProbeToSend[] {
    this.#noticeLag(nowMs);
    for (const { requester, number, target } of this.#relays.takeOverdue(nowMs)) {
      this.#send(requester, { type: 'relayed', from: this.#options.host, number, target, ok: false });
    }
    for (const target of this.#targets.values()) {
      if (target.dueMs > nowMs) continue;
      if (target.stage === 'idle') this.#probe(target, nowMs);
      else if (target.stage === 'direct') this.#askHelpers(target, nowMs);
      else this.#roundFailed(target, nowMs, 'it answers neither this host nor its helpers');
    }
    this.#updateVotes(nowMs);
    return this.#takeSends();
  }

  onMessage(message: ProbeMessage, nowMs: number): readonly ProbeToSend[] {
    this.#noticeLag(nowMs);
    switch (message.type) {
      case 'ping':
        this.#learn(message.news, nowMs);
        this.#selfCheck.onReport(message.from, message.slowness, nowMs);
        this.#send(message.from, {
          type: 'ack',
          from: this.#options.host,
          number: message.number,
          process: this.#options.process,
          news: this.#news(message.from, nowMs),
        });
        break;
      case 'ack':
        this.#learn(message.news, nowMs);
        this.#onAck(message, nowMs);
        break;
      case 'relay':
        this.#onRelay(message, nowMs);
        break;
      case 'relayed':
        this.#onRelayed(message, nowMs);
    }
    this.#updateVotes(nowMs);
    return this.#takeSends();
  }

  /** A message to that host could not even be sent: the direct way is out, there is no need to wait for an answer. */
  onUndeliverable(to: HostId, nowMs: number): readonly ProbeToSend[] {
    const target = this.#targets.get(to);
    // Without helpers the usual wait goes on: a link that breaks and comes back must not make a suspect.
    if (target?.stage === 'direct' && this.#helpersFor(to).length > 0) this.#askHelpers(target, nowMs);
    this.#updateVotes(nowMs);
    return this.#takeSends();
  }

  #noticeLag(nowMs: number): void {
    const lagMs = nowMs - this.#tickMs;
    if (lagMs < 0 || this.#tickMs === Infinity) return;
    this.#tickMs = nowMs;
    const verdict = this.#health.onLag(lagMs, nowMs);
    if (verdict === 'ok') return;
    for (const target of this.#targets.values()) {
      if (verdict === 'paused') target.forgive(nowMs + this.#chance.next() * this.#options.intervalMs);
      else if (target.stage !== 'idle') target.dueMs = Math.max(target.dueMs, nowMs) + lagMs;
    }
    if (verdict === 'paused') this.#relays.clear();
  }

  #chooseTargets(nowMs: number): void {
    const { host: self, observed, intervalMs } = this.#options;
    const { hosts } = this.#view;
    // Suspects stay observed, so that they can be believed again; so many more living ones take their place.
    const near = successorsOf(self, hosts.keys(), observed * 2);
    const chosen = new Set<HostId>();
    let living = 0;
    for (const host of near) {
      if (living >= observed) break;
      chosen.add(host);
      if (!this.#isSuspect(host)) living += 1;
    }
    for (const [host, target] of this.#targets) {
      const now = hosts.get(host);
      target.isObserved = chosen.has(host);
      if (now === undefined || !(target.isObserved || target.isSuspected)) {
        this.#targets.delete(host);
        this.#dirty.add(host);
      } else if (now.generation !== target.generation) target.become(now.generation, now.record.process, nowMs);
    }
    for (const host of chosen) {
      const now = hosts.get(host);
      if (now === undefined || this.#targets.has(host)) continue;
      const incarnation = { generation: now.generation, process: now.record.process };
      const firstMs = nowMs + this.#chance.next() * intervalMs * 0.5;
      this.#targets.set(host, new ProbeTarget(host, incarnation, this.#options, firstMs));
      this.#dirty.add(host);
    }
  }

  #probe(target: ProbeTarget, nowMs: number): void {
    this.#numbers += 1;
    target.startRound(this.#numbers, nowMs, this.#waitMs(target));
    this.#ping(target.host, this.#numbers, nowMs);
  }

  #ping(to: HostId, number: number, nowMs: number): void {
    const slowness = this.#targets.get(to)?.trip.slowness ?? 1;
    this.#send(to, { type: 'ping', from: this.#options.host, number, slowness, news: this.#news(to, nowMs) });
  }

  #askHelpers(target: ProbeTarget, nowMs: number): void {
    const helpers = this.#helpersFor(target.host);
    if (helpers.length === 0) {
      this.#roundFailed(target, nowMs, 'it does not answer, and there is nobody to ask');
      return;
    }
    const waitMs = this.#waitMs(target);
    target.stage = 'indirect';
    target.helpersAsked = helpers.length;
    target.dueMs = nowMs + Math.min(waitMsMax, 2 * waitMs);
    const { host, number, process } = target;
    for (const helper of helpers) {
      this.#send(helper, { type: 'relay', from: this.#options.host, number, target: host, process, waitMs });
    }
  }

  #onAck(message: ProbeMessage & { readonly type: 'ack' }, nowMs: number): void {
    const relay = this.#relays.take(message.number);
    if (relay !== undefined) {
      const ok = message.process === relay.process;
      const { requester, number, target } = relay;
      this.#send(requester, { type: 'relayed', from: this.#options.host, number, target, ok });
      return;
    }
    const target = this.#targets.get(message.from);
    const sentMs = target?.sentMs(message.number);
    if (target === undefined || sentMs === undefined) return;
    if (message.process !== target.process) {
      this.#roundFailed(target, nowMs, 'another process answers in its place', true);
      return;
    }
    const isCurrent = message.number === target.number && target.stage === 'direct';
    target.trip.add(nowMs - sentMs);
    if (isCurrent) this.#health.onAnswer();
    this.#alive(target, 'direct', nowMs, Math.max(nowMs + this.#options.retryMs, sentMs + this.#jittered()));
  }

  #onRelay(message: ProbeMessage & { readonly type: 'relay' }, nowMs: number): void {
    const { from: requester, number, target, process, waitMs } = message;
    const isKnown = this.#view.hosts.has(target) && target !== this.#options.host;
    this.#numbers += 1;
    const dueMs = nowMs + Math.min(waitMsMax, Math.max(0, waitMs));
    const isTaken = isKnown && this.#relays.add(this.#numbers, { requester, number, target, process, dueMs });
    if (isTaken) this.#ping(target, this.#numbers, nowMs);
    else this.#send(requester, { type: 'relayed', from: this.#options.host, number, target, ok: false });
  }

  #onRelayed(message: ProbeMessage & { readonly type: 'relayed' }, nowMs: number): void {
    const target = this.#targets.get(message.target);
    if (target?.stage !== 'indirect' || target.number !== message.number) return;
    target.helpersAnswered += 1;
    if (message.ok) this.#alive(target, 'indirect', nowMs, nowMs + this.#jittered());
    else if (target.helpersAnswered >= target.helpersAsked) {
      this.#roundFailed(target, nowMs, 'it answers neither this host nor its helpers');
    }
  }

  #alive(target: ProbeTarget, how: 'direct' | 'indirect', nowMs: number, nextMs: number): void {
    const wasReachable = target.isReachable;
    const isCleared = target.onAlive(how, nowMs, nextMs);
    if (isCleared || wasReachable !== target.isReachable || how === 'direct') this.#dirty.add(target.host);
    if (isCleared && !target.isObserved) this.#targets.delete(target.host);
  }

  #roundFailed(target: ProbeTarget, nowMs: number, reason: string, proven = false): void {
    const { retryMs, intervalMs } = this.#options;
    if (target.helpersAsked > 0 && target.helpersAnswered === 0 && !proven) this.#health.onLonelyFailure();
    if (!this.#health.mayAccuse(nowMs)) {
      target.forgive(nowMs + retryMs);
      return;
    }
    target.onFailed(nowMs, nowMs + (target.isSuspected ? intervalMs / 2 : retryMs), reason, proven);
    this.#dirty.add(target.host);
  }

  /** Whether this host, rather than all others at once, seems to be cut off: nobody answers it, helpers neither. */
  #isIsolated(): boolean {
    let silent = 0;
    for (const target of this.#targets.values()) {
      // Of those that all suspect already, silence is no news.
      if (this.#isSuspect(target.host)) continue;
      if (target.failures === 0 || target.helpersAnswered > 0) return false;
      silent += 1;
    }
    return silent >= 2;
  }

  #isSuspect(host: HostId): boolean {
    return this.#view.hosts.get(host)?.state === 'suspected';
  }

  #hasSuspects(): boolean {
    for (const target of this.#targets.values()) if (target.isSuspected) return true;
    return false;
  }

  #updateVotes(nowMs: number): void {
    if (this.#wanted.size === 0 && !this.#hasSuspects()) return;
    let isOther = false;
    const wanted = new Map<HostId, WantedVote>();
    const isIsolated = this.#isIsolated();
    for (const target of this.#targets.values()) {
      const { host, generation, reason } = target;
      if (!target.isSuspected || nowMs - target.failedMs > this.#options.voteMsMax) continue;
      const before = this.#wanted.get(host);
      if (before?.generation === generation) wanted.set(host, before);
      else if (!isIsolated && this.#view.hosts.has(host)) {
        wanted.set(host, { generation, reason });
        isOther = true;
      }
    }
    if (isOther || wanted.size !== this.#wanted.size) this.#wanted = wanted;
  }

  #helpersFor(target: HostId): readonly HostId[] {
    const { host: self, helpers } = this.#options;
    const candidates: HostId[] = [];
    // The target's own neighbourhood is enough: a fixed number of hosts, however large the grid is.
    for (const host of successorsOf(target, this.#view.hosts.keys(), 8 + helpers)) {
      if (host !== self && !this.#isSuspect(host)) candidates.push(host);
    }
    const chosen: HostId[] = [];
    while (chosen.length < helpers && candidates.length > 0) {
      chosen.push(...candidates.splice(this.#chance.below(candidates.length), 1));
    }
    return chosen;
  }

  #waitMs(target: ProbeTarget): number {
    return Math.min(waitMsMax, target.trip.timeoutMs() * this.#health.multiplier);
  }

  #jittered(): number {
    return this.#options.intervalMs * (0.9 + 0.2 * this.#chance.next());
  }

  #learn(news: readonly HostNews[], nowMs: number): void {
    this.#peers.learn(news, this.#view.hosts, nowMs, this.#dirty);
  }

  #news(to: HostId, nowMs: number): readonly HostNews[] {
    return [this.#ownNews(nowMs), ...this.#peers.take(this.#options.newsMax, to, nowMs)];
  }

  #ownNews(nowMs: number): HostNews {
    if (this.#own !== undefined && nowMs - this.#ownMs < ownNewsMs) {
      return { ...this.#own, ageMs: nowMs - this.#ownMs };
    }
    this.#sequence += 1;
    const { lagMs } = this.#health;
    const { host, process } = this.#options;
    const load = {
      devices: boundedDevices(this.#readLoad()),
      eventLoopLagMs: lagMs,
      degraded: this.#selfCheck.degraded(lagMs, nowMs),
    };
    const { revision } = this.#view;
    this.#own = { host, process, sequence: this.#sequence, viewRevision: revision, ageMs: 0, load };
    this.#ownMs = nowMs;
    return this.#own;
  }

  #status(host: HostId): PeerStatus {
    const known = this.#peers.get(host);
    const target = this.#targets.get(host);
    return {
      reachable: target?.isReachable ?? true,
      degraded: known?.load.degraded ?? '',
      load: known?.load,
      learnedMs: known?.saidMs ?? -Infinity,
      viewRevision: known?.viewRevision ?? 0,
      roundTripMs: target?.trip.meanMs ?? 0,
    };
  }

  #send(to: HostId, message: ProbeMessage): void {
    this.#sends.push({ to, message });
  }

  #takeSends(): readonly ProbeToSend[] {
    const sends = this.#sends;
    this.#sends = [];
    return sends;
  }
}
