/**
 * A coordination store for simulations: the machine of the embedded store on virtual time, with faults by command. Every
 * host has a client of its own, whose clock may be the host's. Each fault counts how often it bit, in `fired`.
 *
 * Leases and watches keep timers going: run the clock to a moment, not until it is idle.
 */
import { StoreMachine } from '#core/store/machine.js';
import type { StoreLimits } from '#core/store/machine.js';
import { textEntry } from '#core/store/port-shapes.js';
import type { Clock } from '#ports/clock.js';
import type { Random } from '#ports/random.js';
import type { Store, StoreEntry } from '#ports/store.js';
import { PretendStoreClient } from './pretend-store-client.js';
import type { PretendStoreWorld } from './pretend-store-world.js';

export type PretendStoreFault =
  'away' | 'silent' | 'watch-gap' | 'compaction' | 'lease-loss' | 'outcome-unknown' | 'request-lost' | 'wiped' | 'full';

export interface PretendStoreOptions {
  readonly clock: Clock;
  /** For latencies; without it every leg takes the shortest. */
  readonly random?: Random;
  /** Shortest and longest time of one leg, ms. Default 1 and 1. */
  readonly latencyMs?: readonly [number, number];
  readonly limits?: Partial<StoreLimits>;
  /** Between progress events of a quiet watch, ms. Default 5,000. */
  readonly progressMs?: number;
}

/** How a store cannot be reached: `refused` fails at once, `silent` takes every message and answers none. */
export type PretendAbsence = 'refused' | 'silent';

export class PretendStore implements PretendStoreWorld {
  readonly clock: Clock;
  readonly progressMs: number;
  readonly fired: Record<PretendStoreFault, number> = {
    away: 0,
    silent: 0,
    'watch-gap': 0,
    compaction: 0,
    'lease-loss': 0,
    'outcome-unknown': 0,
    'request-lost': 0,
    wiped: 0,
    full: 0,
  };
  machine: StoreMachine;
  private readonly limits: Partial<StoreLimits>;
  private readonly random: Random | undefined;
  private latencyRangeMs: readonly [number, number];
  private readonly clients = new Map<string, PretendStoreClient>();
  private readonly absences = new Map<string, PretendAbsence>();
  private allAbsent: PretendAbsence | undefined;
  private isFull = false;
  private readonly nextOutcomes = new Map<string, 'outcome-unknown' | 'request-lost'>();
  private expiry: { readonly atMs: number; readonly timer: { cancel(): void } } | undefined;
  private clusterCount = 1;
  private leaseCount = 0;
  /** What watches were told to look at last. */
  private told: { readonly machine: StoreMachine; readonly revision: number };

  constructor(options: PretendStoreOptions) {
    this.clock = options.clock;
    this.random = options.random;
    this.latencyRangeMs = options.latencyMs ?? [1, 1];
    this.limits = options.limits ?? {};
    this.progressMs = options.progressMs ?? 5000;
    this.machine = new StoreMachine('1', this.limits);
    this.told = { machine: this.machine, revision: this.machine.revision };
  }

  /** A new client of a host; an earlier one of the same host is crashed. `clock`: the host's own, if it drifts or pauses. */
  client(host: string, clock: Clock = this.clock): Store {
    this.crash(host);
    const client = new PretendStoreClient(this, host, clock);
    this.clients.set(host, client);
    return client;
  }

  /** What the host's client did ends without a word: its leases run out, nobody is told anything. */
  crash(host: string): void {
    this.clients.get(host)?.crash();
    this.clients.delete(host);
  }

  /** The store cannot be reached by that host, or by anybody when none is named. */
  away(absence: PretendAbsence = 'refused', host?: string): void {
    if (host === undefined) this.allAbsent = absence;
    else this.absences.set(host, absence);
    for (const client of this.clients.values()) if (this.absenceOf(client.host) === 'refused') client.disconnect();
  }

  /** It can be reached again. After it was away for all, every lease gets its whole time again, as after a restart. */
  back(host?: string): void {
    if (host === undefined) {
      if (this.allAbsent !== undefined) {
        for (const lease of this.machine.leaseIds()) this.machine.keepAlive(lease, this.clock.nowMs());
      }
      this.allAbsent = undefined;
      this.absences.clear();
      this.watchLeases();
    } else {
      this.absences.delete(host);
    }
    this.changed();
  }

