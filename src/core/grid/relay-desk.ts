/** Probes that this host carries out in the place of others, until they are answered or overdue. Bounded. */
import type { HostId } from '../ids.js';

export interface Relay {
  readonly requester: HostId;
  /** Number of the requester's. */
  readonly number: number;
  readonly target: HostId;
  /** Text of the process that must answer. */
  readonly process: string;
  readonly dueMs: number;
}

/** Beyond it the requester is told at once that nobody answered. */
const relaysMax = 256;

export class RelayDesk {
  readonly #relays = new Map<number, Relay>();
  #nextMs = Infinity;

  /** Moment at which something may be overdue; Infinity when nothing waits. */
  get nextMs(): number {
    return this.#nextMs;
  }

  /** False when there are too many already. */
  add(number: number, relay: Relay): boolean {
    if (this.#relays.size >= relaysMax) return false;
    this.#relays.set(number, relay);
    this.#nextMs = Math.min(this.#nextMs, relay.dueMs);
    return true;
  }

  take(number: number): Relay | undefined {
    const relay = this.#relays.get(number);
    this.#relays.delete(number);
    if (this.#relays.size === 0) this.#nextMs = Infinity;
    return relay;
  }

  takeOverdue(nowMs: number): readonly Relay[] {
    if (this.#nextMs > nowMs) return [];
    const overdue: Relay[] = [];
    this.#nextMs = Infinity;
    for (const [number, relay] of this.#relays) {
      if (relay.dueMs > nowMs) this.#nextMs = Math.min(this.#nextMs, relay.dueMs);
      else {
        overdue.push(relay);
        this.#relays.delete(number);
      }
    }
    return overdue;
  }

  clear(): void {
    this.#relays.clear();
    this.#nextMs = Infinity;
  }
}
