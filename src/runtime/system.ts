/**
 * The actors of one host: their names, their way to the dispatcher, their end. What actors, references and mailboxes
 * promise stands in actor.ts; how one actor lives stands in cell.ts.
 *
 * It leaves to others: the way to other hosts (the remote delivery port), and what becomes of the process when a
 * top-level actor escalates (`onEscalation`).
 */
import type { ActorAddress } from '#core/actor-address.js';
import { formatAddress } from '#core/actor-address.js';
import { intarsiaError } from '#core/errors.js';
import { metric } from '#core/metric-catalogue.js';
import type { Clock } from '#ports/clock.js';
import type { Diagnostics } from '#ports/diagnostics.js';
import { silentDiagnostics } from '#ports/diagnostics.js';
import type { Log } from '#ports/log.js';
import type { Metrics } from '#ports/metrics.js';
import type { Random } from '#ports/random.js';
import type { RemoteDelivery } from '#ports/remote-delivery.js';
import type { ActorFactory, ActorRef, SpawnOptions } from './actor.js';
import type { Ask } from './ask.js';
import { AskDeadlines } from './ask-deadlines.js';
import { ActorCell } from './cell.js';
import type { CellHost, Incarnation } from './cell.js';
import { IncarnationContext } from './context.js';
import type { ContextPorts } from './context.js';
import { DeadLetters } from './dead-letters.js';
import { actorChannels, deadLetterReasons } from './diagnostic-events.js';
import type { ActorChannels } from './diagnostic-events.js';
import { Dispatcher } from './dispatcher.js';
import { DistantRef } from './distant-ref.js';
import type { DistantPorts } from './distant-ref.js';
import { LocalRef } from './local-ref.js';
import { checkActorName, completeMailbox, completeSupervision } from './spawn-options.js';

export interface ActorSystemOptions {
  /** Name of this host in addresses. */
  readonly host: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics?: Metrics;
  readonly diagnostics?: Diagnostics;
  /** The way to other hosts. Without it, what is addressed to them goes to the dead letters. */
  readonly remote?: RemoteDelivery;
  /** Actors that may live at once, default 100,000; more are refused with RESOURCE_EXHAUSTED. */
  readonly actorsMax?: number;
  /** Told when the failure of a top-level actor escalates; that actor has stopped. Default: an error in the log. */
  readonly onEscalation?: (failure: unknown, address: ActorAddress) => void;
}

export interface DrainOptions {
  /** Moment on the system's monotonic clock, ms, at which patience ends and everything left is stopped. */
  readonly deadlineMs: number;
  /** Top-level actors to drain; what is not named lives on. Default: all, after which the system is over. */
  readonly actors?: readonly ActorRef<never>[];
}

/** How a graceful stop went. */
export interface DrainReport {
  /** Paths of the actors that had to be stopped at the deadline; empty when all ended by themselves. */
  readonly abandoned: readonly string[];
}

/** One actor as people see it. */
export interface ActorView {
  readonly address: ActorAddress;
  readonly state: ActorCell['stateName'];
  readonly waiting: number;
  readonly waitingBytes: number;
  readonly stashed: number;
  readonly restarts: number;
}

interface EndWaiter {
  readonly cells: Set<ActorCell>;
  readonly onEnd: () => void;
}

export class ActorSystem implements CellHost, ContextPorts, DistantPorts {
  readonly host: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly remote: RemoteDelivery | undefined;
  readonly deadLetters: DeadLetters;
  readonly channels: ActorChannels;
  readonly dispatcher: Dispatcher;
  readonly deadlines: AskDeadlines;
  failures = 0;
  restarts = 0;

  private readonly actorsMax: number;
  private readonly onEscalation: ActorSystemOptions['onEscalation'];
  private readonly cells = new Map<string, ActorCell>();
  private readonly replies = new Map<number, ActorRef<never>>();
  private readonly waiters = new Set<EndWaiter>();
  /** Whose code is on the stack now, innermost last. */
  private readonly active: ActorCell[] = [];
  private readonly delayedStops: ActorCell[] = [];
  private incarnations = 0;
  private isOver = false;

  constructor(options: ActorSystemOptions) {
    this.host = options.host;
    this.clock = options.clock;
    this.random = options.random;
    this.log = options.log;
    this.remote = options.remote;
    this.actorsMax = options.actorsMax ?? 100_000;
    this.onEscalation = options.onEscalation;
    this.channels = actorChannels(options.diagnostics ?? silentDiagnostics);
    this.deadLetters = new DeadLetters(options.clock, this.channels.deadLetter);
    this.dispatcher = new Dispatcher(options.clock);
    this.deadlines = new AskDeadlines(options.clock);
    if (options.metrics !== undefined) this.publish(options.metrics);
  }

