/**
 * Membership as an actor: keeps the host's record under a lease, follows `members/` in the store, publishes views.
 *
 * What fails at the store is tried again for ever, with growing waits; meanwhile the last view stays. A lost lease ends
 * nothing: the host comes back with a new generation, and what was made for the old one no longer fits. It leaves to
 * others: who is reachable (the detector), who leads (the election).
 */
import { asIntarsiaError, type IntarsiaError } from '#core/errors.js';
import { CarryOver } from '#core/grid/carry-over.js';
import type { PeerStatus } from '#core/grid/host-load.js';
import { nameLost, nameTaken, type RecordHolder } from '#core/grid/registration.js';
import { writeMember } from '#core/grid/member-text.js';
import type { HostRecord, View } from '#core/grid/records.js';
import { emptyView } from '#core/grid/records.js';
import type { HostId } from '#core/ids.js';
import type { StoreLease } from '#ports/store.js';
import type { Actor, ActorContext, ActorFactory, ReplyTo, Signal } from '#runtime/actor.js';
import { DrainDesk } from './drain-desk.js';
import { MemberWatch, type MemberWatchEvent } from './member-watch.js';
import { completeMembership, type CompleteMembershipOptions, type MembershipOptions } from './options.js';
import type { DrainOutcome, JoinOutcome, MembershipMessage, MembershipPhase, ViewNews } from './protocol.js';
import { register, type RegisterOutcome } from './register.js';
import { ViewPublisher } from './view-publisher.js';

/** What membership receives: its protocol, and its own news. */
export type MembershipInbox =
  | MembershipMessage
  | MemberWatchEvent
  | { readonly type: 'register' }
  | { readonly type: 'leased'; readonly leasing: number; readonly lease: StoreLease }
  | { readonly type: 'registered'; readonly attempt: number; readonly outcome: RegisterOutcome }
  | { readonly type: 'register-failed'; readonly attempt: number; readonly error: IntarsiaError }
  | { readonly type: 'lease-lost'; readonly leasing: number; readonly reason: string }
  | { readonly type: 'record-written'; readonly attempt: number; readonly revision: number; readonly ok: boolean }
  | { readonly type: 'record-failed'; readonly attempt: number; readonly error: IntarsiaError }
  | { readonly type: 'write-record' }
  | { readonly type: 'publish' }
  | { readonly type: 'prune' }
  | { readonly type: 'drain-end' }
  | { readonly type: 'gone'; readonly deregistered: boolean };

/** Spawn one a host, as `membership`. Subscribers outlive a restart of the actor. */
export function membershipActor(options: MembershipOptions): ActorFactory<MembershipInbox> {
  const complete = completeMembership(options);
  const publisher = new ViewPublisher();
  return (context) => new Membership(complete, publisher, context);
}

class Membership implements Actor<MembershipInbox> {
  readonly #options: CompleteMembershipOptions;
  readonly #publisher: ViewPublisher;
  readonly #context: ActorContext<MembershipInbox>;
  readonly #watch: MemberWatch;
  readonly #carry: CarryOver;
  #record: HostRecord;
  #phase: MembershipPhase = 'joining';
  #error: IntarsiaError | undefined;
  #wasJoined = false;
  #attempt = 0;
  #retries = 0;
  #lease: StoreLease | undefined;
  /** Number of the last lease that was asked for. */
  #leasing = 0;
  #isOver = false;
  #pruneTimer: { cancel(): void } | undefined;
  #generation: number | undefined;
  /** Since when another process holds the name. */
  #heldSinceMs: number | undefined;
  #isWriting = false;
  #mustWrite = false;
  #foldedView: View = emptyView;
  /** Whether somebody is carried no more since the view was made. */
  #hasPruned = false;
  #view: View = emptyView;
  #peers: ReadonlyMap<HostId, PeerStatus> = new Map();
  #joiners: ReplyTo<JoinOutcome>[] = [];
  readonly #drain: DrainDesk;

  constructor(options: CompleteMembershipOptions, publisher: ViewPublisher, context: ActorContext<MembershipInbox>) {
    this.#options = options;
    this.#publisher = publisher;
    this.#context = context;
    this.#record = options.record;
    this.#carry = new CarryOver(options.carryMs);
    this.#drain = new DrainDesk(options.record.host);
    this.#publisher.reset();
    this.#watch = new MemberWatch(options, context);
    this.#watch.start();
    this.#startRegistering();
  }

