/**
 * What is known of devices and replicas beside their queues: prices, watts, tables of run times. A book is plain facts;
 * whoever sends looks a replica up once and keeps the answer until the book says that it has changed.
 */
import type { Replica } from '../replica.js';
import type { ServiceProfile } from './service-profile.js';

export interface DeviceFacts {
  /** While busy; 0 when unknown. */
  readonly usdPerHour: number;
  /** While busy; 0 when unknown. */
  readonly watts: number;
  /** What models may use, bytes. */
  readonly memoryBytes: number;
  /** Expected losses per hour; 0 where it is not spot. */
  readonly spotHazardPerHour: number;
}

export interface ReplicaFacts {
  /** Runs on the first device; undefined when nothing is known, and answers are learned from. */
  readonly profile: ServiceProfile | undefined;
  /** Items of the largest batch, at least 1. */
  readonly itemsMax: number;
  /** The stages after the first and the hops between, ms; 0 for a whole model. */
  readonly tailMs: number;
  /** USD per busy hour and watts of the later stages, in proportion to the first stage's busy time. */
  readonly tailUsdPerHour: number;
  readonly tailWatts: number;
  /** False for a model that must be loaded first, which takes `loadMs`. */
  readonly resident: boolean;
  readonly loadMs: number;
  /** Bytes a request needs on the device while it runs; 0 when unknown. */
  readonly needBytes: number;
  /** Why requests must not go there whatever its queues are: tenant, locality, power. Empty when they may. */
  readonly masked: string;
}

export interface FleetBook {
  /** Grows whenever an answer would be another one than before. */
  readonly revision: number;
  /** `key` is a `deviceKey`. */
  device(key: string): DeviceFacts;
  replica(replica: Replica): ReplicaFacts;
}

export const unknownDevice: DeviceFacts = { usdPerHour: 0, watts: 0, memoryBytes: 0, spotHazardPerHour: 0 };

export const unknownReplica: ReplicaFacts = {
  profile: undefined,
  itemsMax: 1,
  tailMs: 0,
  tailUsdPerHour: 0,
  tailWatts: 0,
  resident: true,
  loadMs: 0,
  needBytes: 0,
  masked: '',
};

/** Nothing is known of anything: policies then go by what answers have shown. */
export const emptyFleetBook: FleetBook = { revision: 0, device: () => unknownDevice, replica: () => unknownReplica };
