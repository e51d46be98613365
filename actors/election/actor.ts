/**
 * The election as an actor: holds the key `leader` under a lease of its own, or waits for it to be free. It campaigns only
 * while its host is registered and not draining. It leads from the moment its write is answered until its lease is lost,
 * its key is gone, or it resigns; then it says so at once, before anything else.
 */
import { asIntarsiaError, messageOf } from '#core/errors.js';
import { campaignWaitMs, leaderFence, readLeader, writeLeader } from '#core/grid/election.js';
import type { HostId } from '#core/ids.js';
import type { StoreEntry, StoreLease, StoreWatch, StoreWatchEvent } from '#ports/store.js';
import type { ViewNews } from '#actors/membership/protocol.js';
import type { Actor, ActorContext, ActorFactory, ReplyTo, Signal } from '#runtime/actor.js';
import type { ElectionOptions } from './options.js';
import type { ElectionMessage, Leadership } from './protocol.js';

/** What the election receives: its protocol, and its own news. */
export type ElectionInbox =
  | ElectionMessage
  | { readonly type: 'view-news'; readonly news: ViewNews }
  | { readonly type: 'read'; readonly reading: number }
  | {
      readonly type: 'read-done';
      readonly reading: number;
      readonly revision: number;
      readonly entry: StoreEntry | undefined;
    }
  | { readonly type: 'read-failed'; readonly reading: number; readonly reason: string }
  | { readonly type: 'store-event'; readonly reading: number; readonly event: StoreWatchEvent }
  | { readonly type: 'campaign'; readonly campaign: number }
  | { readonly type: 'leased'; readonly campaign: number; readonly lease: StoreLease }
  | { readonly type: 'campaigned'; readonly campaign: number; readonly epoch: number | undefined }
  | { readonly type: 'campaign-failed'; readonly campaign: number; readonly reason: string }
  | { readonly type: 'lease-lost'; readonly campaign: number; readonly reason: string }
  | { readonly type: 'nothing' };

interface KnownLeader {
  readonly host: HostId | undefined;
  readonly epoch: number;
}

const leaseMsDefault = 6_000;
const callMsDefault = 3_000;
const retryMs = 1_000;
const subscribersMax = 64;

/** Spawn one a host, as `election`, after `membership`. Subscribers outlive a restart of the actor. */
export function electionActor(options: ElectionOptions): ActorFactory<ElectionInbox> {
  const subscribers = new Set<ReplyTo<Leadership>>();
  return (context) => new Election(options, subscribers, context);
}

class Election implements Actor<ElectionInbox> {
  readonly #options: ElectionOptions;
  readonly #subscribers: Set<ReplyTo<Leadership>>;
  readonly #context: ActorContext<ElectionInbox>;
  readonly #viewSubscriber: ReplyTo<ViewNews>;
  #news: ViewNews | undefined;
  #reading = 0;
  #watch: StoreWatch | undefined;
  /** Undefined: not known. */
  #leader: KnownLeader | undefined;
  #isFree = false;
  /** Number of the campaign; everything of an earlier one is void. */
  #campaign = 0;
  #stage: 'idle' | 'waiting' | 'running' | 'leading' = 'idle';
  #epoch = 0;
  /** The read of the store that was current when this host began to lead: what it says may be of the time before. */
  #leadReading = 0;
  #lease: StoreLease | undefined;
  #hasResigned = false;
  #isOver = false;