  receive(message: MembershipInbox): void {
    switch (message.type) {
      case 'subscribe':
        this.#publisher.add(message.subscriber, this.#news());
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
        this.#record = { ...this.#record, devices: message.devices };
        this.#writeRecord();
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
      case 'register':
        this.#startRegistering();
        return;
      case 'leased':
        this.#onLeased(message.leasing, message.lease);
        return;
      case 'registered':
        if (message.attempt === this.#attempt) this.#onRegistered(message.outcome);
        return;
      case 'register-failed':
        if (message.attempt === this.#attempt) this.#onRegisterFailed(message.error);
        return;
      case 'lease-lost':
        if (message.leasing === this.#leasing) this.#comeBack(`the lease was lost: ${message.reason}`);
        return;
      case 'write-record':
        this.#writeRecord();
        return;
      case 'record-written':
        if (message.attempt === this.#attempt) this.#onWritten(message.ok, message.revision);
        return;
      case 'record-failed':
        if (message.attempt === this.#attempt) this.#onWriteFailed(message.error);
        return;
      case 'publish':
        this.#publisher.publish(this.#news(), this.#context.clock.nowMs());
        return;
      case 'prune':
        this.#prune();
        return;
      default:
        this.#onWatch(message);
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
      this.#isOver = true;
      this.#watch.stop();
      this.#lease?.abandon();
      this.#lease = undefined;
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
    const own = fold.recordOf(this.#record.host);
    for (const problem of fold.takeProblems()) this.#context.log.warn('a record in the store is bad', { problem });
    this.#checkOwn(own, fold.generationOf(this.#record.host), fold.revision);
    if (this.#phase === 'joined' && own?.process === this.#record.process) this.#carry.onOwnRecord(false, nowMs);
    if (this.#phase === 'joining' && this.#heldSinceMs !== undefined && own === undefined) this.#startRegistering();
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
    if (this.#phase !== 'joined' || this.#generation === undefined || generation === this.#generation) return;
    if (hasBegunAnew) this.#comeBack('the store has begun anew');
    // The watch may not have come as far as the own registration.
    else if (revision < this.#generation) return;
    else if (own === undefined) this.#comeBack('its record is gone from the store');
    else if (own.process !== this.#record.process) this.#refuse(nameLost(this.#record, own));
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
    if (delayMs !== undefined) this.#context.schedule(delayMs, { type: 'publish' });
  }

  #news(): ViewNews {
    this.#renewView();
    const generation = this.#generation;
    const lease = this.#lease?.id;
    return {
      view: this.#view,
      phase: this.#phase,
      self:
        generation === undefined || lease === undefined
          ? undefined
          : { generation, lease, draining: this.#record.draining === true },
      carried: new Set(this.#carry.hosts.keys()),
      stale: !this.#watch.isConnected,
      freshMs: this.#watch.freshMs,
      peers: this.#peers,
      error: this.#error,
    };
  }

  // --- the own record

  #startRegistering(): void {
    if (this.#phase !== 'joining') return;
    if (this.#lease !== undefined) {
      this.#register(this.#lease);
      return;
    }
    this.#attempt += 1;
    this.#leasing += 1;
    const attempt = this.#attempt;
    const leasing = this.#leasing;
    const { store, leaseMs } = this.#options;
    const { self } = this.#context;
    const leased = store.lease(
      leaseMs,
      (reason) => void self.tell({ type: 'lease-lost', leasing, reason }),
      this.#call(),
    );
    this.#context.pipeToSelf(
      leased.then((lease) => {
        if (this.#isOver) lease.abandon();
        return lease;
      }),
      (lease) => ({ type: 'leased', leasing, lease }),
      (thrown) => ({ type: 'register-failed', attempt, error: asIntarsiaError(thrown) }),
    );
  }

  #onLeased(leasing: number, lease: StoreLease): void {
    if (leasing !== this.#leasing || this.#phase !== 'joining') {
      lease.abandon();
      return;
    }
    this.#lease = lease;
    this.#register(lease);
  }

  #register(lease: StoreLease): void {
    this.#attempt += 1;
    const attempt = this.#attempt;
    const { store, keys } = this.#options;
    const key = keys.host(this.#record.host);
    this.#context.pipeToSelf(
      register({
        store,
        key,
        record: this.#record,
        lease: lease.id,
        isFirst: !this.#wasJoined,
        deadlineMs: () => this.#call().deadlineMs,
      }),
      (outcome) => ({ type: 'registered', attempt, outcome }),
      (thrown) => ({ type: 'register-failed', attempt, error: asIntarsiaError(thrown) }),
    );
  }

  #onRegistered(outcome: RegisterOutcome): void {
    if (outcome.type === 'held') {
      this.#onHeld(outcome.holder);
      return;
    }
    this.#retries = 0;
    this.#heldSinceMs = undefined;
    this.#wasJoined = true;
    this.#generation = outcome.generation;
    this.#watch.noteRevision(outcome.generation);
    this.#phase = 'joined';
    this.#context.log.info('the host is in the grid', { generation: outcome.generation });
    this.#answerJoiners();
    if (this.#record.draining === true && !this.#mustWrite) this.#drain.onAnnounced(outcome.generation);
    if (this.#mustWrite) this.#writeRecord();
    this.#publishSoon();
  }

  /** The holder of the name is given the time of a lease, and a little more, to turn out dead. */
  #onHeld(holder: RecordHolder): void {
    const nowMs = this.#context.clock.nowMs();
    this.#heldSinceMs ??= nowMs;
    const waitedMs = nowMs - this.#heldSinceMs;
    if (waitedMs >= this.#options.leaseMs * 1.5 + 2_000) {
      this.#refuse(nameTaken(this.#record, holder, waitedMs));
      return;
    }
    this.#context.schedule(1_000, { type: 'register' });
  }

  #onRegisterFailed(error: IntarsiaError): void {
    this.#context.log.warn('the host is not in the store yet; it tries again', { reason: error.message });
    this.#retryLater({ type: 'register' });
  }

  /** Registers again. Everything of the old generation is void with that. */
  #comeBack(why: string): void {
    if (this.#phase !== 'joined' && this.#phase !== 'joining') return;
    this.#context.log.warn('the host lost its place in the store and comes back as a new generation', { why });
    this.#phase = 'joining';
    this.#generation = undefined;
    this.#isWriting = false;
    this.#drain.onAnnounced(undefined);
    this.#carry.onOwnRecord(true, this.#context.clock.nowMs());
    this.#lease?.abandon();
    this.#lease = undefined;
    this.#startRegistering();
    this.#publishSoon();
  }

  #refuse(error: IntarsiaError): void {
    this.#context.log.error('the host may not be in the grid under its name', { reason: error.message });
    this.#phase = 'refused';
    this.#error = error;
    this.#generation = undefined;
    this.#attempt += 1;
    this.#lease?.abandon();
    this.#lease = undefined;
    this.#answerJoiners();
    this.#publishSoon();
  }

  #answerJoiners(): void {
    const error = this.#error;
    const generation = this.#generation;
    if (generation === undefined && error === undefined) return;
    for (const joiner of this.#joiners.splice(0)) {
      if (generation !== undefined) joiner.tell({ ok: true, generation });
      else if (error !== undefined) joiner.tell({ ok: false, error });
    }
  }

  /** Writes the record as it is now, in place: the generation stays. */
  #writeRecord(): void {
    const generation = this.#generation;
    const lease = this.#lease?.id;
    this.#mustWrite = true;
    if (this.#isWriting || this.#phase !== 'joined' || generation === undefined || lease === undefined) return;
    this.#isWriting = true;
    this.#mustWrite = false;
    const attempt = this.#attempt;
    const key = this.#options.keys.host(this.#record.host);
    this.#context.pipeToSelf(
      this.#options.store.transact(
        {
          conditions: [{ key, test: 'createRevision', equals: generation }],
          operations: [{ type: 'put', key, value: writeMember(this.#record), lease }],
        },
        this.#call(),
      ),
      ({ ok, revision }) => ({ type: 'record-written', attempt, ok, revision }),
      (thrown) => ({ type: 'record-failed', attempt, error: asIntarsiaError(thrown) }),
    );
  }

  #onWritten(ok: boolean, revision: number): void {
    this.#isWriting = false;
    this.#retries = 0;
    // When it is no longer there, the watch says so too, and the host comes back with all of its record.
    if (ok && !this.#mustWrite) this.#drain.onAnnounced(revision);
    if (this.#mustWrite) this.#writeRecord();
    this.#drain.check(this.#view, this.#peers);
    this.#publishSoon();
  }

  #onWriteFailed(error: IntarsiaError): void {
    this.#isWriting = false;
    this.#mustWrite = true;
    this.#context.log.warn('a change of the host is not in the store yet; it tries again', { reason: error.message });
    this.#retryLater({ type: 'write-record' });
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
    this.#record = { ...this.#record, draining: true };
    this.#writeRecord();
    this.#publishSoon();
  }

  #leave(replyTo: ReplyTo<{ readonly deregistered: boolean }>): void {
    const generation = this.#generation;
    const lease = this.#lease;
    const wasJoined = this.#phase === 'joined';
    this.#phase = 'left';
    this.#generation = undefined;
    this.#lease = undefined;
    this.#attempt += 1;
    const done = (deregistered: boolean) => (): MembershipInbox => {
      replyTo.tell({ deregistered });
      return { type: 'gone', deregistered };
    };
    this.#publishSoon();
    if (!wasJoined || generation === undefined || lease === undefined) {
      lease?.abandon();
      this.#context.pipeToSelf(Promise.resolve(), done(false), done(false));
      return;
    }
    this.#context.pipeToSelf(this.#deregister(generation, lease), done(true), done(false));
  }

  async #deregister(generation: number, lease: StoreLease): Promise<void> {
    const key = this.#options.keys.host(this.#record.host);
    try {
      await this.#options.store.transact(
        { conditions: [{ key, test: 'createRevision', equals: generation }], operations: [{ type: 'delete', key }] },
        this.#call(),
      );
      await lease.revoke();
    } finally {
      lease.abandon();
    }
  }

  #call(): { readonly deadlineMs: number } {
    return { deadlineMs: this.#context.clock.nowMs() + this.#options.callMs };
  }

  #retryLater(message: MembershipInbox): void {
    const { retryMsMin, retryMsMax } = this.#options;
    const waitMs = Math.min(retryMsMax, retryMsMin * 2 ** Math.min(this.#retries, 16));
    this.#retries += 1;
    this.#context.schedule(waitMs * (0.75 + 0.5 * this.#context.random.next()), message);
  }
}