  /**
   * A top-level actor. Its factory runs soon, on its first turn; messages may be sent at once.
   * @throws ALREADY_EXISTS (the name is taken), INVALID_ARGUMENT (name or options), RESOURCE_EXHAUSTED (too many actors),
   * UNAVAILABLE (the system is draining or over).
   */
  spawn<Message>(name: string, factory: ActorFactory<Message>, options?: SpawnOptions<Message>): ActorRef<Message> {
    if (this.isOver) {
      throw intarsiaError('UNAVAILABLE', `actor ${name} cannot be spawned: the actor system is draining or over`, {
        actor: name,
      });
    }
    return this.spawnUnder(undefined, name, factory, options);
  }

  /** Stops an actor and its children: at once, or when its own code that is on the stack has returned. */
  stop(ref: ActorRef<never>): void {
    const cell = this.cellOf(ref);
    if (cell !== undefined) this.stopCell(cell);
  }

  /** Whether the actor lives. Of actors on other hosts nothing is known: false. */
  isAlive(ref: ActorRef<never>): boolean {
    const cell = this.cellOf(ref);
    return cell !== undefined && cell.endReason === undefined;
  }

  /** Resolves when the actor has ended, with why; at once when it had before. */
  async whenStopped(ref: ActorRef<never>): Promise<'stopped' | 'failed'> {
    const cell = this.cellOf(ref);
    if (cell !== undefined) await this.whenEnded([cell]);
    return cell?.endReason ?? 'stopped';
  }

  /** A reference to whoever has that address, here or on another host. */
  ref<Message>(address: ActorAddress): ActorRef<Message> {
    if (address.host === this.host) {
      const reply = this.replies.get(address.incarnation);
      if (reply !== undefined && reply.address.path === address.path) return reply;
      const cell = this.cells.get(address.path);
      if (cell?.address.incarnation === address.incarnation) return cell.self;
    }
    return new DistantRef(address, this);
  }

  /** Every actor, parents before their children. For operators; not for the hot path. */
  inspect(): readonly ActorView[] {
    return [...this.cells.values()].map((cell) => ({
      address: cell.address,
      state: cell.stateName,
      waiting: cell.mailbox.length,
      waitingBytes: cell.mailbox.bytes,
      stashed: cell.mailbox.stashed,
      restarts: cell.restarts,
    }));
  }

  /**
   * Ends gracefully: sends the `drain` signal, to children first and to parents once their children have ended, and waits.
   * An actor without a `signal` method is stopped once it has handled what came before the signal. At the deadline
   * everything left is stopped.
   */
  async drain(options: DrainOptions): Promise<DrainReport> {
    const named = options.actors?.map((ref) => this.cellOf(ref));
    if (named === undefined) this.isOver = true;
    const cells = (named ?? this.topLevel()).filter((cell) => cell !== undefined && cell.endReason === undefined);
    const abandoned: string[] = [];
    const living = cells.filter((cell) => cell !== undefined);
    const ended = this.whenEnded(living);
    const timer = this.clock.schedule(Math.max(0, options.deadlineMs - this.clock.nowMs()), () => {
      for (const cell of living) abandoned.push(...pathsOf(cell));
      this.log.warn('actors did not end in time and were stopped', { count: abandoned.length });
      for (const cell of living) this.stopCell(cell);
    });
    for (const cell of living) cell.drain();
    await ended;
    timer.cancel();
    return { abandoned };
  }

  /** Stops every actor without asking; nothing can be spawned after. */
  terminate(): void {
    this.isOver = true;
    for (const cell of this.topLevel().reverse()) this.stopCell(cell);
  }

  // What follows is for the runtime's own parts.

  spawnUnder<Message>(
    parent: ActorCell | undefined,
    name: string,
    factory: ActorFactory<Message>,
    options: SpawnOptions<Message> = {},
  ): ActorRef<Message> {
    checkActorName(name);
    const path = parent === undefined ? name : `${parent.address.path}/${name}`;
    if (this.cells.has(path)) {
      throw intarsiaError('ALREADY_EXISTS', `actor ${path} exists already`, { actor: path });
    }
    if (this.cells.size >= this.actorsMax) {
      throw intarsiaError('RESOURCE_EXHAUSTED', `actor ${path} would be one more than ${this.actorsMax} actors`, {
        actor: path,
        actorsMax: this.actorsMax,
      });
    }
    this.incarnations += 1;
    const cell = new ActorCell({
      host: this,
      address: { host: this.host, path, incarnation: this.incarnations },
      parent,
      factory: factory,
      mailbox: completeMailbox(options.mailbox as SpawnOptions<unknown>['mailbox']),
      supervision: completeSupervision(options.supervision),
    });
    const ref = new LocalRef<Message>(cell, this);
    cell.self = ref;
    this.cells.set(path, cell);
    parent?.children.set(name, cell);
    if (this.channels.lifecycle.hasSubscribers) {
      this.channels.lifecycle.publish({ type: 'spawned', address: cell.address });
    }
    cell.begin();
    return ref;
  }

