/**
 * The parts of an actor system that cells, contexts and references work with: the table of actors, what is on the stack,
 * the addresses of replies. Its owner, `ActorSystem`, is what the rest of the program sees.
 */
import type { ActorAddress } from '#core/actor-address.js';
import { formatAddress } from '#core/actor-address.js';
import { intarsiaError } from '#core/errors.js';
import type { Clock } from '#ports/clock.js';
import type { Diagnostics } from '#ports/diagnostics.js';
import { silentDiagnostics } from '#ports/diagnostics.js';
import type { Log } from '#ports/log.js';
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
import { actorChannels } from './diagnostic-events.js';
import type { ActorChannels } from './diagnostic-events.js';
import { Dispatcher } from './dispatcher.js';
import { DistantRef } from './distant-ref.js';
import type { DistantPorts } from './distant-ref.js';
import { LocalRef } from './local-ref.js';
import { checkActorName, completeMailbox, completeSupervision } from './spawn-options.js';

const actorsMaxDefault = 100_000;

export interface KernelOptions {
  readonly host: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly diagnostics?: Diagnostics;
  readonly remote?: RemoteDelivery;
  readonly actorsMax?: number;
  readonly incarnationMin?: number;
  readonly onEscalation?: (failure: unknown, address: ActorAddress) => void;
}

/** Somebody who waits for the last of these actors to end. */
interface EndWaiter {
  readonly cells: Set<ActorCell>;
  readonly onEnd: () => void;
}

export class Kernel implements CellHost, ContextPorts, DistantPorts {
  readonly host: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly remote: RemoteDelivery | undefined;
  readonly channels: ActorChannels;
  readonly deadLetters: DeadLetters;
  readonly dispatcher: Dispatcher;
  readonly deadlines: AskDeadlines;
  /** Every actor by its path, parents before their children. */
  readonly cells = new Map<string, ActorCell>();
  failures = 0;
  restarts = 0;

  private readonly actorsMax: number;
  private readonly onEscalation: KernelOptions['onEscalation'];
  private readonly replies = new Map<number, ActorRef<never>>();
  private readonly waiters = new Set<EndWaiter>();
  /** Whose code is on the stack now, innermost last. */
  private readonly active: ActorCell[] = [];
  private readonly delayedStops: ActorCell[] = [];
  private incarnations = 0;

  constructor(options: KernelOptions) {
    this.host = options.host;
    this.clock = options.clock;
    this.random = options.random;
    this.log = options.log;
    this.remote = options.remote;
    this.actorsMax = options.actorsMax ?? actorsMaxDefault;
    this.incarnations = options.incarnationMin ?? 0;
    this.onEscalation = options.onEscalation;
    this.channels = actorChannels(options.diagnostics ?? silentDiagnostics);
    this.deadLetters = new DeadLetters(options.clock, this.channels.deadLetter);
    this.dispatcher = new Dispatcher(options.clock);
    this.deadlines = new AskDeadlines(options.clock);
  }

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

  /** A reference to whoever has that address, here or on another host. Incarnation 0 means whoever has the path now. */
  resolve(address: ActorAddress): ActorRef<never> {
    if (address.host !== this.host) return this.nobody(address);
    const reply = this.replies.get(address.incarnation);
    if (reply?.address.path === address.path) return reply;
    const cell = this.cells.get(address.path);
    const isMeant = address.incarnation === 0 || cell?.address.incarnation === address.incarnation;
    return cell !== undefined && isMeant ? cell.self : this.nobody(address);
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

  topLevel(): ActorCell[] {
    return [...this.cells.values()].filter((cell) => cell.parent === undefined);
  }

  cellOf(ref: ActorRef<never>): ActorCell | undefined {
    return ref instanceof LocalRef ? (ref as LocalRef<never>).cell : undefined;
  }

  whenEnded(cells: readonly ActorCell[]): Promise<void> {
    const living = new Set(cells.filter((cell) => cell.endReason === undefined));
    if (living.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.waiters.add({ cells: living, onEnd: resolve }));
  }

  private stopDelayed(): void {
    for (let cell = this.delayedStops.shift(); cell !== undefined; cell = this.delayedStops.shift()) {
      cell.end('stopped');
    }
  }
}

function isWithin(cell: ActorCell, ancestor: ActorCell): boolean {
  for (let each: ActorCell | undefined = cell; each !== undefined; each = each.parent) {
    if (each === ancestor) return true;
  }
  return false;
}
