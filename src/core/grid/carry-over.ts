/**
 * Keeps hosts in the view that vanished from the store through the store's own fault. When a host's own record is gone
 * although it lives, others that vanish are probably as alive as it is: the store was wiped, or was out of reach of all
 * until their leases ended. They stay until they are back, until probes say otherwise, or until time is up.
 */
import type { HostId } from '../ids.js';
import type { View, ViewHost } from './records.js';

export class CarryOver {
  readonly #graceMs: number;
  readonly #carried = new Map<HostId, ViewHost>();
  #isOwnGone = false;
  /** End of the time in which those that vanish are carried. */
  #endMs = -Infinity;

  /** Hosts are carried for so long after this host's own record is back, ms. */
  constructor(graceMs: number) {
    this.#graceMs = graceMs;
  }

  get hosts(): ReadonlyMap<HostId, ViewHost> {
    return this.#carried;
  }

  /** The own record is not in the store, though this host wants it to be; or it is there again. */
  onOwnRecord(isGone: boolean, nowMs: number): void {
    if (this.#isOwnGone && !isGone) this.#endMs = nowMs + this.#graceMs;
    this.#isOwnGone = isGone;
  }

  /** The store says something new. Drained hosts are let go: they said that they would leave. */
  onView(before: View, now: View, nowMs: number): void {
    for (const host of this.#carried.keys()) if (now.hosts.has(host)) this.#carried.delete(host);
    if (!this.#isActive(nowMs)) return;
    for (const [host, was] of before.hosts) {
      if (!now.hosts.has(host) && was.state === 'up') this.#carried.set(host, was);
    }
  }

  /** Lets those go that cannot be reached, and all when time is up. True when somebody went. */
  prune(isReachable: (host: HostId) => boolean, nowMs: number): boolean {
    const before = this.#carried.size;
    const isOver = !this.#isActive(nowMs);
    for (const host of this.#carried.keys()) if (isOver || !isReachable(host)) this.#carried.delete(host);
    return this.#carried.size !== before;
  }

  /** Moment of the next `prune` that time asks for; Infinity when none does. */
  get pruneMs(): number {
    return this.#carried.size === 0 || this.#isOwnGone ? Infinity : this.#endMs;
  }

  /** The view with those that are carried; the view itself when there are none. */
  over(view: View): View {
    if (this.#carried.size === 0) return view;
    return { revision: view.revision, hosts: new Map([...view.hosts, ...this.#carried]) };
  }

  #isActive(nowMs: number): boolean {
    return this.#isOwnGone || nowMs < this.#endMs;
  }
}
