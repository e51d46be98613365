/**
 * The way to one other host, through all links to it there are one after the other: dials when something is to be sent,
 * waits longer after each failure, and takes a link that the other side has dialled. One link at a time.
 */
import type { ActorAddress, Delivery } from '#core/actor-address.js';
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { EncodedValue } from '#core/grid/value-codec.js';
import type { HostId } from '#core/ids.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { PeerLink } from '#ports/links.js';
import { dialLink, type Dialling, type DialOptions } from './link-dial.js';
import type { LinkChannel } from './link-pipe.js';
import { LinkSession, type SessionOwner } from './link-session.js';

export interface PeerOwner {
  readonly clock: Clock;
  readonly dial: Omit<DialOptions, 'peer' | 'address'>;
  readonly backoffMsMin: number;
  readonly backoffMsMax: number;
  /** Everything of a session but how it ends. */
  session(peer: HostId, lost: (reason: string) => void): SessionOwner;
  up(peer: HostId, process: string): void;
  lost(peer: HostId, process: string, reason: string, wasUp: boolean): void;
  refused(peer: HostId, error: IntarsiaError): void;
  /** A bulk channel goes over gRPC because it could not do without. */
  detour(peer: HostId, error: IntarsiaError): void;
}

type Early =
  | { readonly type: 'message'; readonly to: ActorAddress; readonly value: EncodedValue }
  | { readonly type: 'watch' | 'unwatch'; readonly actor: ActorAddress };

export class LinkPeer {
  readonly host: HostId;
  /** `address:port`; empty while nobody said where it is: then only it can dial. */
  address = '';
  readonly #owner: PeerOwner;
  #session: LinkSession | undefined;
  #process = '';
  #version = 0;
  #dialling: Dialling | undefined;
  #retry: Timer | undefined;
  #failures = 0;
  #retryMs = 0;
  #upSinceMs = 0;
  /** What was sent before a link was there. */
  #early: Early[] = [];
  #earlyBytes = 0;

  constructor(host: HostId, owner: PeerOwner) {
    this.host = host;
    this.#owner = owner;
  }

  get view(): PeerLink {
    const session = this.#session;
    return {
      host: this.host,
      state: session === undefined ? (this.#dialling === undefined ? 'down' : 'connecting') : 'up',
      process: session === undefined ? '' : this.#process,
      version: session === undefined ? 0 : this.#version,
      roundTripMs: session?.roundTripMs,
      bytesPerSecond: session?.bytesPerSecond,
      queuedMessages: session?.waitingMessages ?? this.#early.length,
      queuedBytes: session?.waitingBytes ?? this.#earlyBytes,
    };
  }

  send(to: ActorAddress, value: EncodedValue): Delivery {
    if (this.#session !== undefined) return this.#session.send(to, value);
    if (this.address === '') return 'stopped';
    const { queueMessagesMax, queueBytesMax } = this.#owner.session(this.host, () => undefined).limits;
    if (this.#early.length >= queueMessagesMax || this.#earlyBytes + value.bytes > queueBytesMax) return 'full';
    this.#keep({ type: 'message', to, value });
    this.#earlyBytes += value.bytes;
    return 'accepted';
  }

  /** False when there is no link and no way to one. */
  watch(type: 'watch' | 'unwatch', actor: ActorAddress): boolean {
    if (this.#session !== undefined) this.#session[type](actor);
    else if (this.address === '') return false;
    else this.#keep({ type, actor });
    return true;
  }

  /** Dials unless there is a link, or an attempt, or a wait after a failed one. */
  connect(): void {
    if (this.#session !== undefined || this.#dialling !== undefined || this.#retry !== undefined) return;
    this.#retry = this.#owner.clock.scheduleAt(Math.max(this.#retryMs, this.#owner.clock.nowMs()), () => {
      this.#retry = undefined;
      if (this.#session === undefined && this.#dialling === undefined && this.address !== '') this.#dial();
    });
  }

  /**
   * Whether a link that the other side dials may take the place of what is there.
   * @throws ABORTED-like UNAVAILABLE when this side's own attempt has precedence or a link is up, ALREADY_EXISTS when the
   * host's name is in use by another process that lives.
   */
  async makeWay(process: string): Promise<void> {
    if (this.#dialling !== undefined && this.#session === undefined) {
      if (this.#owner.dial.identity.host < this.host) {
        throw intarsiaError('UNAVAILABLE', 'both hosts dial at once, and the other attempt goes first');
      }
      return;
    }
    const session = this.#session;
    if (session === undefined) return;
    const lives = await session.probe(1_000);
    if (!lives || this.#session !== session) {
      if (this.#session === session) this.#end('the other side began anew');
      return;
    }
    if (process !== this.#process) {
      throw intarsiaError(
        'ALREADY_EXISTS',
        `another process is host ${this.host} in this grid already; give one of them another --host-name`,
        { host: this.host },
      );
    }
    throw intarsiaError('UNAVAILABLE', 'a link between the two is up already');
  }

  /** A whole link is there, dialled by either side. */
  open(link: { readonly process: string; readonly version: number; readonly channels: readonly LinkChannel[] }): void {
    this.#dialling?.cancel();
    this.#dialling = undefined;
    this.#retry?.cancel();
    this.#retry = undefined;
    if (this.#session !== undefined) this.#end('the other side began anew');
    this.#process = link.process;
    this.#version = link.version;
    this.#upSinceMs = this.#owner.clock.nowMs();
    const session = new LinkSession(
      this.#owner.session(this.host, (reason) => {
        if (this.#session === session) this.#lost(reason);
      }),
      link.channels,
    );
    this.#session = session;
    this.#owner.up(this.host, link.process);
    const early = this.#early;
    this.#forgetEarly();
    for (const item of early) {
      if (item.type === 'message') session.send(item.to, item.value);
      else session[item.type](item.actor);
    }
    // The last step: where a channel has ended already, the link is lost in here, with all that was to go over it.
    session.start();
  }

  /** Ends the link, and dials no more until something is sent. */
  close(reason: string): void {
    this.#retry?.cancel();
    this.#retry = undefined;
    this.#dialling?.cancel();
    this.#dialling = undefined;
    this.#end(reason);
  }

  #keep(item: Early): void {
    this.#early.push(item);
    this.connect();
  }

  #dial(): void {
    const { dial } = this.#owner;
    this.#dialling = dialLink(
      { ...dial, peer: this.host, address: this.address },
      {
        open: ({ welcome, channels }) => {
          this.#dialling = undefined;
          this.open({ process: welcome.process, version: welcome.version, channels });
        },
        failed: (error) => {
          this.#dialling = undefined;
          this.#owner.refused(this.host, error);
          this.#lost(error.message);
        },
        detour: (error) => {
          this.#owner.detour(this.host, error);
        },
      },
    );
  }

  #end(reason: string): void {
    this.#session?.close(true);
    this.#lost(reason);
  }

  #lost(reason: string): void {
    const { clock, backoffMsMin, backoffMsMax } = this.#owner;
    const wasUp = this.#session !== undefined;
    const process = this.#process;
    this.#session = undefined;
    this.#forgetEarly();
    // A link that lasted is no failure; one that breaks again and again is.
    if (wasUp && clock.nowMs() - this.#upSinceMs > backoffMsMax) this.#failures = 0;
    this.#failures += 1;
    this.#retryMs = clock.nowMs() + Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(30, this.#failures - 1));
    this.#owner.lost(this.host, process, reason, wasUp);
  }

  #forgetEarly(): void {
    this.#early = [];
    this.#earlyBytes = 0;
  }
}
