/**
 * Leases of a store: which keys end with them, and when. Times are the holder's of the table: monotonic, handed in. They are
 * not written down: after a restart every lease gets its whole time again, so that a store that was away ends nobody early.
 */
import { StoreRefusal } from './requests.js';

interface Lease {
  readonly id: string;
  readonly ttlSeconds: number;
  readonly keys: Set<string>;
  expiresMs: number;
}

/** Longest time to live, seconds, as in etcd. */
export const leaseTtlSecondsMax = 9_000_000_000;

export class LeaseTable {
  private readonly leases = new Map<string, Lease>();
  private readonly byKey = new Map<string, Lease>();

  get size(): number {
    return this.leases.size;
  }

  has(id: string): boolean {
    return this.leases.has(id);
  }

  grant(id: string, ttlSeconds: number, nowMs: number): void {
    this.leases.set(id, { id, ttlSeconds, keys: new Set(), expiresMs: nowMs + ttlSeconds * 1000 });
  }

  /** Its time to live, seconds. @throws StoreRefusal NOT_FOUND */
  keepAlive(id: string, nowMs: number): number {
    const lease = this.find(id);
    lease.expiresMs = nowMs + lease.ttlSeconds * 1000;
    return lease.ttlSeconds;
  }

  /** @throws StoreRefusal NOT_FOUND */
  find(id: string): Readonly<Lease> & { expiresMs: number } {
    const lease = this.leases.get(id);
    if (lease === undefined) throw new StoreRefusal('NOT_FOUND', 'requested lease not found');
    return lease;
  }

  all(): IterableIterator<Readonly<Lease>> {
    return this.leases.values();
  }

  /** The key ends with that lease from now on, or with none: `0`, or one that is no more. */
  attach(key: string, id: string): void {
    this.byKey.get(key)?.keys.delete(key);
    const lease = this.leases.get(id);
    if (lease === undefined) {
      this.byKey.delete(key);
    } else {
      lease.keys.add(key);
      this.byKey.set(key, lease);
    }
  }

  /** Forgets a lease and returns its keys, in order. */
  remove(id: string): string[] {
    const lease = this.leases.get(id);
    if (lease === undefined) return [];
    this.leases.delete(id);
    for (const key of lease.keys) this.byKey.delete(key);
    return [...lease.keys].sort();
  }

  /** Leases whose time is over, the longest overdue first. */
  expired(nowMs: number): string[] {
    return [...this.leases.values()]
      .filter((lease) => lease.expiresMs <= nowMs)
      .sort((a, b) => a.expiresMs - b.expiresMs || (a.id < b.id ? -1 : 1))
      .map((lease) => lease.id);
  }

  /** Gives every lease that much more time: the store stood still and could hear nobody. */
  extend(durationMs: number): void {
    for (const lease of this.leases.values()) lease.expiresMs += durationMs;
  }

  /** When the next lease ends, ms; Infinity without one. */
  nextExpiryMs(): number {
    let next = Infinity;
    for (const lease of this.leases.values()) next = Math.min(next, lease.expiresMs);
    return next;
  }

  clear(): void {
    this.leases.clear();
    this.byKey.clear();
  }
}
