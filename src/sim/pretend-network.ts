/**
 * A network between the hosts of a simulation, on virtual time: each host has a `Links` port that keeps its promises
 * (in order, at most once, to one incarnation) whatever the network does, and the network does what it is told: loss,
 * delay, duplication, reordering and cuts for each ordered pair of hosts, slow and frozen hosts, crashes and restarts.
 *
 *     const network = new PretendNetwork({ clock: world.clock, random: world.random.stream('network') });
 *     const near = network.host('near');
 *     const system = world.system({ host: 'near', remote: near, incarnationMin: near.incarnationMin });
 *     near.attach(entranceOf(system));
 *
 * Messages pass through the codec of the real links, or are copied alike: what cannot travel there does not travel here. Hosts' actors and
 * clocks are the simulation's: a crash here silences the host, its owner terminates the actor system.
 */
import type { ActorAddress, Delivery } from '#core/actor-address.js';
import { messageOf } from '#core/errors.js';
import { WatchBook, WatchedHere } from '#core/grid/watch-book.js';
import type { EndListener } from '#core/grid/watch-book.js';
import { intarsiaError } from '#core/errors.js';
import type { Clock } from '#ports/clock.js';
import type { Entrance, LinkEvent, Links, PeerLink } from '#ports/links.js';
import { silentLog, type Log } from '#ports/log.js';
import type { Random } from '#ports/random.js';
import type { RemoteWatch } from '#ports/remote-delivery.js';
import { PretendLink, type LinkOwner } from './pretend-link.js';
import {
  calmPair,
  defaultLinkTimes,
  type LinkItem,
  type LinkTimes,
  type NetworkCounts,
  type PairFaults,
  type Packet,
} from './pretend-packets.js';
import { asBytes, type Dispatch } from './pretend-travel.js';

export interface PretendNetworkOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly log?: Log;
  /** What every pair of hosts starts with. Default: 0.2 to 0.4 ms, nothing else. */
  readonly pair?: Partial<PairFaults>;
  readonly links?: Partial<LinkTimes>;
  /** How messages travel. Default: as bytes. */
  readonly dispatch?: Dispatch;
}

/** What is known of the way from one host to another. */
interface Way {
  /** What was said of this pair alone. */
  faults: PairFaults | undefined;
  readonly draw: Random;
}

interface HostCondition {
  /** Added to what every packet from and to it takes, ms. */
  slowMs: number;
  /** While it is frozen: what waits for it to go on. */
  frozen: (() => void)[] | undefined;
}

export class PretendNetwork {
  readonly clock: Clock;
  readonly counts: NetworkCounts = {
    packets: 0,
    lost: 0,
    cut: 0,
    duplicated: 0,
    reordered: 0,
    resent: 0,
    filtered: 0,
    restored: 0,
    delivered: 0,
    linksLost: 0,
  };
  readonly log: Log;
  readonly times: LinkTimes;
  readonly dispatch: Dispatch;
  readonly #random: Random;
  #calm: PairFaults;
  /** By sender and receiver. */
  readonly #ways = new Map<string, Map<string, Way>>();
  readonly #hosts = new Map<string, PretendHost>();
  /** Every name there ever was: what is sent there is accepted, whether or not somebody takes it. */
  readonly #conditions = new Map<string, HostCondition>();
  #processes = 0;
  #sessions = 0;

  constructor(options: PretendNetworkOptions) {
    this.clock = options.clock;
    this.#random = options.random;
    this.log = options.log ?? silentLog;
    this.times = { ...defaultLinkTimes, ...options.links };
    this.dispatch = options.dispatch ?? asBytes;
    this.#calm = { ...calmPair, ...options.pair };
  }

