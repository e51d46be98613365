/**
 * Membership as an actor: keeps the host's record under a lease, follows `members/` in the store, publishes views.
 *
 * What fails at the store is tried again for ever, with growing waits; meanwhile the last view stays. A lost lease ends
 * nothing: the host comes back with a new generation, and what was made for the old one no longer fits. It leaves to
 * others: who is reachable (the detector), who leads (the election).
 */
import { CarryOver } from '#core/grid/carry-over.js';
import type { PeerStatus } from '#core/grid/host-load.js';
import { nameLost } from '#core/grid/registration.js';
import type { Generation, HostRecord, View } from '#core/grid/records.js';
import { emptyView } from '#core/grid/records.js';
import type { HostId } from '#core/ids.js';
import type { Actor, ActorContext, ActorFactory, ReplyTo, Signal } from '#runtime/actor.js';
import { DrainDesk } from './drain-desk.js';
import { MemberWatch, type MemberWatchEvent } from './member-watch.js';
import { OwnRecord, type OwnRecordEvent, type RecordOwner } from './own-record.js';
import { completeMembership, type CompleteMembershipOptions, type MembershipOptions } from './options.js';
import type { DrainOutcome, JoinOutcome, MembershipMessage, ViewNews } from './protocol.js';
import { ViewPublisher } from './view-publisher.js';

/** What membership receives: its protocol, and its own news. */
export type MembershipInbox =
  | MembershipMessage
  | MemberWatchEvent
  | OwnRecordEvent
  | { readonly type: 'publish' }
  | { readonly type: 'prune' }
  | { readonly type: 'drain-end' }
  | { readonly type: 'gone' };

/** Spawn one a host, as `membership`. Subscribers outlive a restart of the actor. */
export function membershipActor(options: MembershipOptions): ActorFactory<MembershipInbox> {
  const complete = completeMembership(options);
  const publisher = new ViewPublisher();
  return (context) => new Membership(complete, publisher, context);
}

class Membership implements Actor<MembershipInbox>, RecordOwner {
  readonly #publisher: ViewPublisher;
  readonly #context: ActorContext<MembershipInbox>;
  readonly #watch: MemberWatch;
  readonly #carry: CarryOver;
  readonly #own: OwnRecord;
  #pruneTimer: { cancel(): void } | undefined;
  #foldedView: View = emptyView;
  /** Whether somebody is carried no more since the view was made. */
  #hasPruned = false;
  #view: View = emptyView;
  #peers: ReadonlyMap<HostId, PeerStatus> = new Map();
  #joiners: ReplyTo<JoinOutcome>[] = [];
  readonly #drain: DrainDesk;

  constructor(options: CompleteMembershipOptions, publisher: ViewPublisher, context: ActorContext<MembershipInbox>) {
    this.#publisher = publisher;
    this.#context = context;
    this.#carry = new CarryOver(options.carryMs);
    this.#drain = new DrainDesk(options.record.host);
    this.#publisher.reset();
    this.#watch = new MemberWatch(options, context);
    this.#own = new OwnRecord(options, context, this);
    this.#watch.start();
    this.#own.start();
  }

