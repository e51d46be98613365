/** What one incarnation may do, and the list of what must be given back when it is over: timers, watches, promises. */
import type { ActorAddress } from '#core/actor-address.js';
import { formatAddress, isSameAddress } from '#core/actor-address.js';
import { intarsiaError } from '#core/errors.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { Log } from '#ports/log.js';
import type { Random } from '#ports/random.js';
import type { RemoteDelivery, RemoteWatch } from '#ports/remote-delivery.js';
import type { Actor, ActorContext, ActorFactory, ActorRef, SpawnOptions } from './actor.js';
import type { ActorCell, Incarnation } from './cell.js';
import { LocalRef } from './local-ref.js';
import { pendingMax } from './spawn-options.js';

/** What a context needs of the system. */
export interface ContextPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly random: Random;
  readonly host: string;
  readonly remote: RemoteDelivery | undefined;
  spawnUnder<Child>(
    parent: ActorCell,
    name: string,
    factory: ActorFactory<Child>,
    options?: SpawnOptions<Child>,
  ): ActorRef<Child>;
  stopCell(cell: ActorCell): void;
  /** A reference that nobody stands behind. */
  nobody<Message>(address: ActorAddress): ActorRef<Message>;
}

export class IncarnationContext implements ActorContext<unknown>, Incarnation {
  readonly self: ActorRef<unknown>;
  readonly clock: Clock;
  private readonly cell: ActorCell;
  private readonly ports: ContextPorts;
  private readonly timers = new Set<Timer>();
  private readonly watched = new Set<ActorCell>();
  private readonly watchedFar = new Map<string, RemoteWatch>();
  private pipes = 0;
  private isOver = false;
  private ownLog: Log | undefined;
  private ownRandom: Random | undefined;

  constructor(cell: ActorCell, ports: ContextPorts) {
    this.cell = cell;
    this.ports = ports;
    this.self = cell.self;
    this.clock = ports.clock;
  }

  create(factory: ActorFactory<unknown>): Actor<unknown> {
    return factory(this);
  }

  get log(): Log {
    return (this.ownLog ??= this.ports.log.with({ actor: this.self.address.path }));
  }

  get random(): Random {
    return (this.ownRandom ??= this.ports.random.stream('actor').stream(this.self.address.path));
  }

  spawn<Child>(name: string, factory: ActorFactory<Child>, options?: SpawnOptions<Child>): ActorRef<Child> {
    if (this.isOver || this.cell.isEnding) {
      const { host, path } = this.self.address;
      return this.ports.nobody({ host, path: `${path}/${name}`, incarnation: 0 });
    }
    return this.ports.spawnUnder(this.cell, name, factory, options);
  }

  stop(child?: ActorRef<never>): void {
    if (this.isOver) return;
    const cell = child === undefined ? this.cell : cellOf(child);
    if (cell !== this.cell && cell?.parent !== this.cell) {
      const name = child === undefined ? '' : formatAddress(child.address);
      throw intarsiaError('INVALID_ARGUMENT', `${name} is not a child of ${this.self.address.path}`, { actor: name });
    }
    this.ports.stopCell(cell);
  }

  watch(other: ActorRef<never>): void {
    if (this.isOver) return;
    const cell = cellOf(other);
    const { address } = other;
    if (cell !== undefined && cell.endReason === undefined) {
      cell.watchers.add(this.cell);
      this.watched.add(cell);
    } else if (cell !== undefined || address.host === this.ports.host || this.ports.remote === undefined) {
      this.cell.signal({ type: 'terminated', address, reason: cell?.endReason ?? 'stopped' });
    } else this.watchFar(address, this.ports.remote);
  }

  unwatch(other: ActorRef<never>): void {
    if (this.isOver) return;
    const cell = cellOf(other);
    if (cell !== undefined) {
      cell.watchers.delete(this.cell);
      this.watched.delete(cell);
    }
    this.forgetFar(formatAddress(other.address));
    this.cell.forgetSignals((signal) => signal.type === 'terminated' && isSameAddress(signal.address, other.address));
  }

  schedule(delayMs: number, message: unknown): Timer {
    if (this.isOver) return { cancel: () => {} };
    this.checkPending('timers', this.timers.size);
    const timer = this.clock.schedule(delayMs, () => {
      this.timers.delete(timer);
      this.cell.tellSelf(message);
    });
    this.timers.add(timer);
    return {
      cancel: () => {
        if (this.timers.delete(timer)) timer.cancel();
      },
    };
  }

  pipeToSelf<Value>(
    promise: Promise<Value>,
    onValue: (value: Value) => unknown,
    onError: (error: unknown) => unknown,
  ): void {
    if (this.isOver) {
      // Nobody is left to be told, of failures neither.
      promise.catch(() => {});
      return;
    }
    this.checkPending('pipes', this.pipes);
    this.pipes += 1;
    promise.then(
      (value) => this.endPipe(() => onValue(value)),
      (error: unknown) => this.endPipe(() => onError(error)),
    );
  }

  stash(): void {
    if (!this.isOver) this.cell.stash();
  }

  unstashAll(): void {
    if (!this.isOver) this.cell.unstashAll();
  }

  end(): void {
    this.isOver = true;
    for (const timer of this.timers) timer.cancel();
    this.timers.clear();
    for (const cell of this.watched) cell.watchers.delete(this.cell);
    this.watched.clear();
    for (const watch of this.watchedFar.values()) watch.cancel();
    this.watchedFar.clear();
  }

  private endPipe(message: () => unknown): void {
    this.pipes -= 1;
    if (this.isOver) return;
    try {
      this.cell.tellSelf(message());
    } catch (error) {
      this.cell.fail(error);
    }
  }

  private watchFar(address: ActorAddress, remote: RemoteDelivery): void {
    const key = formatAddress(address);
    if (this.watchedFar.has(key)) return;
    const watch = remote.watch(address, (reason) => {
      if (this.watchedFar.delete(key)) this.cell.signal({ type: 'terminated', address, reason });
    });
    this.watchedFar.set(key, watch);
  }

  private forgetFar(key: string): void {
    this.watchedFar.get(key)?.cancel();
    this.watchedFar.delete(key);
  }

  private checkPending(what: 'timers' | 'pipes', count: number): void {
    if (count < pendingMax) return;
    const { path } = this.self.address;
    throw intarsiaError('RESOURCE_EXHAUSTED', `actor ${path} has ${count} ${what} open of at most ${pendingMax}`, {
      actor: path,
      count,
    });
  }
}

function cellOf(ref: ActorRef<never>): ActorCell | undefined {
  return ref instanceof LocalRef ? (ref as LocalRef<never>).cell : undefined;
}
