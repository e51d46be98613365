/**
 * The actors of one host, as the rest of the program sees them: spawn, stop, drain, look. What actors, references and
 * mailboxes promise stands in actor.ts; how one actor lives stands in cell.ts.
 *
 * It leaves to others: the way to other hosts (the remote delivery port), and what becomes of the process when a
 * top-level actor escalates (`onEscalation`).
 */
import type { ActorAddress } from '#core/actor-address.js';
import { intarsiaError } from '#core/errors.js';
import type { Clock } from '#ports/clock.js';
import type { Diagnostics } from '#ports/diagnostics.js';
import type { Log } from '#ports/log.js';
import type { Metrics } from '#ports/metrics.js';
import type { Random } from '#ports/random.js';
import type { RemoteDelivery } from '#ports/remote-delivery.js';
import type { ActorFactory, ActorRef, SpawnOptions } from './actor.js';
import type { ActorCell } from './cell.js';
import type { DeadLetters } from './dead-letters.js';
import { Kernel } from './kernel.js';
import { publishActorMetrics } from './metrics.js';

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
  /**
   * Incarnations are numbered above this one, default 0. In a grid each process takes a multiple of 2^32 of its own, so
   * that what was meant for an actor of an earlier process of the host never reaches its successor.
   */
  readonly incarnationMin?: number;
  /** Told when the failure of a top-level actor escalates; that actor has stopped. Default: an error in the log. */
  readonly onEscalation?: (failure: unknown, address: ActorAddress) => void;
}

export interface DrainOptions {
  /** Moment on the system's monotonic clock, ms, at which patience ends and everything left is stopped. */
  readonly deadlineMs: number;
  /** Actors to drain, with their children; the others live on. Default: all, and nothing can be spawned after. */
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
  /** Bytes of what waits and what is stashed; 0 when its messages have no sizes. */
  readonly bytes: number;
  readonly stashed: number;
  readonly restarts: number;
}

export class ActorSystem {
  /** What reached nobody: counts by reason, and the latest ones. */
  readonly deadLetters: DeadLetters;
  private readonly kernel: Kernel;
  private isOver = false;

  constructor(options: ActorSystemOptions) {
    this.kernel = new Kernel(options);
    this.deadLetters = this.kernel.deadLetters;
    if (options.metrics !== undefined) publishActorMetrics(this.kernel, options.metrics);
  }

  /** Name of this host in addresses. */
  get host(): string {
    return this.kernel.host;
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
    return this.kernel.spawnUnder(undefined, name, factory, options);
  }

  /** Stops an actor and its children: at once, or as soon as their code that is on the stack has returned. */
  stop(ref: ActorRef<never>): void {
    const cell = this.kernel.cellOf(ref);
    if (cell !== undefined) this.kernel.stopCell(cell);
  }

  /** Whether the actor lives. Of actors on other hosts nothing is known: false. */
  isAlive(ref: ActorRef<never>): boolean {
    const cell = this.kernel.cellOf(ref);
    return cell !== undefined && cell.endReason === undefined;
  }

  /** Resolves when the actor of this host has ended, with why; at once when it had before. */
  async whenStopped(ref: ActorRef<never>): Promise<'stopped' | 'failed'> {
    const cell = this.kernel.cellOf(ref);
    if (cell !== undefined) await this.kernel.whenEnded([cell]);
    return cell?.endReason ?? 'stopped';
  }

  /**
   * A reference to whoever has that address, here or on another host. The caller vouches for the type of its messages:
   * an address does not carry it.
   */
  ref<Message>(address: ActorAddress): ActorRef<Message> {
    return this.kernel.resolve(address);
  }

  /** Every actor, parents before their children. For operators; not for the hot path. */
  inspect(): readonly ActorView[] {
    return [...this.kernel.cells.values()].map((cell) => ({
      address: cell.address,
      state: cell.stateName,
      waiting: cell.mailbox.length,
      bytes: cell.mailbox.bytes,
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
    const { clock, log } = this.kernel;
    if (options.actors === undefined) this.isOver = true;
    const named = options.actors?.map((ref) => this.kernel.cellOf(ref)) ?? this.kernel.topLevel();
    const cells = named.filter((cell) => cell !== undefined && cell.endReason === undefined) as ActorCell[];
    const abandoned: string[] = [];
    const ended = this.kernel.whenEnded(cells);
    const timer = clock.scheduleAt(options.deadlineMs, () => {
      abandoned.push(...cells.flatMap(livingPaths));
      log.warn('actors did not end in time and were stopped', { count: abandoned.length });
      for (const cell of cells) this.kernel.stopCell(cell);
    });
    for (const cell of cells) cell.drain();
    await ended;
    timer.cancel();
    return { abandoned };
  }

  /** Stops every actor without asking, the latest first; nothing can be spawned after. */
  terminate(): void {
    this.isOver = true;
    for (const cell of this.kernel.topLevel().reverse()) this.kernel.stopCell(cell);
  }
}

function livingPaths(cell: ActorCell): string[] {
  if (cell.endReason !== undefined) return [];
  return [cell.address.path, ...[...cell.children.values()].flatMap(livingPaths)];
}