  receive(message: MembershipInbox): void {
    switch (message.type) {
      case 'subscribe':
        this.#publisher.add(message.subscriber, this.#news(), message.about);
        return;
      case 'unsubscribe':
        this.#publisher.remove(message.subscriber);
        return;
      case 'view':
        message.replyTo.tell(this.#news());
        return;
      case 'join':
        this.#joiners.push(message.replyTo);
        this.#answerJoiners();
        return;
      case 'devices':
        this.#own.change({ ...this.#own.record, devices: message.devices });
        return;
      case 'peers':
        this.#onPeers(message.peers);
        return;
      case 'drain':
        this.#onDrain(message.waitMsMax, message.replyTo);
        return;
      case 'drain-end':
        this.#drain.end(this.#view, this.#peers);
        return;
      case 'leave':
        this.#leave(message.replyTo);
        return;
      case 'gone':
        return;
      case 'publish':
        this.#publisher.publish(this.#news(), this.#context.clock.nowMs());
        return;
      case 'prune':
        this.#prune();
        return;
      case 'snapshot':
      case 'snapshot-failed':
      case 'store-event':
      case 'read-again':
        this.#onWatch(message);
        return;
      default:
        this.#own.handle(message);
    }
  }

  signal(signal: Signal): void {
    if (signal.type === 'drain') {
      this.#leave({
        tell: () => {
          this.#context.stop();
          return 'accepted';
        },
      });
    } else if (signal.type === 'post-stop' || signal.type === 'pre-restart') {
      this.#watch.stop();
      this.#own.end();
    }
  }

  // --- the view

  #onWatch(event: MemberWatchEvent): void {
    const isOther = this.#watch.handle(event);
    if (isOther) this.#refold();
    else if (event.type === 'store-event' && event.event.type === 'connected') this.#publishSoon();
  }

  /** Something may have changed. The view itself is made when it is published: it costs as much as there are hosts. */
  #refold(): void {
    const nowMs = this.#context.clock.nowMs();
    const { fold } = this.#watch;
    const own = fold.recordOf(this.#own.record.host);
    for (const problem of fold.takeProblems()) this.#context.log.warn('a record in the store is bad', { problem });
    this.#checkOwn(own, fold.generationOf(this.#own.record.host), fold.revision);
    if (this.#own.phase === 'joined' && own?.process === this.#own.record.process)
      this.#carry.onOwnRecord(false, nowMs);
    if (own === undefined) this.#own.onNameFree();
    this.#publishSoon();
  }

  #renewView(): void {
    const nowMs = this.#context.clock.nowMs();
    const folded = this.#watch.fold.view();
    const before = this.#foldedView;
    if (folded.hosts === before.hosts && folded.revision === before.revision && !this.#hasPruned) return;
    this.#foldedView = folded;
    this.#hasPruned = false;
    this.#carry.onView(this.#view, folded, nowMs);
    this.#view = this.#carry.over(folded);
    this.#pruneTimer?.cancel();
    if (this.#carry.pruneMs < Infinity) {
      this.#pruneTimer = this.#context.schedule(this.#carry.pruneMs - nowMs, { type: 'prune' });
    }
  }

  /** Compares what the store has under this host's name, up to that revision, with what it should have. */
  #checkOwn(own: HostRecord | undefined, generation: number | undefined, revision: number): void {
    const hasBegunAnew = this.#watch.takeBegunAnew();
    if (this.#own.phase !== 'joined' || this.#own.generation === undefined || generation === this.#own.generation)
      return;
    if (hasBegunAnew) this.#own.comeBack('the store has begun anew');
    // The watch may not have come as far as the own registration.
    else if (revision < this.#own.generation) return;
    else if (own === undefined) this.#own.comeBack('its record is gone from the store');
    else if (own.process !== this.#own.record.process) this.#own.refuse(nameLost(this.#own.record, own));
  }

  #prune(): void {
    const isReachable = (host: HostId): boolean => this.#peers.get(host)?.reachable !== false;
    if (!this.#carry.prune(isReachable, this.#context.clock.nowMs())) return;
    this.#hasPruned = true;
    this.#publishSoon();
  }

  #onPeers(peers: ReadonlyMap<HostId, PeerStatus>): void {
    this.#peers = peers;
    this.#prune();
    this.#drain.check(this.#view, this.#peers);
    this.#publishSoon();
  }

  #publishSoon(): void {
    const delayMs = this.#publisher.claim(this.#view.hosts.size, this.#context.clock.nowMs());
    if (delayMs === undefined) return;
    // At once is after what waits in the mailbox already, so that it is gathered too.
    if (delayMs > 0 || this.#context.self.tell({ type: 'publish' }) !== 'accepted') {
      this.#context.schedule(delayMs, { type: 'publish' });
    }
  }

  #news(): ViewNews {
    this.#renewView();
    return {
      view: this.#view,
      phase: this.#own.phase,
      self: this.#own.registration,
      carried: new Set(this.#carry.hosts.keys()),
      stale: !this.#watch.isConnected,
      freshMs: this.#watch.freshMs,
      peers: this.#peers,
      error: this.#own.error,
    };
  }

  // --- the own record

  onJoined(generation: Generation): void {
    this.#watch.noteRevision(generation);
    this.#answerJoiners();
    this.#publishSoon();
  }

  onRecordInStore(record: HostRecord, revision: number): void {
    if (record.draining === true) this.#drain.onAnnounced(revision);
    this.#drain.check(this.#view, this.#peers);
    this.#publishSoon();
  }

  onLost(): void {
    this.#drain.onAnnounced(undefined);
    this.#carry.onOwnRecord(true, this.#context.clock.nowMs());
    this.#publishSoon();
  }

  onRefused(): void {
    this.#answerJoiners();
    this.#publishSoon();
  }

  #answerJoiners(): void {
    const error = this.#own.error;
    const generation = this.#own.generation;
    if (generation === undefined && error === undefined) return;
    for (const joiner of this.#joiners.splice(0)) {
      if (generation !== undefined) joiner.tell({ ok: true, generation });
      else if (error !== undefined) joiner.tell({ ok: false, error });
    }
  }

  // --- leaving

  #onDrain(waitMsMax: number, replyTo: ReplyTo<DrainOutcome>): void {
    this.#context.schedule(Math.max(0, waitMsMax), { type: 'drain-end' });
    const hasBegun = this.#drain.hasBegun;
    this.#drain.begin(replyTo);
    if (hasBegun) {
      this.#drain.check(this.#view, this.#peers);
      return;
    }
    this.#own.change({ ...this.#own.record, draining: true });
    this.#publishSoon();
  }

  #leave(replyTo: ReplyTo<{ readonly deregistered: boolean }>): void {
    const done = (deregistered: boolean): MembershipInbox => {
      replyTo.tell({ deregistered });
      return { type: 'gone' };
    };
    this.#context.pipeToSelf(this.#own.leave(), done, () => done(false));
    this.#publishSoon();
  }
}