  constructor(options: ElectionOptions, subscribers: Set<ReplyTo<Leadership>>, context: ActorContext<ElectionInbox>) {
    this.#options = options;
    this.#subscribers = subscribers;
    this.#context = context;
    const { self } = context;
    this.#viewSubscriber = { tell: (news) => self.tell({ type: 'view-news', news }) };
    options.membership.tell({ type: 'subscribe', subscriber: this.#viewSubscriber, about: 'members' });
    this.#read();
    this.#publish();
  }

  receive(message: ElectionInbox): void {
    switch (message.type) {
      case 'nothing':
        return;
      case 'subscribe':
        if (this.#subscribers.size < subscribersMax) this.#subscribers.add(message.subscriber);
        message.subscriber.tell(this.#leadership());
        return;
      case 'unsubscribe':
        this.#subscribers.delete(message.subscriber);
        return;
      case 'leadership':
        message.replyTo.tell(this.#leadership());
        return;
      case 'resign':
        this.#hasResigned = true;
        this.#resign(message.replyTo);
        return;
      case 'view-news':
        this.#news = message.news;
        this.#consider();
        return;
      case 'read':
        if (message.reading === this.#reading) this.#read();
        return;
      case 'read-done':
        if (message.reading === this.#reading) this.#onRead(message.revision, message.entry);
        return;
      case 'read-failed':
        if (message.reading === this.#reading) this.#readLater(message.reason);
        return;
      case 'store-event':
        if (message.reading === this.#reading) this.#onEvent(message.event);
        return;
      case 'campaign':
        if (message.campaign === this.#campaign && this.#stage === 'waiting') this.#run();
        return;
      case 'leased':
        this.#onLeased(message.campaign, message.lease);
        return;
      case 'campaigned':
        if (message.campaign === this.#campaign) this.#onCampaigned(message.epoch);
        return;
      case 'campaign-failed':
        if (message.campaign === this.#campaign) this.#onCampaignFailed(message.reason);
        return;
      case 'lease-lost':
        if (message.campaign === this.#campaign) this.#stepDown(`its lease was lost: ${message.reason}`);
    }
  }

  signal(signal: Signal): void {
    if (signal.type === 'drain') {
      this.#hasResigned = true;
      this.#resign({
        tell: () => {
          this.#context.stop();
          return 'accepted';
        },
      });
    } else if (signal.type === 'post-stop' || signal.type === 'pre-restart') {
      this.#isOver = true;
      this.#stopWatch();
      this.#options.membership.tell({ type: 'unsubscribe', subscriber: this.#viewSubscriber });
      const wasLeading = this.#stage === 'leading';
      this.#endCampaign();
      if (wasLeading) this.#publish();
    }
  }

  // --- who has the key

  #read(): void {
    this.#stopWatch();
    const reading = this.#reading;
    const { store, keys } = this.#options;
    this.#context.pipeToSelf(
      store.get(keys.leader, this.#call()),
      ({ revision, entry }) => ({ type: 'read-done', reading, revision, entry }),
      (thrown) => ({ type: 'read-failed', reading, reason: messageOf(thrown) }),
    );
  }

  #onRead(revision: number, entry: StoreEntry | undefined): void {
    const { store, keys } = this.#options;
    const reading = this.#reading;
    const { self } = this.#context;
    this.#watch = store.watch(keys.leader, revision + 1, (event) => {
      if (self.tell({ type: 'store-event', reading, event }) === 'full') {
        this.#context.schedule(retryMs, { type: 'read', reading });
      }
    });
    this.#onKey(entry, revision);
  }

  #readLater(reason: string): void {
    this.#context.log.debug('the leader cannot be read from the store', { reason });
    const jitterMs = retryMs * this.#context.random.next();
    this.#context.schedule(retryMs + jitterMs, { type: 'read', reading: this.#reading });
  }

  #onEvent(event: StoreWatchEvent): void {
    if (event.type === 'lost') {
      this.#read();
      return;
    }
    if (event.type !== 'changes') return;
    const key = this.#options.keys.leader;
    for (const change of event.changes) {
      if (change.type === 'put' && change.entry.key === key) this.#onKey(change.entry, event.revision);
      else if (change.type === 'delete' && change.key === key) this.#onKey(undefined, event.revision);
    }
  }

  #onKey(entry: StoreEntry | undefined, revision: number): void {
    if (this.#stage === 'leading' && this.#reading === this.#leadReading && revision < this.#epoch) return;
    const before = this.#leader;
    this.#isFree = entry === undefined;
    this.#leader =
      entry === undefined ? undefined : { host: readLeader(entry.value)?.host, epoch: entry.createRevision };
    if (this.#stage === 'leading' && entry?.createRevision !== this.#epoch) {
      this.#stepDown('its key was taken away');
      return;
    }
    this.#consider();
    const isOther = before?.epoch !== this.#leader?.epoch || before?.host !== this.#leader?.host;
    if (isOther && this.#stage !== 'leading') this.#publish();
  }

  // --- campaigning

  #consider(): void {
    const mayTry = this.#options.isCandidate && !this.#hasResigned && this.#isEligible();
    if (this.#stage === 'leading') {
      if (!mayTry) this.#resign();
    } else if (!mayTry || !this.#isFree) {
      if (this.#stage === 'waiting') this.#endCampaign();
    } else if (this.#stage === 'idle') this.#wait(0);
  }

  #isEligible(): boolean {
    const news = this.#news;
    return news?.self !== undefined && !news.self.draining;
  }

  #wait(atLeastMs: number): void {
    const news = this.#news;
    if (news === undefined) return;
    this.#campaign += 1;
    this.#stage = 'waiting';
    const waitMs = campaignWaitMs(this.#options.host, news.view, this.#context.random.next());
    this.#context.schedule(Math.max(atLeastMs, waitMs), { type: 'campaign', campaign: this.#campaign });
  }

  #run(): void {
    this.#stage = 'running';
    const campaign = this.#campaign;
    const { self } = this.#context;
    const onLost = (reason: string): void => void self.tell({ type: 'lease-lost', campaign, reason });
    const leased = this.#options.store.lease(this.#options.leaseMs ?? leaseMsDefault, onLost, this.#call());
    this.#context.pipeToSelf(
      leased.then((lease) => {
        if (this.#isOver) lease.abandon();
        return lease;
      }),
      (lease) => ({ type: 'leased', campaign, lease }),
      (thrown) => ({ type: 'campaign-failed', campaign, reason: asIntarsiaError(thrown).message }),
    );
  }

  #onLeased(campaign: number, lease: StoreLease): void {
    if (campaign !== this.#campaign || this.#stage !== 'running') {
      this.#revoke(lease);
      return;
    }
    this.#lease = lease;
    this.#context.pipeToSelf(
      this.#take(lease.id),
      (epoch) => ({ type: 'campaigned', campaign, epoch }),
      (thrown) => ({ type: 'campaign-failed', campaign, reason: asIntarsiaError(thrown).message }),
    );
  }

  /** Takes the key if it is free. The epoch; undefined when somebody else has it. */
  async #take(lease: string): Promise<number | undefined> {
    const { store, keys, host, process } = this.#options;
    const key = keys.leader;
    const { ok, revision } = await store.transact(
      {
        conditions: [{ key, test: 'absent' }],
        operations: [{ type: 'put', key, value: writeLeader({ format: 1, host, process }), lease }],
      },
      this.#call(),
    );
    return ok ? revision : undefined;
  }

  #onCampaigned(epoch: number | undefined): void {
    if (epoch === undefined) {
      this.#endCampaign();
      // The watch will say who has it; should it have been let go meanwhile, the next look finds out.
      this.#isFree = false;
      this.#read();
      return;
    }
    this.#stage = 'leading';
    this.#epoch = epoch;
    this.#leadReading = this.#reading;
    this.#context.log.info('this host leads', { epoch });
    this.#publish();
    this.#consider();
  }

  /** Also when the outcome is unknown: the lease is ended, and with it the key, should it have been written. */
  #onCampaignFailed(reason: string): void {
    this.#context.log.debug('a campaign failed', { reason });
    this.#endCampaign();
    this.#isFree = false;
    this.#stopWatch();
    this.#readLater(reason);
  }

