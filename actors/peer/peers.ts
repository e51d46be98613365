/**
 * The peers of a host: one for every other host of the view, begun when that host comes and ended when it leaves the view,
 * which fails what is in flight there, retryably. A suspected host keeps its peer: it may answer after all.
 *
 * `PeerRoster` is the part that the router asks on the hot path; the actor only keeps it in step with membership.
 */
import type { DeviceId, HostId } from '#core/ids.js';
import type { MembershipMessage, ViewNews } from '#actors/membership/protocol.js';
import type { Clock } from '#ports/clock.js';
import type { RemoteDelivery } from '#ports/remote-delivery.js';
import type { Actor, ActorContext, ActorFactory, ActorRef, ReplyTo, Signal } from '#runtime/actor.js';
import { peerActor } from './actor.js';
import { PeerDesk, type PeerDeskOptions, type RemoteDevice } from './peer-desk.js';

export interface PeersOptions extends Omit<PeerDeskOptions, 'host'> {
  readonly clock: Clock;
  readonly links: RemoteDelivery;
  /** The own host: it has no peer. */
  readonly host: HostId;
  readonly membership: Pick<ActorRef<MembershipMessage>, 'tell'>;
  readonly roster: PeerRoster;
}

/** Whose devices requests can be sent to. */
export class PeerRoster {
  readonly #desks = new Map<HostId, PeerDesk>();
  /** Called after a peer came or went: what `device` answered may no longer be true. */
  onChange: () => void = () => {};

  /** Undefined while the host is not in the view. */
  device(host: HostId, device: DeviceId): RemoteDevice | undefined {
    return this.#desks.get(host)?.device(device);
  }

  /** Requests in flight at all peers. */
  get inFlight(): number {
    let sum = 0;
    for (const { inFlight } of this.#desks.values()) sum += inFlight;
    return sum;
  }

  add(desk: PeerDesk): void {
    this.#desks.set(desk.host, desk);
    this.onChange();
  }

  remove(desk: PeerDesk): void {
    if (this.#desks.get(desk.host) !== desk) return;
    this.#desks.delete(desk.host);
    this.onChange();
  }
}

interface Peer {
  readonly desk: PeerDesk;
  readonly ref: ActorRef<never>;
}

interface PeersNews {
  readonly type: 'news';
  readonly news: ViewNews;
}

/** Spawn one a gateway, as `peers`, after `membership`. */
export function peersActor(options: PeersOptions): ActorFactory<PeersNews> {
  return (context) => new Peers(options, context);
}

class Peers implements Actor<PeersNews> {
  readonly #options: PeersOptions;
  readonly #context: ActorContext<PeersNews>;
  readonly #peers = new Map<HostId, Peer>();
  readonly #subscriber: ReplyTo<ViewNews>;
  #view: ViewNews['view'] | undefined;

  constructor(options: PeersOptions, context: ActorContext<PeersNews>) {
    this.#options = options;
    this.#context = context;
    const { self } = context;
    this.#subscriber = { tell: (news) => self.tell({ type: 'news', news }) };
    options.membership.tell({ type: 'subscribe', subscriber: this.#subscriber, about: 'members' });
  }

  receive({ news: { view } }: PeersNews): void {
    if (view === this.#view) return;
    this.#view = view;
    for (const [host, peer] of this.#peers) if (!view.hosts.has(host)) this.#end(host, peer);
    for (const host of view.hosts.keys()) if (!this.#peers.has(host)) this.#begin(host);
  }

  signal(signal: Signal): void {
    if (signal.type === 'drain') this.#context.stop();
    if (signal.type !== 'post-stop' && signal.type !== 'pre-restart') return;
    this.#options.membership.tell({ type: 'unsubscribe', subscriber: this.#subscriber });
    for (const [host, peer] of this.#peers) this.#end(host, peer);
  }

  #begin(host: HostId): void {
    const { host: own, roster, membership: _, ...desk } = this.#options;
    if (host === own) return;
    const peer = new PeerDesk({ ...desk, host });
    const ref = this.#context.spawn(actorNameOf(host), peerActor(peer));
    this.#peers.set(host, { desk: peer, ref });
    roster.add(peer);
  }

  #end(host: HostId, { desk, ref }: Peer): void {
    this.#peers.delete(host);
    this.#options.roster.remove(desk);
    this.#context.stop(ref);
  }
}

/** A host's name as the name of an actor: what may not stand there is written as its code. */
function actorNameOf(host: HostId): string {
  return `peer-${host.replaceAll(/[^A-Za-z0-9_.:@-]/gu, (sign) => `+${(sign.codePointAt(0) ?? 0).toString(16)}`)}`;
}
