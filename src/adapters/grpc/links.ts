/**
 * The links of a host: the `Links` port over gRPC. One link a pair of hosts, dialled by whoever needs it first; what a
 * link does while it lasts stands in link-session.ts, how it comes to be in link-dial.ts and link-server.ts.
 *
 * Who the other hosts are and where is told by `setPeer`; a host of the same grid that dials is taken before that, too.
 */
import type { ActorAddress, Delivery } from '#core/actor-address.js';
import { messageOf, type IntarsiaError } from '#core/errors.js';
import { linkVersionMax, linkVersionMin } from '#core/grid/link-frames.js';
import { encodeValue } from '#core/grid/value-codec.js';
import { WatchBook, type EndListener } from '#core/grid/watch-book.js';
import { hostId, type HostId } from '#core/ids.js';
import { formatBytes, KiB, MiB } from '#core/units.js';
import type { Clock } from '#ports/clock.js';
import type { Entrance, LinkEvent, Links, PeerLink } from '#ports/links.js';
import type { Log } from '#ports/log.js';
import type { RemoteWatch } from '#ports/remote-delivery.js';
import type { LinkIdentity } from './link-handshake.js';
import { LinkPeer, type PeerOwner } from './link-peer.js';
import type { LinkSecurity } from './link-security.js';
import type { SessionCounts, SessionLimits, SessionOwner } from './link-session.js';

export interface GrpcLinksOptions {
  readonly grid: string;
  readonly host: HostId;
  /** Random text of this process. */
  readonly process: string;
  /** Incarnation of the host in the grid; 0 before it has joined. Default: 0. */
  readonly generation?: () => number;
  readonly softwareVersion: string;
  readonly security: LinkSecurity;
  readonly clock: Clock;
  readonly log: Log;
  /** Versions of the link protocol offered; default: all this build speaks. */
  readonly versions?: readonly [number, number];
  /** Connections for large messages a link, 1 to 16, default 1. More: several tensors at once over a long fat line. */
  readonly bulkChannels?: number;
  /** Messages of at least so many bytes go over them, default 64 KiB. */
  readonly bulkBytesMin?: number;
  /** Bytes of one message, default 512 MiB; larger ones are answered `full`. */
  readonly messageBytesMax?: number;
  /** What may wait for one host, to be sent or to be taken over there; then `full`. Defaults 10,000 and 64 MiB. */
  readonly queueMessagesMax?: number;
  readonly queueBytesMax?: number;
  /** A link is tried this often, ms, default 1,000; lost when nothing was heard for `silenceMsMax`, default 3,000. */
  readonly keepaliveMs?: number;
  readonly silenceMsMax?: number;
  /** Milliseconds a dial may take, default 5,000. */
  readonly connectMsMax?: number;
  /** Wait after a lost link or a failed dial, doubled up to the maximum. Defaults 100 and 5,000 ms. */
  readonly backoffMsMin?: number;
  readonly backoffMsMax?: number;
}

export class GrpcLinks implements Links {
  readonly identity: LinkIdentity;
  readonly security: LinkSecurity;
  readonly connectMsMax: number;
  readonly log: Log;
  readonly counts: SessionCounts & { lost: number; refused: number } = {
    sentMessages: 0,
    sentBytes: 0,
    receivedMessages: 0,
    receivedBytes: 0,
    lost: 0,
    refused: 0,
  };
  readonly #clock: Clock;
  readonly #limits: SessionLimits;
  readonly #owner: PeerOwner;
  readonly #peers = new Map<string, LinkPeer>();
  readonly #watches = new WatchBook();
  readonly #listeners = new Set<(event: LinkEvent) => void>();
  #entrance: Entrance | undefined;
  #isClosed = false;