  #stepDown(why: string): void {
    const wasLeading = this.#stage === 'leading';
    this.#endCampaign();
    if (wasLeading) {
      this.#context.log.warn('this host leads no more', { epoch: this.#epoch, why });
      this.#leader = undefined;
      this.#publish();
    }
    this.#read();
  }

  #resign(replyTo?: ReplyTo<{ readonly resigned: boolean }>): void {
    const lease = this.#lease;
    const wasLeading = this.#stage === 'leading';
    this.#lease = undefined;
    this.#endCampaign();
    if (wasLeading) {
      this.#leader = undefined;
      this.#publish();
    }
    if (lease === undefined || !wasLeading) {
      if (lease !== undefined) this.#revoke(lease);
      replyTo?.tell({ resigned: false });
      return;
    }
    const done = (resigned: boolean) => (): ElectionInbox => {
      lease.abandon();
      replyTo?.tell({ resigned });
      return { type: 'nothing' };
    };
    this.#context.pipeToSelf(lease.revoke(), done(true), done(false));
  }

  #endCampaign(): void {
    this.#campaign += 1;
    this.#stage = 'idle';
    if (this.#lease !== undefined) this.#revoke(this.#lease);
    this.#lease = undefined;
  }

  #revoke(lease: StoreLease): void {
    // When the store cannot be told, the lease ends by itself: it is no longer kept alive.
    lease.revoke().catch(() => lease.abandon());
  }

  // --- what others are told

  #leadership(): Leadership {
    if (this.#stage === 'leading') {
      const epoch = this.#epoch;
      return { leading: true, epoch, fence: leaderFence(this.#options.keys.leader, epoch) };
    }
    return { leading: false, leader: this.#leader?.host, epoch: this.#leader?.epoch ?? 0 };
  }

  #publish(): void {
    const leadership = this.#leadership();
    for (const subscriber of this.#subscribers) {
      if (subscriber.tell(leadership) === 'stopped') this.#subscribers.delete(subscriber);
    }
  }

  #stopWatch(): void {
    this.#reading += 1;
    this.#watch?.cancel();
    this.#watch = undefined;
  }

  #call(): { readonly deadlineMs: number } {
    return { deadlineMs: this.#context.clock.nowMs() + (this.#options.callMs ?? callMsDefault) };
  }
}
