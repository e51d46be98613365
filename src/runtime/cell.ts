/**
 * One actor from its spawning to its end: its mailbox, its present incarnation, its children, its supervision. The
 * lifecycle is one state machine and is easiest to read whole; what an incarnation may do is in context.ts.
 *
 *   starting ──► running ──► stopped          starting, running, restarting take messages
 *      ▲            │           ▲
 *      └─ restarting┴─ stopping ┘             stopping: asked to stop while its own code is on the stack
 */
import type { ActorAddress, Delivery } from '#core/actor-address.js';
import { Deque } from '#core/deque.js';
import { intarsiaError, messageOf } from '#core/errors.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { Log } from '#ports/log.js';
import type { Random } from '#ports/random.js';
import type {
  Actor,
  ActorFactory,
  ActorRef,
  AskOptions,
  MailboxOptions,
  ReplyTo,
  Signal,
  SupervisionDecision,
  SupervisionOptions,
} from './actor.js';
import { AskList } from './ask.js';
import type { Ask } from './ask.js';
import type { DeadLetters } from './dead-letters.js';
import type { ActorChannels, DeadLetterReason } from './diagnostic-events.js';
import type { Dispatcher, Runnable } from './dispatcher.js';
import { Mailbox } from './mailbox.js';
import { RestartHistory } from './restart-history.js';

const starting = 0;
const running = 1;
const restarting = 2;
const stopping = 3;
const stopped = 4;
type CellState = typeof starting | typeof running | typeof restarting | typeof stopping | typeof stopped;
/** States as people read them. */
export const cellStateNames = ['starting', 'running', 'restarting', 'stopping', 'stopped'] as const;

/** Stands for the absence of a current message; messages themselves may be anything. */
const noMessage: unique symbol = Symbol('no message');

/** What the cell needs of its system. */
export interface CellHost {
  readonly clock: Clock;
  readonly log: Log;
  readonly random: Random;
  readonly deadLetters: DeadLetters;
  readonly channels: ActorChannels;
  readonly dispatcher: Dispatcher;
  /** Failures and restarts of all actors so far. */
  failures: number;
  restarts: number;
  /** Makes what an incarnation is given; `end` is called when the incarnation is over. */
  createIncarnation(cell: ActorCell): Incarnation;
  /** Until the matching `leave`, `stopCell` puts off the end of this actor and of its ancestors. */
  enter(cell: ActorCell): void;
  leave(): void;
  /** Takes the actor and its children down, now or as soon as none of their code is on the stack. */
  stopCell(cell: ActorCell): void;
  /** A top-level actor's failure was not dealt with below. */
  escalated(cell: ActorCell, failure: unknown): void;
  /** The cell is gone: forget its name. */
  removed(cell: ActorCell): void;
}

/** The insides of one incarnation. */
export interface Incarnation {
  create(factory: ActorFactory<unknown>): Actor<unknown>;
  /** Cancels its timers and watches and makes its context deaf. */
  end(): void;
}

/** Something the system puts among the messages: it is never refused and keeps its place in their order. */
type Notice =
  | { readonly at: number; readonly kind: 'signal'; readonly signal: Signal }
  | { readonly at: number; readonly kind: 'message'; readonly message: unknown };

export interface CellOptions {
  readonly host: CellHost;
  readonly address: ActorAddress;
  readonly parent: ActorCell | undefined;
  readonly factory: ActorFactory<unknown>;
  readonly mailbox: MailboxOptions<unknown>;
  readonly supervision: SupervisionOptions;
}

export class ActorCell implements Runnable {
  isQueued = false;
  readonly mailbox: Mailbox<unknown>;
  readonly address: ActorAddress;
  readonly parent: ActorCell | undefined;
  readonly children = new Map<string, ActorCell>();
  /** Who is told of the end. */
  readonly watchers = new Set<ActorCell>();
  /** The reference that others hold; set by the system right after construction. */
  self!: ActorRef<unknown>;
  /** Why it stopped; undefined while it lives. */
  endReason: 'stopped' | 'failed' | undefined;

