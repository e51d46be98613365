/** What travels between hosts of a pretend network, and what the network may do to it. */
import type { ActorAddress } from '#core/actor-address.js';
import type { Travelling } from './pretend-travel.js';

/** What one host tells the other over a link, in order. */
export type LinkItem =
  | { readonly type: 'message'; readonly to: ActorAddress; readonly value: Travelling }
  | { readonly type: 'watch'; readonly actor: ActorAddress }
  | { readonly type: 'unwatch'; readonly actor: ActorAddress }
  | { readonly type: 'ended'; readonly actor: ActorAddress; readonly reason: 'stopped' | 'failed' };

/** One packet; any of them may be lost, delayed, doubled or overtaken. */
export interface Packet {
  readonly kind: 'hello' | 'welcome' | 'data' | 'ack' | 'ping' | 'bye' | 'reset';
  readonly from: string;
  readonly to: string;
  /** Which process sent it. */
  readonly process: string;
  /** Number of the link; later ones are larger. */
  readonly session: number;
  /** Of data: its place in the order of its sender's items, from 1. */
  readonly sequence: number;
  /** Every item of the receiver up to this one has arrived. */
  readonly upTo: number;
  /** For how long that was known and not said, virtual ms. */
  readonly ackDelayMs: number;
  /** Whether the sender still needs the link. */
  readonly interest: boolean;
  readonly item: LinkItem | undefined;
}

/** What happens to packets from one host to another. Chances are 0 to 1 a packet, times are virtual ms. */
export interface PairFaults {
  readonly delayMsMin: number;
  readonly delayMsMax: number;
  readonly loss: number;
  readonly duplication: number;
  /** Chance of being held back for `reorderMs`, so that later packets overtake. */
  readonly reordering: number;
  readonly reorderMs: number;
  /** Nothing gets through in this direction. */
  readonly cut: boolean;
}

export const calmPair: PairFaults = {
  delayMsMin: 0.2,
  delayMsMax: 0.4,
  loss: 0,
  duplication: 0,
  reordering: 0,
  reorderMs: 20,
  cut: false,
};

/** How the hosts of a pretend network keep their links. The real links have the same notions. */
export interface LinkTimes {
  /** Without an acknowledgement for so long, everything unacknowledged is sent again. Default 200. */
  readonly resendMs: number;
  /** A link is looked after this often, and tried when nothing was heard over it for half of that. Default 1,000. */
  readonly keepaliveMs: number;
  /** A link over which nothing was heard for so long is lost. Default 3,000. */
  readonly silenceMsMax: number;
  /** A link that neither side has used or needed for so long is given up by agreement. Default 10,000. */
  readonly idleMs: number;
  /** First wait after a link was lost or refused, doubled each time up to the maximum. Defaults 100 and 5,000. */
  readonly backoffMsMin: number;
  readonly backoffMsMax: number;
  /** What may wait for one host; then `full`. Defaults 10,000 messages and 64 MiB. */
  readonly queueMessagesMax: number;
  readonly queueBytesMax: number;
}

export const defaultLinkTimes: LinkTimes = {
  resendMs: 200,
  keepaliveMs: 1_000,
  silenceMsMax: 3_000,
  idleMs: 10_000,
  backoffMsMin: 100,
  backoffMsMax: 5_000,
  queueMessagesMax: 10_000,
  queueBytesMax: 64 * 1024 * 1024,
};

/** What really happened, so that a test can assert that its fault did. */
export interface NetworkCounts {
  packets: number;
  lost: number;
  cut: number;
  duplicated: number;
  reordered: number;
  /** Sent again by a host that missed an acknowledgement. */
  resent: number;
  /** Filtered by the receiver: it had them already. */
  filtered: number;
  /** Put in order again by the receiver. */
  restored: number;
  delivered: number;
  linksLost: number;
}