  /** The way out of a new process of that name; the one before it, if any, must have crashed. */
  host(name: string): PretendHost {
    if (this.#hosts.get(name)?.isAlive === true) {
      throw intarsiaError('ALREADY_EXISTS', `host ${name} is in the pretend network already`, { host: name });
    }
    this.#processes += 1;
    const host = new PretendHost(this, name, this.#processes);
    this.#hosts.set(name, host);
    this.#conditions.set(name, { slowMs: 0, frozen: undefined });
    return host;
  }

  /** Changes what happens to packets from one host to another; the rest stays as it is. */
  faults(from: string, to: string, faults: Partial<PairFaults>): void {
    const way = this.#way(from, to);
    way.faults = { ...(way.faults ?? this.#calm), ...faults };
  }

  /** The same for every pair of hosts, present and to come; forgets what was said of single pairs. */
  faultsEverywhere(faults: Partial<PairFaults>): void {
    this.#calm = { ...this.#calm, ...faults };
    this.heal();
  }

  /** Nothing gets from the first to the second; the way back stays open. */
  cutOneWay(from: string, to: string): void {
    this.faults(from, to, { cut: true });
  }

  /** Nothing gets from one side to the other, either way. */
  partition(left: readonly string[], right: readonly string[]): void {
    for (const one of left) {
      for (const other of right) {
        if (one === other) continue;
        this.cutOneWay(one, other);
        this.cutOneWay(other, one);
      }
    }
  }

  /** Opens every cut and forgets every fault of single pairs; conditions of hosts stay. */
  heal(): void {
    for (const ways of this.#ways.values()) for (const way of ways.values()) way.faults = undefined;
  }

  /** Every packet from and to that host takes so many ms longer; 0: as before. */
  slow(host: string, extraMs: number): void {
    this.#condition(host).slowMs = extraMs;
  }

  /** The host's packets, in and out, wait until `thaw`: what others see of a process that is stopped. */
  freeze(host: string): void {
    this.#condition(host).frozen ??= [];
  }

  thaw(host: string): void {
    const condition = this.#condition(host);
    const waiting = condition.frozen ?? [];
    condition.frozen = undefined;
    for (const go of waiting) this.clock.defer(go);
  }

  /**
   * Ends the process. `killed`: its system tells others at once that nobody is there, as for `kill -9`. `unplugged`:
   * others hear nothing more. Its owner terminates the actor system; `host(name)` starts the next process.
   */
  crash(name: string, how: 'killed' | 'unplugged' = 'killed'): void {
    const host = this.#hosts.get(name);
    if (host === undefined) throw intarsiaError('NOT_FOUND', `no host ${name} in the pretend network`, { host: name });
    host.crash(how);
  }

  /** Forgets the name: from now on what is sent there is answered `stopped`. */
  remove(name: string): void {
    this.#hosts.get(name)?.crash('killed');
    this.#hosts.delete(name);
    this.#conditions.delete(name);
    for (const host of this.#hosts.values()) host.forget(name);
  }

  knows(name: string): boolean {
    return this.#conditions.has(name);
  }

  nextSession(): number {
    this.#sessions += 1;
    return this.#sessions;
  }

  transmit(packet: Packet): void {
    this.counts.packets += 1;
    const way = this.#way(packet.from, packet.to);
    const { draw } = way;
    const faults = way.faults ?? this.#calm;
    if (faults.cut) {
      this.counts.cut += 1;
      return;
    }
    if (faults.loss > 0 && draw.next() < faults.loss) {
      this.counts.lost += 1;
      return;
    }
    this.#send(packet, way, faults);
    if (faults.duplication > 0 && draw.next() < faults.duplication) {
      this.counts.duplicated += 1;
      this.#send(packet, way, faults);
    }
  }

  #send(packet: Packet, way: Way, pair: PairFaults): void {
    const { draw } = way;
    const sender = this.#conditions.get(packet.from);
    const slowMs = (sender?.slowMs ?? 0) + (this.#conditions.get(packet.to)?.slowMs ?? 0);
    let delayMs = pair.delayMsMin + (pair.delayMsMax - pair.delayMsMin) * draw.next() + slowMs;
    if (pair.reordering > 0 && draw.next() < pair.reordering) {
      this.counts.reordered += 1;
      delayMs += pair.reorderMs;
    }
    const leave = (): void => void this.clock.schedule(delayMs, () => this.#arrive(packet, way));
    if (sender?.frozen === undefined) leave();
    else sender.frozen.push(leave);
  }

  #arrive(packet: Packet, way: Way): void {
    const held = this.#conditions.get(packet.to)?.frozen;
    if (held !== undefined) {
      held.push(() => this.#arrive(packet, way));
      return;
    }
    if ((way.faults ?? this.#calm).cut) {
      this.counts.cut += 1;
      return;
    }
    const host = this.#hosts.get(packet.to);
    if (host?.isAlive === true) host.receive(packet);
    else if (host?.ending === 'killed' && packet.kind !== 'reset') {
      this.transmit({ ...packet, kind: 'reset', from: packet.to, to: packet.from, process: host.process });
    }
  }

  #way(from: string, to: string): Way {
    let ways = this.#ways.get(from);
    if (ways === undefined) this.#ways.set(from, (ways = new Map<string, Way>()));
    let way = ways.get(to);
    if (way === undefined) {
      way = { faults: undefined, draw: this.#random.stream(`packets ${from} > ${to}`) };
      ways.set(to, way);
    }
    return way;
  }

  #condition(name: string): HostCondition {
    const condition = this.#conditions.get(name);
    if (condition === undefined) {
      throw intarsiaError('NOT_FOUND', `no host ${name} in the pretend network`, { host: name });
    }
    return condition;
  }
}

/** The links of one process of a host. */
export class PretendHost implements Links, LinkOwner {
  readonly name: string;
  readonly process: string;
  /** For the actor system: incarnations of no two processes are the same. */
  readonly incarnationMin: number;
  readonly clock: Clock;
  readonly times: LinkTimes;
  readonly counts: NetworkCounts;
  readonly #network: PretendNetwork;
  readonly #links = new Map<string, PretendLink>();
  readonly #watches = new WatchBook();
  readonly #listeners = new Set<(event: LinkEvent) => void>();
  #entrance: Entrance | undefined;
  #ending: 'killed' | 'unplugged' | undefined;

  constructor(network: PretendNetwork, name: string, number: number) {
    this.#network = network;
    this.name = name;
    this.process = `process-${number}`;
    this.incarnationMin = number * 2 ** 32;
    this.clock = network.clock;
    this.times = network.times;
    this.counts = network.counts;
  }

  get isAlive(): boolean {
    return this.#ending === undefined;
  }

  get ending(): 'killed' | 'unplugged' | undefined {
    return this.#ending;
  }

  /** Where what arrives goes. Before, nothing is taken: others find nobody. */
  attach(entrance: Entrance): void {
    this.#entrance = entrance;
  }

  send(to: ActorAddress, message: unknown): Delivery {
    if (!this.isAlive || !this.#network.knows(to.host)) return 'stopped';
    try {
      return this.#link(to.host).offer({ type: 'message', to, value: this.#network.dispatch(message) });
    } catch (error) {
      this.#network.log.error('a message cannot travel to another host', {
        host: to.host,
        actor: to.path,
        error: messageOf(error),
      });
      return 'full';
    }
  }

  watch(actor: ActorAddress, onEnd: EndListener): RemoteWatch {
    let isOver = false;
    const listener: EndListener = (reason) => {
      this.clock.defer(() => {
        if (isOver) return;
        isOver = true;
        onEnd(reason);
      });
    };
    if (!this.isAlive || !this.#network.knows(actor.host)) listener('failed');
    else this.#tellOf(actor.host, this.#watches.add(actor, listener));
    return {
      cancel: () => {
        if (isOver) return;
        isOver = true;
        if (this.isAlive) this.#tellOf(actor.host, this.#watches.remove(actor, listener));
      },
    };
  }

  peers(): readonly PeerLink[] {
    return [...this.#links.values()].map((link) => link.view);
  }

  subscribe(listener: (event: LinkEvent) => void): () => void {
    const own = (event: LinkEvent): void => listener(event);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  // What the network and its links call.

  crash(how: 'killed' | 'unplugged'): void {
    if (!this.isAlive) return;
    if (how === 'killed') {
      for (const link of this.#links.values()) if (link.view.state === 'up') link.lose('the process ended');
    }
    this.#ending = how;
    for (const link of this.#links.values()) link.abandon();
  }

  forget(peer: string): void {
    this.#links.get(peer)?.lose('the host left');
    this.#links.get(peer)?.abandon();
    this.#links.delete(peer);
  }

  receive(packet: Packet): void {
    if (this.#entrance !== undefined) this.#link(packet.from).receive(packet);
  }

  transmit(packet: Packet): void {
    if (this.isAlive) this.#network.transmit(packet);
  }

  nextSession(): number {
    return this.#network.nextSession();
  }

  take(from: string, item: LinkItem): void {
    if (item.type === 'ended') {
      for (const listener of this.#watches.ended({ ...item.actor, host: from })) listener(item.reason);
      return;
    }
    const entrance = this.#entrance;
    if (item.type !== 'message' || entrance === undefined) return;
    this.counts.delivered += 1;
    entrance.deliver(
      item.to,
      item.value.arrive((address) => entrance.ref(address)),
    );
  }

  watchedBy(peer: string): WatchedHere {
    return new WatchedHere(
      (actor) => this.#entrance?.whenEnded(actor) ?? Promise.resolve('stopped'),
      (actor, reason) => {
        if (this.isAlive) this.#link(peer).offer({ type: 'ended', actor, reason });
      },
    );
  }

  isWatching(peer: string): boolean {
    return this.#watches.isWatching(peer);
  }

  renewWatches(peer: string): readonly LinkItem[] {
    return this.#watches.renew(peer).map((actor) => ({ type: 'watch', actor }));
  }

  up(host: string, process: string): void {
    this.#tell({ type: 'up', host, process, reason: '' });
  }

  lost(host: string, process: string, reason: string, wasUp: boolean): void {
    for (const listener of this.#watches.lost(host)) listener('failed');
    if (wasUp) this.#tell({ type: 'lost', host, process, reason });
  }

  #tell(event: LinkEvent): void {
    for (const listener of this.#listeners) {
      this.clock.defer(() => {
        if (this.isAlive && this.#listeners.has(listener)) listener(event);
      });
    }
  }

  #tellOf(host: string, change: { readonly watch?: ActorAddress; readonly unwatch?: ActorAddress }): void {
    if (change.watch !== undefined) this.#link(host).offer({ type: 'watch', actor: change.watch });
    if (change.unwatch !== undefined) this.#link(host).offer({ type: 'unwatch', actor: change.unwatch });
  }

  #link(peer: string): PretendLink {
    let link = this.#links.get(peer);
    if (link === undefined) {
      link = new PretendLink(this, peer);
      this.#links.set(peer, link);
    }
    return link;
  }
}