  private readonly host: CellHost;
  private readonly factory: ActorFactory<unknown>;
  private readonly supervision: SupervisionOptions;
  private readonly history: RestartHistory;
  private readonly asks = new AskList();
  private readonly notices = new Deque<Notice>();
  /** Position of the first notice among the messages; Infinity when there is none. */
  private noticeAt = Infinity;
  private state: CellState = starting;
  private actor: Actor<unknown> | undefined;
  private incarnation: Incarnation | undefined;
  private current: unknown = noMessage;
  /** Once this incarnation stashed, positions no longer tell which messages it consumed. */
  private hasStashed = false;
  private backoff: Timer | undefined;
  /** Messages handled in this turn. */
  private handled = 0;
  /** Whether it is to end gracefully, and whether it was told: a parent is told once its children have ended. */
  private isDraining: boolean;
  private isDrainTold = false;

  constructor(options: CellOptions) {
    this.host = options.host;
    this.address = options.address;
    this.parent = options.parent;
    this.factory = options.factory;
    this.supervision = options.supervision;
    this.history = new RestartHistory(options.supervision);
    this.isDraining = options.parent?.isDraining ?? false;
    this.mailbox = new Mailbox(options.mailbox, (message, position) => this.onDropped(message, position));
  }

  get stateName(): (typeof cellStateNames)[number] {
    return cellStateNames[this.state];
  }

  get restarts(): number {
    return this.history.count;
  }

  get isEnding(): boolean {
    return this.state >= stopping;
  }

  /** Lets it start soon; a child of an actor that drains is to end as soon as it has. */
  begin(): void {
    if (!this.isQueued) this.host.dispatcher.enqueue(this);
    this.tellDrain();
  }

  tell(message: unknown): Delivery {
    if (this.state >= stopping) return this.refuse(message, 'stopped', 'stopped');
    const outcome = this.mailbox.offer(message);
    if (outcome !== 'accepted') {
      return outcome === 'full' ? this.refuse(message, 'full', 'full') : this.refuse(message, 'dropped', 'accepted');
    }
    if (!this.isQueued) this.host.dispatcher.enqueue(this);
    return 'accepted';
  }

  ask<Reply>(ask: Ask<Reply>, build: (replyTo: ReplyTo<Reply>) => unknown, options: AskOptions): void {
    if (ask.endIfPointless(options)) return;
    if (this.state >= stopping) {
      ask.rejectStopped();
      return;
    }
    let message: unknown;
    try {
      message = build(ask);
    } catch (error) {
      ask.reject(error);
      return;
    }
    const position = this.mailbox.tail;
    const outcome = this.mailbox.offer(message);
    if (outcome !== 'accepted') {
      this.refuse(message, outcome, 'full');
      ask.rejectFull();
      return;
    }
    if (!ask.over) {
      ask.position = position;
      this.asks.add(ask);
      if (options.cancellation !== undefined) ask.obey(options.cancellation);
    }
    if (!this.isQueued) this.host.dispatcher.enqueue(this);
  }

  /** A message of the actor to itself, from a timer or a promise: never refused, because the actor bounds these itself. */
  tellSelf(message: unknown): void {
    this.addNotice({ at: this.mailbox.tail, kind: 'message', message });
  }

  signal(signal: Signal): void {
    if (this.state >= stopping) return;
    this.addNotice({ at: this.mailbox.tail, kind: 'signal', signal });
  }

  /** Forgets the signals that wait and that `matches` picks. */
  forgetSignals(matches: (signal: Signal) => boolean): void {
    for (let count = this.notices.length; count > 0; count -= 1) {
      const notice = this.notices.shift();
      if (notice.kind === 'message' || !matches(notice.signal)) this.notices.push(notice);
    }
    this.noticeAt = this.notices.peek()?.at ?? Infinity;
  }

  stash(): void {
    if (this.current === noMessage) {
      throw intarsiaError('INTERNAL', 'stash needs a current message: call it within receive, once a message');
    }
    this.mailbox.setAside(this.current);
    this.current = noMessage;
    this.hasStashed = true;
  }

  unstashAll(): void {
    this.mailbox.putBack();
  }

  hasWork(): boolean {
    if (this.state === running) return this.mailbox.head < this.mailbox.tail || this.notices.length > 0;
    return this.state === starting;
  }