  /** Shortest and longest time of one leg, ms. */
  setLatency(shortestMs: number, longestMs: number): void {
    this.latencyRangeMs = [shortestMs, longestMs];
  }

  /** Ends every lease of that host at the store, as if its keep-alives had not arrived. */
  loseLeases(host: string): void {
    for (const lease of this.clients.get(host)?.leaseIds() ?? []) {
      if (!this.machine.hasLease(lease)) continue;
      this.machine.revoke(lease);
      this.fired['lease-loss'] += 1;
    }
    this.changed();
  }

  /** Ends every watch of that host, or of all, with `lost`. */
  breakWatches(host?: string): void {
    for (const client of this.clients.values()) {
      if (host === undefined || client.host === host) this.fired['watch-gap'] += client.breakWatches();
    }
  }

  /** Forgets all history: whoever is behind has missed something. */
  compact(): void {
    if (this.machine.revision <= this.machine.compactedRevision) return;
    this.machine.compact(this.machine.revision);
    this.fired.compaction += 1;
  }

  /** The next transaction of that host ends with DEADLINE_EXCEEDED, done (`outcome-unknown`) or not (`request-lost`). */
  breakNextTransaction(host: string, how: 'outcome-unknown' | 'request-lost'): void {
    this.nextOutcomes.set(host, how);
  }

  /** The disk is full: whatever writes is refused with STORAGE_FULL. */
  setFull(full: boolean): void {
    this.isFull = full;
  }

  /** Another, empty store takes its place. */
  wipe(): void {
    this.clusterCount += 1;
    this.machine = new StoreMachine(String(this.clusterCount), this.limits);
    this.fired.wiped += 1;
    for (const client of this.clients.values()) client.disconnect();
    this.changed();
  }

  /** Everything in the store right now, by key: for checkers, which look from outside. */
  entries(): StoreEntry[] {
    return this.machine.range({ key: '\0', end: '\0' }).entries.map(textEntry);
  }

  latencyMs(): number {
    const [shortest, longest] = this.latencyRangeMs;
    return shortest + (this.random === undefined ? 0 : this.random.next() * (longest - shortest));
  }

  absenceOf(host: string): PretendAbsence | undefined {
    const absence = this.allAbsent ?? this.absences.get(host);
    return absence;
  }

  noteAbsence(absence: PretendAbsence): void {
    this.fired[absence === 'refused' ? 'away' : 'silent'] += 1;
  }

  takeOutcome(host: string): 'outcome-unknown' | 'request-lost' | undefined {
    const outcome = this.nextOutcomes.get(host);
    this.nextOutcomes.delete(host);
    if (outcome !== undefined) this.fired[outcome] += 1;
    return outcome;
  }

  refusesWrites(): boolean {
    if (this.isFull) this.fired.full += 1;
    return this.isFull;
  }

  newLeaseId(): string {
    this.leaseCount += 1;
    return String(this.leaseCount);
  }

  /** Something was written, or leases changed: watches are told, and the next end of a lease is waited for. */
  changed(): void {
    const { machine } = this;
    const due = machine.compactionDue();
    if (due !== undefined) machine.compact(due);
    const fromRevision = this.told.revision + 1;
    const keys = this.told.machine === machine ? machine.changedKeys(fromRevision) : undefined;
    this.told = { machine, revision: machine.revision };
    if (keys?.length !== 0) for (const client of this.clients.values()) client.pump({ fromRevision, keys });
    this.watchLeases();
  }

  private watchLeases(): void {
    const atMs = this.allAbsent === undefined ? this.machine.nextExpiryMs() : Infinity;
    if (this.expiry?.atMs === atMs) return;
    this.expiry?.timer.cancel();
    this.expiry = { atMs, timer: this.clock.scheduleAt(atMs, () => this.expire()) };
  }

  private expire(): void {
    this.expiry = undefined;
    for (const lease of this.machine.expired(this.clock.nowMs())) this.machine.revoke(lease);
    this.changed();
  }
}
