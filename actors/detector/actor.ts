/**
 * The failure detector as an actor: carries the probes of core/grid/detector.ts between hosts, writes its votes into the
 * store, tells membership what it knows. Without the store it goes on probing; votes wait until it is back.
 */
import { detectorDefaults } from '#core/grid/detector-options.js';
import { Detector, type ProbeToSend } from '#core/grid/detector.js';
import type { PeerStatus } from '#core/grid/host-load.js';
import { writeMember } from '#core/grid/member-text.js';
import { emptyView, type View } from '#core/grid/records.js';
import { VoteDesk, type VoteWrite } from '#core/grid/vote-desk.js';
import type { HostId } from '#core/ids.js';
import type { StoreTransaction } from '#ports/store.js';
import type { ViewNews } from '#actors/membership/protocol.js';
import type { Actor, ActorContext, ActorFactory, ReplyTo, Signal } from '#runtime/actor.js';
import type { DetectorActorOptions } from './options.js';
import type { DetectorMessage } from './protocol.js';

/** What the detector receives: its protocol, and its own news. */
export type DetectorInbox =
  | DetectorMessage
  | { readonly type: 'view-news'; readonly news: ViewNews }
  | { readonly type: 'tick'; readonly number: number }
  | { readonly type: 'tell' }
  | { readonly type: 'voted'; readonly outcome: 'done' | 'refused' | 'unknown'; readonly lease: string }
  | { readonly type: 'vote-again' };

const tellMsDefault = 250;
const callMsDefault = 5_000;
const voteRetryMs = 1_000;

/** Spawn one a host, as `detector`, after `membership`. */
export function detectorActor(options: DetectorActorOptions): ActorFactory<DetectorInbox> {
  return (context) => new DetectorActor(options, context);
}

class DetectorActor implements Actor<DetectorInbox> {
  readonly #options: DetectorActorOptions;
  readonly #context: ActorContext<DetectorInbox>;
  readonly #detector: Detector;
  readonly #desk = new VoteDesk();
  readonly #subscriber: ReplyTo<ViewNews>;
  #view: View = emptyView;
  #self: ViewNews['self'];
  #tick: { cancel(): void } | undefined;
  #tickMs = Infinity;
  #ticks = 0;
  #told: ReadonlyMap<HostId, PeerStatus> | undefined;
  #toldMs = -Infinity;
  #isTelling = false;
  #isVoteWaiting = false;

  constructor(options: DetectorActorOptions, context: ActorContext<DetectorInbox>) {
    const { host, process, limits, readLoad, membership } = options;
    this.#options = options;
    this.#context = context;
    this.#detector = new Detector({ ...detectorDefaults, ...limits, host, process }, context.random, readLoad);
    const { self } = context;
    this.#subscriber = { tell: (news) => self.tell({ type: 'view-news', news }) };
    membership.tell({ type: 'subscribe', subscriber: this.#subscriber, about: 'members' });
    this.#arm();
  }

  receive(message: DetectorInbox): void {
    const nowMs = this.#context.clock.nowMs();
    switch (message.type) {
      case 'view-news':
        this.#onNews(message.news, nowMs);
        break;
      case 'tick':
        if (message.number !== this.#ticks) return;
        this.#tick = undefined;
        this.#tickMs = Infinity;
        this.#send(this.#detector.onTick(nowMs), nowMs);
        break;
      case 'tell':
        this.#tell(nowMs);
        return;
      case 'voted':
        this.#desk.onOutcome(message.outcome, message.lease);
        if (message.outcome === 'unknown') this.#voteLater();
        break;
      case 'vote-again':
        this.#isVoteWaiting = false;
        break;
      default:
        this.#send(this.#detector.onMessage(message, nowMs), nowMs);
    }
    this.#vote(nowMs);
    this.#tellSoon(nowMs);
    this.#arm();
  }

  signal(signal: Signal): void {
    if (signal.type === 'drain') this.#context.stop();
    else if (signal.type === 'post-stop' || signal.type === 'pre-restart') {
      this.#options.membership.tell({ type: 'unsubscribe', subscriber: this.#subscriber });
    }
  }

  #onNews(news: ViewNews, nowMs: number): void {
    this.#self = news.self;
    this.#desk.onLease(news.self?.lease);
    if (news.view === this.#view) return;
    this.#view = news.view;
    this.#send(this.#detector.onView(news.view, nowMs), nowMs);
  }

  #send(probes: readonly ProbeToSend[], nowMs: number): void {
    for (const { to, message } of probes) {
      if (this.#options.detectorOf(to).tell(message) !== 'stopped' || message.type !== 'ping') continue;
      // What follows goes to helpers and is not tried again here, so this ends.
      this.#send(this.#detector.onUndeliverable(to, nowMs), nowMs);
    }
  }

  #arm(): void {
    const nowMs = this.#context.clock.nowMs();
    const nextMs = this.#detector.nextTickMs(nowMs);
    if (this.#tick !== undefined && nextMs === this.#tickMs) return;
    this.#tick?.cancel();
    this.#ticks += 1;
    this.#tickMs = nextMs;
    this.#tick = this.#context.schedule(nextMs - nowMs, { type: 'tick', number: this.#ticks });
  }

  #vote(nowMs: number): void {
    const self = this.#self;
    if (this.#isVoteWaiting || self === undefined) return;
    const write = this.#desk.next(this.#detector.wantedVotes);
    if (write === undefined) return;
    const { lease } = self;
    this.#context.log.info(write.type === 'cast' ? 'votes against a host' : 'withdraws its vote against a host', {
      peer: write.host,
      generation: write.generation,
      reason: write.reason,
    });
    this.#context.pipeToSelf(
      this.#options.store.transact(this.#transaction(write, self), {
        deadlineMs: nowMs + (this.#options.callMs ?? callMsDefault),
      }),
      ({ ok }) => ({ type: 'voted', outcome: ok ? 'done' : 'refused', lease }),
      () => ({ type: 'voted', outcome: 'unknown', lease }),
    );
  }

  #transaction(write: VoteWrite, self: NonNullable<ViewNews['self']>): StoreTransaction {
    const { keys, host } = this.#options;
    const key = keys.vote(write.host, write.generation, host);
    if (write.type === 'withdraw') return { conditions: [], operations: [{ type: 'delete', key }] };
    return {
      conditions: [
        { key: keys.host(write.host), test: 'createRevision', equals: write.generation },
        { key: keys.host(host), test: 'createRevision', equals: self.generation },
      ],
      operations: [{ type: 'put', key, value: writeMember({ format: 1, reason: write.reason }), lease: self.lease }],
    };
  }

  #voteLater(): void {
    if (this.#isVoteWaiting) return;
    this.#isVoteWaiting = true;
    this.#context.schedule(voteRetryMs, { type: 'vote-again' });
  }

  #tellSoon(nowMs: number): void {
    if (this.#isTelling) return;
    this.#isTelling = true;
    const delayMs = Math.max(0, this.#toldMs + (this.#options.tellMs ?? tellMsDefault) - nowMs);
    this.#context.schedule(delayMs, { type: 'tell' });
  }

  #tell(nowMs: number): void {
    this.#isTelling = false;
    this.#toldMs = nowMs;
    const peers = this.#detector.statuses();
    if (peers === this.#told) return;
    this.#told = peers;
    this.#options.membership.tell({ type: 'peers', peers });
  }
}
