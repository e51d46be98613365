/**
 * One end of a link between two hosts of a pretend network: what a connection does over a network that loses, doubles and
 * reorders. Items are numbered, acknowledged and sent again, doubles are filtered, order is restored; when nothing is
 * heard for too long, or the other process is another one, the link is lost as a whole and a later one begins anew.
 */
import type { Delivery } from '#core/actor-address.js';
import { Deque } from '#core/deque.js';
import type { WatchedHere } from '#core/grid/watch-book.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { PeerLink } from '#ports/links.js';
import type { LinkItem, LinkTimes, NetworkCounts, Packet } from './pretend-packets.js';

/** Items sent and not yet acknowledged, at most. */
const windowItems = 256;
/** What arrives in order is acknowledged by what is sent next, or after so long, as over TCP, ms. */
const ackMs = 20;

/** What a link needs of the host it belongs to. */
export interface LinkOwner {
  readonly name: string;
  readonly process: string;
  readonly clock: Clock;
  readonly times: LinkTimes;
  readonly counts: NetworkCounts;
  transmit(packet: Packet): void;
  nextSession(): number;
  take(from: string, item: LinkItem): void;
  watchedBy(peer: string): WatchedHere;
  isWatching(peer: string): boolean;
  /** Actors over there that must be watched again over the next link. */
  renewWatches(peer: string): readonly LinkItem[];
  up(peer: string, process: string): void;
  /** `wasUp`: whether others were told that it came up. */
  lost(peer: string, process: string, reason: string, wasUp: boolean): void;
}

export class PretendLink {
  readonly #owner: LinkOwner;
  readonly #peer: string;
  #state: PeerLink['state'] = 'down';
  #process = '';
  /** The link under way, and the latest one that was: packets of earlier ones are late. */
  #session = 0;
  #latestSession = 0;

  /** Waiting to be sent, and sent but not acknowledged, oldest first. */
  #queue = new Deque<LinkItem>();
  #unacknowledged: { readonly sequence: number; readonly item: LinkItem; readonly sentMs: number }[] = [];
  #waitingBytes = 0;
  #nextSequence = 1;
  #expected = 1;
  readonly #early = new Map<number, LinkItem>();

  #watched: WatchedHere | undefined;
  #heardMs = 0;
  #usedMs = 0;
  #peerInterest = true;
  #failures = 0;
  #retryMs = 0;
  #roundTripMs: number | undefined;
  #resend: Timer | undefined;
  #tick: Timer | undefined;
  #dial: Timer | undefined;
  #ack: Timer | undefined;
  /** Moment since which an acknowledgement waits. */
  #ackSinceMs = 0;

  constructor(owner: LinkOwner, peer: string) {
    this.#owner = owner;
    this.#peer = peer;
  }

  get view(): PeerLink {
    return {
      host: this.#peer,
      state: this.#state,
      process: this.#state === 'up' ? this.#process : '',
      version: this.#state === 'up' ? 1 : 0,
      roundTripMs: this.#roundTripMs,
      bytesPerSecond: undefined,
      queuedMessages: this.#queue.length + this.#unacknowledged.length,
      queuedBytes: this.#waitingBytes,
    };
  }

