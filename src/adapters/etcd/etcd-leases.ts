/**
 * Leases at etcd, kept alive on one stream for all. A lease counts as lost when the store says so, or when by the monotonic
 * clock its time to live has passed since the last keep-alive that was answered was sent: the store may have ended it then.
 */
import type { ILeaseKeepAliveResponse } from 'etcd3';
import type { Timer } from '#ports/clock.js';
import type { StoreCallOptions, StoreLease } from '#ports/store.js';
import type { EtcdConnection } from './etcd-connection.js';

type KeepAliveStream = Awaited<ReturnType<EtcdConnection['etcd']['leaseClient']['leaseKeepAlive']>>;

/** A lease whose keep-alives go out three times in its time to live; after one that fails it tries this soon, ms. */
const retryMs = 250;

export class EtcdLeases {
  private readonly store: EtcdConnection;
  private readonly leases = new Map<string, EtcdLease>();
  private stream: KeepAliveStream | undefined;
  private opening = false;
  private closed = false;

  constructor(store: EtcdConnection) {
    this.store = store;
  }

  async grant(ttlMs: number, onLost: (reason: string) => void, options: StoreCallOptions): Promise<StoreLease> {
    const { store } = this;
    let sentMs = store.clock.nowMs();
    const seconds = Math.max(1, Math.ceil(ttlMs / 1000));
    const response = await store.call(options, 'write', () => {
      sentMs = store.clock.nowMs();
      return store.etcd.leaseClient.leaseGrant({ TTL: String(seconds), ID: '0' });
    });
    const lease = new EtcdLease(this, store, { id: response.ID, ttlMs: Number(response.TTL) * 1000, sentMs, onLost });
    this.leases.set(lease.id, lease);
    return lease;
  }

  forget(lease: EtcdLease): void {
    this.leases.delete(lease.id);
  }

  loseAll(reason: string): void {
    for (const lease of [...this.leases.values()]) lease.lose(reason);
  }

  close(): void {
    this.closed = true;
    for (const lease of [...this.leases.values()]) lease.abandon();
    this.drop();
  }

  /** Sends a keep-alive, or opens the stream for the next try. Returns whether it was sent. */
  send(id: string): boolean {
    if (this.stream !== undefined) {
      this.stream.write({ ID: id });
      return true;
    }
    if (!this.opening) this.open();
    return false;
  }

  /** The stream is taken for broken: the next keep-alive opens another. */
  drop(): void {
    const { stream } = this;
    this.stream = undefined;
    for (const lease of this.leases.values()) lease.forgetSent();
    stream?.end();
    if (stream !== undefined && 'cancel' in stream && typeof stream.cancel === 'function') stream.cancel();
  }

  private open(): void {
    this.opening = true;
    this.store.etcd.leaseClient.leaseKeepAlive().then(
      (stream) => {
        this.opening = false;
        if (this.closed) {
          stream.end();
          return;
        }
        this.stream = stream;
        const broken = (): void => {
          if (this.stream === stream) this.drop();
        };
        stream.on('data', (response: ILeaseKeepAliveResponse) => {
          if (this.stream === stream) this.leases.get(response.ID)?.answered(Number(response.TTL));
        });
        stream.on('error', broken);
        stream.on('end', broken);
        for (const lease of this.leases.values()) lease.keepAlive();
      },
      () => {
        // The lease's own deadline decides; its next try opens again.
        this.opening = false;
      },
    );
  }
}

interface EtcdLeaseOptions {
  readonly id: string;
  readonly ttlMs: number;
  readonly sentMs: number;
  readonly onLost: (reason: string) => void;
}

class EtcdLease implements StoreLease {
  readonly id: string;
  readonly ttlMs: number;
  private readonly leases: EtcdLeases;
  private readonly store: EtcdConnection;
  private readonly onLost: (reason: string) => void;
  /** When the keep-alives that wait for an answer were sent, the oldest first. Answers come in order. */
  private sent: number[] = [];
  private deadline: Timer;
  private next: Timer;
  private over = false;

  constructor(leases: EtcdLeases, store: EtcdConnection, options: EtcdLeaseOptions) {
    this.leases = leases;
    this.store = store;
    this.id = options.id;
    this.ttlMs = options.ttlMs;
    this.onLost = options.onLost;
    this.deadline = this.planDeadline(options.sentMs);
    this.next = store.clock.schedule(this.ttlMs / 3, () => this.keepAlive());
  }

  async revoke(): Promise<void> {
    if (this.over) return;
    this.abandon();
    const { store, id } = this;
    await store.call({ deadlineMs: store.clock.nowMs() + this.ttlMs }, 'read', () =>
      store.etcd.leaseClient.leaseRevoke({ ID: id }),
    );
  }

  abandon(): void {
    this.over = true;
    this.deadline.cancel();
    this.next.cancel();
    this.leases.forget(this);
  }

  lose(reason: string): void {
    if (this.over) return;
    this.abandon();
    this.store.clock.defer(() => this.onLost(reason));
  }

  keepAlive(): void {
    if (this.over) return;
    this.next.cancel();
    // Two without an answer: the stream hangs.
    if (this.sent.length > 1) this.leases.drop();
    const sentMs = this.store.clock.nowMs();
    const isSent = this.leases.send(this.id);
    if (isSent) this.sent.push(sentMs);
    this.next = this.store.clock.schedule(isSent ? this.ttlMs / 3 : retryMs, () => this.keepAlive());
  }

  answered(ttlSeconds: number): void {
    const sentMs = this.sent.shift();
    if (sentMs === undefined) return;
    if (ttlSeconds <= 0) {
      this.lose('the store has ended the lease');
      return;
    }
    this.deadline.cancel();
    this.deadline = this.planDeadline(sentMs);
  }

  forgetSent(): void {
    this.sent = [];
    if (this.over) return;
    this.next.cancel();
    this.next = this.store.clock.schedule(retryMs, () => this.keepAlive());
  }

  private planDeadline(sentMs: number): Timer {
    return this.store.clock.scheduleAt(sentMs + this.ttlMs, () =>
      this.lose(`no keep-alive was answered for ${this.ttlMs} ms`),
    );
  }
}
