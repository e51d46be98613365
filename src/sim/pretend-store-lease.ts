/** A lease of the pretend store: kept alive by its host's own clock, lost by that clock or by the store's word. */
import { IntarsiaError } from '#core/errors.js';
import type { StoreMachine } from '#core/store/machine.js';
import type { Timer } from '#ports/clock.js';
import type { StoreLease } from '#ports/store.js';
import type { PretendStoreParty } from './pretend-store-world.js';

export interface PretendLeaseOptions {
  readonly id: string;
  readonly ttlMs: number;
  /** When the request that granted it was sent, by the host's clock. */
  readonly sentMs: number;
  readonly onLost: (reason: string) => void;
}

export class PretendLease implements StoreLease {
  readonly id: string;
  readonly ttlMs: number;
  private readonly client: PretendStoreParty;
  private readonly onLost: (reason: string) => void;
  private deadline: Timer;
  private next: Timer;
  private over = false;

  constructor(client: PretendStoreParty, options: PretendLeaseOptions) {
    this.client = client;
    this.id = options.id;
    this.ttlMs = options.ttlMs;
    this.onLost = options.onLost;
    this.deadline = this.planDeadline(options.sentMs);
    this.next = client.clock.schedule(this.ttlMs / 3, () => this.keepAlive());
  }

  async revoke(): Promise<void> {
    if (this.over) return;
    this.abandon();
    const { clock } = this.client;
    await this.client.call({ deadlineMs: clock.nowMs() + this.ttlMs }, (machine) => {
      if (machine.hasLease(this.id)) machine.revoke(this.id);
    });
  }

  abandon(): void {
    this.over = true;
    this.deadline.cancel();
    this.next.cancel();
    this.client.forget(this);
  }

  lose(reason: string): void {
    if (this.over) return;
    this.abandon();
    this.client.clock.defer(() => this.onLost(reason));
  }

  private keepAlive(): void {
    const sentMs = this.client.clock.nowMs();
    this.next = this.client.clock.schedule(this.ttlMs / 3, () => this.keepAlive());
    const resolve = (known: boolean): void => {
      if (this.over) return;
      if (known) {
        this.deadline.cancel();
        this.deadline = this.planDeadline(sentMs);
      } else {
        this.lose('the store has ended the lease');
      }
    };
    const reject = (error: unknown): void => {
      // The deadline of the lease decides; whatever else comes out here is a fault of the program.
      if (!(error instanceof IntarsiaError)) throw error;
    };
    const keep = (machine: StoreMachine): boolean => {
      if (!machine.hasLease(this.id)) return false;
      machine.keepAlive(this.id, this.client.world.clock.nowMs());
      return true;
    };
    this.client.send({ deadlineMs: sentMs + this.ttlMs }, keep, { resolve, reject });
  }

  private planDeadline(sentMs: number): Timer {
    return this.client.clock.scheduleAt(sentMs + this.ttlMs, () =>
      this.lose(`no keep-alive was answered for ${this.ttlMs} ms`),
    );
  }
}