  constructor(options: GrpcLinksOptions) {
    const { grid, host, process, softwareVersion, security, clock, log } = options;
    this.identity = {
      grid,
      host,
      process,
      softwareVersion,
      generation: options.generation ?? (() => 0),
      versions: options.versions ?? [linkVersionMin, linkVersionMax],
    };
    this.security = security;
    this.log = log;
    this.#clock = clock;
    this.connectMsMax = options.connectMsMax ?? 5_000;
    this.#limits = {
      bulkBytesMin: options.bulkBytesMin ?? 64 * KiB,
      messageBytesMax: options.messageBytesMax ?? 512 * MiB,
      queueMessagesMax: options.queueMessagesMax ?? 10_000,
      queueBytesMax: options.queueBytesMax ?? 64 * MiB,
      keepaliveMs: options.keepaliveMs ?? 1_000,
      silenceMsMax: options.silenceMsMax ?? 3_000,
    };
    this.#owner = {
      clock,
      dial: {
        identity: this.identity,
        security,
        bulkChannels: options.bulkChannels ?? 1,
        connectMsMax: this.connectMsMax,
      },
      backoffMsMin: options.backoffMsMin ?? 100,
      backoffMsMax: options.backoffMsMax ?? 5_000,
      session: (peer, lost) => this.#sessionOwner(peer, lost),
      up: (peer, processText) => this.#up(peer, processText),
      lost: (peer, processText, reason, wasUp) => this.#lost(peer, processText, reason, wasUp),
      refused: (peer, error) => this.#refused(peer, error),
      detour: (peer, error) => {
        this.log.warn('large messages to a host go through gRPC: a connection of their own could not be opened', {
          host: peer,
          code: error.code,
          reason: error.message,
        });
      },
    };
  }

  /** Where what arrives goes. Call it before the server listens and before anything is sent. */
  attach(entrance: Entrance): void {
    this.#entrance = entrance;
  }

  /** Where a host is reached, `address:port`. */
  setPeer(host: HostId, address: string): void {
    const peer = this.peer(host);
    if (peer.address !== address && peer.address !== '' && peer.view.state !== 'up') peer.close('its address changed');
    peer.address = address;
  }

  /** The host has left the grid: its link is closed, what is sent there is answered `stopped`. */
  removePeer(host: HostId): void {
    const peer = this.#peers.get(host);
    if (peer === undefined) return;
    peer.address = '';
    peer.close('the host has left the grid');
    this.#peers.delete(host);
  }

  send(to: ActorAddress, message: unknown): Delivery {
    const peer = this.#peers.get(to.host);
    if (peer === undefined || this.#isClosed) return 'stopped';
    try {
      const value = encodeValue([to.path, to.incarnation, message]);
      if (value.bytes <= this.#limits.messageBytesMax) return peer.send(to, value);
      this.log.error('a message is too large for a link', {
        host: to.host,
        actor: to.path,
        size: formatBytes(value.bytes),
        limit: formatBytes(this.#limits.messageBytesMax),
      });
    } catch (error) {
      this.log.error('a message cannot travel to another host', {
        host: to.host,
        actor: to.path,
        error: messageOf(error),
      });
    }
    return 'full';
  }

  watch(actor: ActorAddress, onEnd: EndListener): RemoteWatch {
    let isOver = false;
    const listener: EndListener = (reason) => {
      this.#clock.defer(() => {
        if (isOver) return;
        isOver = true;
        onEnd(reason);
      });
    };
    const peer = this.#peers.get(actor.host);
    if (peer === undefined || this.#isClosed) listener('failed');
    else {
      const { watch, unwatch } = this.#watches.add(actor, listener);
      if (unwatch !== undefined) peer.watch('unwatch', unwatch);
      if (watch !== undefined && !peer.watch('watch', watch)) {
        for (const each of this.#watches.ended(actor)) each('failed');
      }
    }
    return {
      cancel: () => {
        if (isOver) return;
        isOver = true;
        const { unwatch } = this.#watches.remove(actor, listener);
        if (unwatch !== undefined) this.#peers.get(actor.host)?.watch('unwatch', unwatch);
      },
    };
  }

  peers(): readonly PeerLink[] {
    return [...this.#peers.values()].map((peer) => peer.view);
  }

  subscribe(listener: (event: LinkEvent) => void): () => void {
    const own = (event: LinkEvent): void => listener(event);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  /** Ends every link, telling the others. Nothing is sent or taken afterwards. */
  close(): void {
    this.#isClosed = true;
    for (const peer of this.#peers.values()) peer.close('this host closes its links');
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** The way to a host, made when it is not there; for the server, when one dials. */
  peer(host: string): LinkPeer {
    let peer = this.#peers.get(host);
    if (peer === undefined) {
      peer = new LinkPeer(hostId(host), this.#owner);
      this.#peers.set(host, peer);
    }
    return peer;
  }

  #sessionOwner(peer: HostId, lost: (reason: string) => void): SessionOwner {
    return {
      host: this.identity.host,
      peer,
      clock: this.#clock,
      limits: this.#limits,
      entrance: () => this.#entrance,
      counts: this.counts,
      ended: (actor, reason) => {
        for (const listener of this.#watches.ended(actor)) listener(reason);
      },
      lost,
    };
  }

  #up(host: string, process: string): void {
    this.log.info('a link to another host is up', { peer: host });
    this.#tell({ type: 'up', host, process, reason: '' });
  }

  #lost(host: string, process: string, reason: string, wasUp: boolean): void {
    for (const listener of this.#watches.lost(host)) listener('failed');
    if (!wasUp) return;
    this.counts.lost += 1;
    if (!this.#isClosed) this.log.warn('the link to another host is lost', { peer: host, reason });
    this.#tell({ type: 'lost', host, process, reason });
  }

  #refused(host: string, error: IntarsiaError): void {
    this.counts.refused += 1;
    const level = error.retryable ? 'debug' : 'error';
    this.log[level]('a host could not be reached over a link', { host, code: error.code, reason: error.message });
    this.#tell({ type: 'refused', host, process: '', reason: error.message, code: error.code });
  }

  #tell(event: LinkEvent): void {
    for (const listener of this.#listeners) {
      this.#clock.defer(() => {
        if (this.#listeners.has(listener)) listener(event);
      });
    }
  }
}