  nobody<Message>(address: ActorAddress): ActorRef<Message> {
    return new DistantRef(address, this);
  }

  createIncarnation(cell: ActorCell): Incarnation {
    return new IncarnationContext(cell, this);
  }

  enter(cell: ActorCell): void {
    this.active.push(cell);
  }

  leave(): void {
    this.active.pop();
    if (this.delayedStops.length > 0 && this.active.length === 0) this.stopDelayed();
  }

  stopCell(cell: ActorCell): void {
    if (cell.isEnding) return;
    if (this.active.some((busy) => isWithin(busy, cell))) {
      cell.markStopping();
      this.delayedStops.push(cell);
    } else cell.end('stopped');
  }

  escalated(cell: ActorCell, failure: unknown): void {
    if (this.onEscalation !== undefined) this.onEscalation(failure, cell.address);
    else this.log.error('a top-level actor escalated its failure', { actor: formatAddress(cell.address) });
  }

  removed(cell: ActorCell): void {
    this.cells.delete(cell.address.path);
    for (const waiter of this.waiters) {
      if (!waiter.cells.delete(cell) || waiter.cells.size > 0) continue;
      this.waiters.delete(waiter);
      waiter.onEnd();
    }
  }

  addressReply<Reply>(ask: Ask<Reply>): ActorRef<Reply> {
    this.incarnations += 1;
    const incarnation = this.incarnations;
    const address: ActorAddress = { host: this.host, path: `$ask/${incarnation}`, incarnation };
    const ref: ActorRef<Reply> = {
      address,
      tell: (reply) => ask.tell(reply),
      ask: () => Promise.reject(intarsiaError('INVALID_ARGUMENT', `${formatAddress(address)} only takes a reply`)),
    };
    this.replies.set(incarnation, ref);
    ask.whenOver(() => this.replies.delete(incarnation));
    return ref;
  }

  private stopDelayed(): void {
    for (let cell = this.delayedStops.shift(); cell !== undefined; cell = this.delayedStops.shift()) {
      cell.end('stopped');
    }
  }

  private whenEnded(cells: readonly ActorCell[]): Promise<void> {
    const living = new Set(cells.filter((cell) => cell.endReason === undefined));
    if (living.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.waiters.add({ cells: living, onEnd: resolve }));
  }

  private topLevel(): ActorCell[] {
    return [...this.cells.values()].filter((cell) => cell.parent === undefined);
  }

  private cellOf(ref: ActorRef<never>): ActorCell | undefined {
    return ref instanceof LocalRef ? (ref as LocalRef<never>).cell : undefined;
  }

  private publish(metrics: Metrics): void {
    const messages = metrics.counter(metric('intarsia_actor_messages_total')).bind();
    const failures = metrics.counter(metric('intarsia_actor_failures_total')).bind();
    const restarts = metrics.counter(metric('intarsia_actor_restarts_total')).bind();
    const actors = metrics.gauge(metric('intarsia_actors')).bind();
    const waiting = metrics.gauge(metric('intarsia_actor_mailbox_messages')).bind();
    const deadLetters = metrics.counter(metric('intarsia_actor_dead_letters_total'));
    const counts = [
      () => ({ handle: messages, value: this.dispatcher.messages }),
      () => ({ handle: failures, value: this.failures }),
      () => ({ handle: restarts, value: this.restarts }),
      ...deadLetterReasons.map((reason) => {
        const handle = deadLetters.bind(reason);
        return () => ({ handle, value: this.deadLetters.count(reason) });
      }),
    ];
    const told = counts.map(() => 0);
    metrics.onCollect(() => {
      counts.forEach((count, index) => {
        const { handle, value } = count();
        handle.add(value - (told[index] ?? 0));
        told[index] = value;
      });
      actors.set(this.cells.size);
      let waitingCount = 0;
      for (const cell of this.cells.values()) waitingCount += cell.mailbox.length;
      waiting.set(waitingCount);
    });
  }
}

function isWithin(cell: ActorCell, ancestor: ActorCell): boolean {
  for (let each: ActorCell | undefined = cell; each !== undefined; each = each.parent) {
    if (each === ancestor) return true;
  }
  return false;
}

function pathsOf(cell: ActorCell): string[] {
  if (cell.endReason !== undefined) return [];
  return [cell.address.path, ...[...cell.children.values()].flatMap(pathsOf)];
}
