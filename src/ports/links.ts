/**
 * What a host can learn of its links to others, beside sending through them (remote-delivery.ts).
 *
 * A link joins two processes, both ways. It is lost as a whole: when it breaks, what was on its way either way is lost,
 * every watch through it ends as `failed`, and what is sent afterwards goes over a new link. So between two losses
 * everything accepted arrives, in order.
 */
import type { ActorAddress, Delivery } from '#core/actor-address.js';
import type { ErrorCode } from '#core/errors.js';
import type { RemoteDelivery } from './remote-delivery.js';

export interface Links extends RemoteDelivery {
  /** Every host that a link leads to, or led to and may again. */
  peers(): readonly PeerLink[];
  /** Tells of links coming and going, from now on and never synchronously; call the result to stop. */
  subscribe(listener: (event: LinkEvent) => void): () => void;
}

export interface PeerLink {
  readonly host: string;
  readonly state: 'up' | 'connecting' | 'down';
  /** Random text of the process at the other end; empty unless up. */
  readonly process: string;
  /** Version of the link protocol spoken; 0 unless up. */
  readonly version: number;
  /** Smoothed round trip of small messages, ms; undefined before the first. */
  readonly roundTripMs: number | undefined;
  /** Recent rate of large messages to that host, bytes/s; undefined before the first. */
  readonly bytesPerSecond: number | undefined;
  /** What waits here to be sent or to be taken over there. */
  readonly queuedMessages: number;
  readonly queuedBytes: number;
}

export interface LinkEvent {
  /** `refused`: an attempt to open one failed. */
  readonly type: 'up' | 'lost' | 'refused';
  readonly host: string;
  /** Empty when it was refused. */
  readonly process: string;
  /** Why it was lost or refused; empty when it came up. */
  readonly reason: string;
  /** What refused it; absent otherwise. */
  readonly code?: ErrorCode;
}

/** The actors of this host, as links see them: whom to give what arrives. `entranceOf` (runtime) makes one of a system. */
export interface Entrance {
  /** A reference for what a message holds an address of. */
  ref(address: ActorAddress): unknown;
  deliver(to: ActorAddress, message: unknown): Delivery;
  /** Resolves when that actor has ended; at once when it is not there. */
  whenEnded(actor: ActorAddress): Promise<'stopped' | 'failed'>;
}