  /** Takes an item into the queue. Items that hold no message always fit: they are few and small. */
  offer(item: LinkItem): Delivery {
    const { queueMessagesMax, queueBytesMax } = this.#owner.times;
    const bytes = bytesOf(item);
    if (item.type === 'message') {
      if (this.#queue.length + this.#unacknowledged.length >= queueMessagesMax) return 'full';
      if (this.#waitingBytes + bytes > queueBytesMax) return 'full';
    }
    this.#waitingBytes += bytes;
    this.#queue.push(item);
    if (this.#state === 'up') this.#pump();
    else if (this.#state === 'down') this.#dialSoon();
    return 'accepted';
  }

  receive(packet: Packet): void {
    if (packet.kind === 'hello') {
      this.#hello(packet);
      return;
    }
    const isOurs = packet.session === this.#session && this.#state !== 'down';
    if (packet.kind === 'reset') {
      if (isOurs) this.lose('the other side does not know the link');
      return;
    }
    if (!isOurs) {
      this.#transmit('reset', packet.session);
      return;
    }
    if (this.#state === 'connecting') this.#begin(packet.process);
    this.#heardMs = this.#owner.clock.nowMs();
    this.#acknowledged(packet);
    switch (packet.kind) {
      case 'data':
        this.#peerInterest = true;
        this.#arrived(packet);
        break;
      case 'ping':
        this.#peerInterest = packet.interest;
        this.#transmit('ack');
        break;
      case 'bye':
        this.#parted();
        break;
      case 'ack':
      case 'welcome':
        break;
    }
  }

  /** Ends it without a word: the host is gone, or the process with it. */
  abandon(): void {
    this.#stopTimers();
    this.#watched?.close();
    this.#state = 'down';
  }

  lose(reason: string): void {
    const { clock, times, counts } = this.#owner;
    const wasUp = this.#state === 'up';
    const process = this.#process;
    if (wasUp) {
      counts.linksLost += 1;
      this.#transmit('reset');
      this.#failures = 0;
    }
    this.#close();
    this.#queue = new Deque();
    this.#unacknowledged = [];
    this.#waitingBytes = 0;
    this.#failures += 1;
    this.#retryMs = clock.nowMs() + Math.min(times.backoffMsMax, times.backoffMsMin * 2 ** (this.#failures - 1));
    this.#owner.lost(this.#peer, process, reason, wasUp);
  }

  #hello(packet: Packet): void {
    if (packet.session === this.#session && this.#state === 'up') {
      this.#transmit('welcome');
      return;
    }
    if (packet.session <= this.#latestSession) return;
    // Late, or the other side began anew: if it did, it will not know our link when asked, and says so.
    if (this.#state === 'up') {
      this.#transmit('ping');
      return;
    }
    // Both dialled at once: the one whose name comes first has the link.
    if (this.#state === 'connecting' && this.#owner.name < this.#peer) return;
    this.#session = packet.session;
    this.#begin(packet.process);
    this.#transmit('welcome');
    this.#pump();
  }

  #dialSoon(): void {
    if (this.#dial !== undefined) return;
    this.#dial = this.#owner.clock.scheduleAt(Math.max(this.#owner.clock.nowMs(), this.#retryMs), () => {
      this.#dial = undefined;
      if (this.#state === 'down') this.#connect();
    });
  }

  #connect(): void {
    const { clock, times } = this.#owner;
    this.#state = 'connecting';
    this.#session = this.#owner.nextSession();
    const startedMs = clock.nowMs();
    const say = (): void => {
      if (clock.nowMs() - startedMs >= times.silenceMsMax) {
        this.lose('no answer');
        return;
      }
      this.#transmit('hello');
      this.#resend = clock.schedule(times.resendMs, say);
    };
    say();
  }

  #begin(process: string): void {
    const { clock } = this.#owner;
    this.#stopTimers();
    this.#state = 'up';
    this.#process = process;
    this.#latestSession = Math.max(this.#latestSession, this.#session);
    this.#nextSequence = 1;
    this.#expected = 1;
    this.#early.clear();
    this.#heardMs = clock.nowMs();
    this.#usedMs = clock.nowMs();
    this.#peerInterest = true;
    this.#failures = 0;
    this.#watched = this.#owner.watchedBy(this.#peer);
    this.#tick = clock.schedule(this.#owner.times.keepaliveMs, () => this.#lookAfter());
    this.#owner.up(this.#peer, process);
    clock.defer(() => this.#pump());
  }

  #lookAfter(): void {
    const { clock, times } = this.#owner;
    const nowMs = clock.nowMs();
    if (nowMs - this.#heardMs > times.silenceMsMax) {
      this.lose(`nothing was heard for ${times.silenceMsMax} ms`);
      return;
    }
    if (!this.#peerInterest && !this.#isNeeded()) {
      this.#transmit('bye');
      this.#close();
      return;
    }
    if (nowMs - this.#heardMs > times.keepaliveMs / 2) this.#transmit('ping');
    this.#tick = clock.schedule(times.keepaliveMs, () => this.#lookAfter());
  }

  #isNeeded(): boolean {
    if (this.#queue.length > 0 || this.#unacknowledged.length > 0) return true;
    if (this.#owner.clock.nowMs() - this.#usedMs < this.#owner.times.idleMs) return true;
    return this.#owner.isWatching(this.#peer);
  }

  /** The other side needs the link no more: what it has not taken, and what is watched there, goes over the next one. */
  #parted(): void {
    const waiting = [...this.#unacknowledged.map(({ item }) => item)];
    while (this.#queue.length > 0) waiting.push(this.#queue.shift());
    this.#close();
    this.#unacknowledged = [];
    this.#waitingBytes = 0;
    this.#queue = new Deque();
    for (const item of this.#owner.renewWatches(this.#peer)) this.offer(item);
    for (const item of waiting) if (item.type !== 'watch' && item.type !== 'ended') this.offer(item);
  }

  #close(): void {
    this.#stopTimers();
    this.#watched?.close();
    this.#watched = undefined;
    this.#state = 'down';
    this.#latestSession = Math.max(this.#latestSession, this.#session);
  }

  #pump(): void {
    if (this.#state !== 'up') return;
    const { clock } = this.#owner;
    while (this.#queue.length > 0 && this.#unacknowledged.length < windowItems) {
      const item = this.#queue.shift();
      const sequence = this.#nextSequence;
      this.#nextSequence += 1;
      this.#usedMs = clock.nowMs();
      this.#unacknowledged.push({ sequence, item, sentMs: clock.nowMs() });
      this.#transmit('data', this.#session, sequence, item);
    }
    this.#armResend();
  }

  #armResend(): void {
    if (this.#resend !== undefined || this.#unacknowledged.length === 0) return;
    this.#resend = this.#owner.clock.schedule(this.#owner.times.resendMs, () => {
      this.#resend = undefined;
      for (const { sequence, item } of this.#unacknowledged) {
        this.#owner.counts.resent += 1;
        this.#transmit('data', this.#session, sequence, item);
      }
      this.#armResend();
    });
  }

  #acknowledged({ upTo, ackDelayMs }: Packet): void {
    let count = 0;
    for (const { sequence, item, sentMs } of this.#unacknowledged) {
      if (sequence > upTo) break;
      count += 1;
      this.#waitingBytes -= bytesOf(item);
      if (sequence === upTo) this.#measure(this.#owner.clock.nowMs() - sentMs - ackDelayMs);
    }
    if (count === 0) return;
    this.#unacknowledged.splice(0, count);
    this.#resend?.cancel();
    this.#resend = undefined;
    this.#pump();
  }

  #measure(roundTripMs: number): void {
    this.#roundTripMs = this.#roundTripMs === undefined ? roundTripMs : this.#roundTripMs * 0.875 + roundTripMs * 0.125;
  }

  #arrived({ sequence, item }: Packet): void {
    const { counts } = this.#owner;
    this.#usedMs = this.#owner.clock.nowMs();
    if (item === undefined) return;
    const isNext = sequence === this.#expected;
    if (sequence < this.#expected || this.#early.has(sequence)) counts.filtered += 1;
    else if (sequence < this.#expected + windowItems) {
      if (sequence > this.#expected) counts.restored += 1;
      this.#early.set(sequence, item);
      const session = this.#session;
      for (let next = this.#early.get(this.#expected); next !== undefined; next = this.#early.get(this.#expected)) {
        this.#early.delete(this.#expected);
        this.#expected += 1;
        this.#take(next);
        if (this.#state !== 'up' || this.#session !== session) return;
      }
    }
    if (isNext) this.#ackSoon();
    else this.#transmit('ack');
  }

  #ackSoon(): void {
    if (this.#ack !== undefined) return;
    const { clock } = this.#owner;
    this.#ackSinceMs = clock.nowMs();
    this.#ack = clock.schedule(ackMs, () => this.#transmit('ack'));
  }

  #take(item: LinkItem): void {
    if (item.type === 'watch') this.#watched?.watch(item.actor);
    else if (item.type === 'unwatch') this.#watched?.unwatch(item.actor);
    else this.#owner.take(this.#peer, item);
  }

  #transmit(kind: Packet['kind'], session = this.#session, sequence = 0, item?: LinkItem): void {
    const { name, process, clock } = this.#owner;
    let ackDelayMs = 0;
    if (this.#ack !== undefined && session === this.#session) {
      ackDelayMs = clock.nowMs() - this.#ackSinceMs;
      this.#ack.cancel();
      this.#ack = undefined;
    }
    this.#owner.transmit({
      kind,
      from: name,
      to: this.#peer,
      process,
      session,
      sequence,
      upTo: this.#expected - 1,
      ackDelayMs,
      interest: kind === 'ping' && this.#isNeeded(),
      item,
    });
  }

  #stopTimers(): void {
    for (const timer of [this.#resend, this.#tick, this.#dial, this.#ack]) timer?.cancel();
    this.#resend = undefined;
    this.#tick = undefined;
    this.#dial = undefined;
    this.#ack = undefined;
  }
}

function bytesOf(item: LinkItem): number {
  return item.type === 'message' ? item.value.bytes + 64 : 0;
}