  run(messagesMax: number): number {
    const { host } = this;
    this.handled = 0;
    host.enter(this);
    try {
      if (this.state === starting) this.start();
      while (this.handled < messagesMax && this.state === running) {
        if (this.noticeAt <= this.mailbox.head) this.takeNotice();
        else if (this.mailbox.head < this.mailbox.tail) this.receiveBurst(messagesMax);
        else break;
      }
    } catch (error) {
      this.fail(error);
    } finally {
      this.current = noMessage;
      host.leave();
    }
    return this.handled;
  }

  /** The actor failed: in its own code, or in a promise or a child that it answers for. */
  fail(failure: unknown): void {
    if (this.state === stopped) return;
    this.host.enter(this);
    try {
      this.decideOn(failure);
    } finally {
      this.host.leave();
    }
  }

  /** Begins the graceful end: the actors without children are told first, their parents once they have ended. */
  drain(): void {
    this.isDraining = true;
    for (const child of [...this.children.values()]) child.drain();
    if (this.state === restarting) this.end('failed');
    this.tellDrain();
  }

  /** Marks the actor and its children as ending: they take no more messages and go no further. */
  markStopping(): void {
    if (this.state >= stopping) return;
    this.state = stopping;
    for (const child of this.children.values()) child.markStopping();
  }

  /** The end: children first, newest first; then the last signal, and everybody who waits is told. */
  end(reason: 'stopped' | 'failed'): void {
    if (this.state === stopped) return;
    this.state = stopping;
    this.host.enter(this);
    try {
      this.backoff?.cancel();
      this.endChildren();
      this.lastSignal({ type: 'post-stop' });
      this.state = stopped;
      this.endReason = reason;
      this.incarnation?.end();
      this.actor = undefined;
      for (const message of this.mailbox.empty()) this.host.deadLetters.record(this.address, message, 'stopped');
      this.dropNotices('stopped');
      this.asks.rejectAllStopped();
      this.parent?.children.delete(nameOf(this.address));
      this.host.removed(this);
      for (const watcher of this.watchers) watcher.signal({ type: 'terminated', address: this.address, reason });
      this.watchers.clear();
      const { lifecycle } = this.host.channels;
      if (lifecycle.hasSubscribers) lifecycle.publish({ type: 'stopped', address: this.address, reason });
      this.parent?.tellDrain();
    } finally {
      this.host.leave();
    }
  }

  private start(): void {
    const incarnation = this.host.createIncarnation(this);
    this.incarnation = incarnation;
    this.hasStashed = false;
    this.actor = incarnation.create(this.factory);
    if (this.isEnding) return;
    this.state = running;
    const { lifecycle } = this.host.channels;
    if (lifecycle.hasSubscribers) {
      lifecycle.publish({ type: 'started', address: this.address, restarts: this.history.count });
    }
  }

  /** Receives messages until the next notice, the end of the mailbox, or `max`. The hot path. */
  private receiveBurst(messagesMax: number): void {
    const { mailbox, actor } = this;
    if (actor === undefined) return;
    const channel = this.host.channels.message;
    const isObserved = channel.hasSubscribers;
    do {
      const message = mailbox.take();
      this.handled += 1;
      this.current = message;
      if (isObserved) channel.publish({ address: this.address, message });
      actor.receive(message);
    } while (
      this.handled < messagesMax &&
      mailbox.head < mailbox.tail &&
      mailbox.head < this.noticeAt &&
      this.state === running
    );
  }

  private takeNotice(): void {
    const notice = this.notices.shift();
    this.noticeAt = this.notices.peek()?.at ?? Infinity;
    this.handled += 1;
    if (notice.kind === 'message') {
      const channel = this.host.channels.message;
      if (channel.hasSubscribers) channel.publish({ address: this.address, message: notice.message });
      this.current = notice.message;
      this.actor?.receive(notice.message);
      return;
    }
    this.current = noMessage;
    if (this.actor?.signal !== undefined) this.actor.signal(notice.signal);
    else if (notice.signal.type === 'drain') this.host.stopCell(this);
  }

  private addNotice(notice: Notice): void {
    this.notices.push(notice);
    if (this.notices.length === 1) this.noticeAt = notice.at;
    if (!this.isQueued) this.host.dispatcher.enqueue(this);
  }

