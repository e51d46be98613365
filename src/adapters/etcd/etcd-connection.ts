/** What watches and leases see of the client they belong to. */
import type { Etcd3 } from 'etcd3';
import type { Clock } from '#ports/clock.js';
import type { StoreCallOptions, StoreWatch } from '#ports/store.js';

export interface EtcdConnection {
  readonly clock: Clock;
  readonly etcd: Etcd3;
  call<Result>(options: StoreCallOptions, kind: 'read' | 'write', work: () => Promise<Result>): Promise<Result>;
  /** Looks whether the store is still the same; its revision. */
  identify(): Promise<number>;
  /** The watch is over. */
  forget(watch: StoreWatch): void;
}