  private decideOn(failure: unknown): void {
    const { lifecycle } = this.host.channels;
    if (lifecycle.hasSubscribers) lifecycle.publish({ type: 'failed', address: this.address, failure });
    this.host.failures += 1;
    const decision = this.state === stopping || this.isDraining ? 'stop' : this.decide(failure);
    const backoffMs =
      decision === 'restart' ? this.history.next(this.host.clock.nowMs(), this.backoffRandom()) : undefined;
    const fields = {
      actor: this.address.path,
      error: messageOf(failure),
      stack: failure instanceof Error ? failure.stack : undefined,
      restarts: this.history.count,
    };
    if (backoffMs !== undefined) {
      this.host.restarts += 1;
      this.host.log.warn('actor failed and restarts', { ...fields, backoffMs });
      this.restart(failure, backoffMs);
      return;
    }
    this.host.log.error(`actor failed and ${decision === 'stop' ? 'stops' : 'escalates'}`, fields);
    this.end('failed');
    if (decision !== 'stop') this.escalate(failure);
  }

  private tellDrain(): void {
    if (!this.isDraining || this.isDrainTold || this.children.size > 0) return;
    this.isDrainTold = true;
    this.signal({ type: 'drain' });
  }

  private restart(failure: unknown, backoffMs: number): void {
    this.state = restarting;
    const { lifecycle } = this.host.channels;
    if (lifecycle.hasSubscribers) lifecycle.publish({ type: 'restarting', address: this.address, backoffMs });
    this.endChildren();
    this.lastSignal({ type: 'pre-restart', failure });
    // Its last words may have stopped it; then its end comes as soon as this returns.
    if (this.isEnding) return;
    this.incarnation?.end();
    this.actor = undefined;
    this.dropNotices('restarted');
    if (this.supervision.keepMailbox) {
      if (!this.hasStashed) this.asks.rejectBefore(this.mailbox.head, () => failedWhileAsked(this.address));
      this.mailbox.putBack();
    } else {
      for (const message of this.mailbox.empty()) this.host.deadLetters.record(this.address, message, 'restarted');
      this.asks.rejectBefore(Infinity, () => failedWhileAsked(this.address));
    }
    this.backoff = this.host.clock.schedule(backoffMs, () => {
      this.state = starting;
      if (!this.isQueued) this.host.dispatcher.enqueue(this);
    });
  }

  private escalate(failure: unknown): void {
    const { lifecycle } = this.host.channels;
    if (lifecycle.hasSubscribers) lifecycle.publish({ type: 'escalated', address: this.address, failure });
    if (this.parent === undefined) this.host.escalated(this, failure);
    else this.parent.fail(failure);
  }

  private decide(failure: unknown): SupervisionDecision {
    try {
      return this.supervision.decide(failure);
    } catch (error) {
      this.host.log.error('the supervision of an actor failed to decide and escalates', {
        actor: this.address.path,
        error: messageOf(error),
      });
      return 'escalate';
    }
  }

  private endChildren(): void {
    for (const child of [...this.children.values()].reverse()) child.end('stopped');
  }

  /** The incarnation's last call. It is over either way, so a failure in it is told to the log only. */
  private lastSignal(signal: Signal): void {
    try {
      this.actor?.signal?.(signal);
    } catch (error) {
      this.host.log.error(`actor failed in its ${signal.type} signal`, {
        actor: this.address.path,
        error: messageOf(error),
      });
    }
  }

  private dropNotices(reason: DeadLetterReason): void {
    while (this.notices.length > 0) {
      const notice = this.notices.shift();
      if (notice.kind === 'message') this.host.deadLetters.record(this.address, notice.message, reason);
    }
    this.noticeAt = Infinity;
  }

  private onDropped(message: unknown, position: number): void {
    this.host.deadLetters.record(this.address, message, 'dropped');
    if (!this.hasStashed) this.asks.find(position)?.rejectFull();
  }

  private refuse(message: unknown, reason: DeadLetterReason, delivery: Delivery): Delivery {
    this.host.deadLetters.record(this.address, message, reason);
    return delivery;
  }

  private backoffRandom(): Random {
    return this.host.random.stream('backoff').stream(`${this.address.path} ${this.history.count}`);
  }
}

function failedWhileAsked(address: ActorAddress): ReturnType<typeof intarsiaError> {
  return intarsiaError('UNAVAILABLE', `actor ${address.path} failed before it replied`, { actor: address.path });
}

function nameOf(address: ActorAddress): string {
  return address.path.slice(address.path.lastIndexOf('/') + 1);
}
