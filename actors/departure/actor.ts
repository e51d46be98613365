/**
 * The end of a drain that has a deadline, such as the notice of a spot host: when it comes, what other hosts have here is
 * refused retryably, the host deregisters, and whoever runs it is told to end it. Until then moving everything away is the
 * controller's.
 *
 * The deadline is a moment of wall clocks, looked at once, when the order is read; from there on time is counted. An order
 * whose deadline lay before this process began was meant for another one: the host stays, cordoned, until it is told more.
 */
import type { GridKeys } from '#core/grid/keys.js';
import { readHostOrder } from '#core/grid/member-text.js';
import type { HostId } from '#core/ids.js';
import type { Timer } from '#ports/clock.js';
import type { Store } from '#ports/store.js';
import type { IngressMessage } from '#actors/ingress/protocol.js';
import type { MembershipMessage } from '#actors/membership/protocol.js';
import type { Actor, ActorContext, ActorFactory, ActorRef, Signal } from '#runtime/actor.js';
import { StoreFollower, type FollowerMessage } from '#runtime/store-follower.js';

export interface DepartureOptions {
  readonly host: HostId;
  readonly store: Store;
  readonly keys: GridKeys;
  readonly membership: ActorRef<MembershipMessage>;
  /** Absent on a host without devices. */
  readonly ingress: ActorRef<IngressMessage> | undefined;
  /** The host has left the grid, or could not say so in time: end it, and wait for nothing. Called at most once. */
  readonly onDeparture: () => void;
}

export type DepartureInbox =
  FollowerMessage<'orders'> | { readonly type: 'due'; readonly number: number } | { readonly type: 'left' };

const callMs = 5_000;
/** Time to deregister, ms: after it the lease does. */
const leaveMsMax = 2_000;
/** Longest timer, ms. */
const timerMsMax = 2 ** 31 - 1;

/** Spawn one a host, as `departure`. */
export function departureActor(options: DepartureOptions): ActorFactory<DepartureInbox> {
  const state: DepartureState = { beganWallMs: undefined, hasLeft: false };
  return (context) => new Departure(options, state, context);
}

interface DepartureState {
  beganWallMs: number | undefined;
  hasLeft: boolean;
}

class Departure implements Actor<DepartureInbox> {
  readonly #options: DepartureOptions;
  readonly #state: DepartureState;
  readonly #context: ActorContext<DepartureInbox>;
  readonly #follower: StoreFollower<'orders'>;
  readonly #beganWallMs: number;
  /** Of the order whose deadline is waited for. */
  #deadlineWallMs = 0;
  #timer: Timer | undefined;
  #number = 0;

  constructor(options: DepartureOptions, state: DepartureState, context: ActorContext<DepartureInbox>) {
    this.#options = options;
    this.#state = state;
    this.#context = context;
    state.beganWallMs ??= context.clock.wallMs();
    this.#beganWallMs = state.beganWallMs;
    const { store, keys, host } = options;
    this.#follower = new StoreFollower(
      { folder: 'orders', store, prefix: keys.order(host), callMs, retryMsMin: 250, retryMsMax: 5_000 },
      context,
    );
    this.#follower.start();
  }

  receive(message: DepartureInbox): void {
    if (message.type === 'follower') this.#onFollower(message);
    else if (message.type === 'due') this.#onDue(message.number);
    else this.#options.onDeparture();
  }

  signal(signal: Signal): void {
    if (signal.type === 'drain') this.#context.stop();
    if (signal.type === 'post-stop' || signal.type === 'pre-restart') this.#follower.stop();
  }

  #onFollower(message: FollowerMessage<'orders'>): void {
    const key = this.#options.keys.order(this.#options.host);
    // Other hosts' names may begin like this one's.
    if (!this.#follower.handle(message).has(key)) return;
    const entry = this.#follower.entries.get(key);
    const order = entry === undefined ? undefined : readHostOrder(entry.value);
    const deadlineWallMs = order?.ok === true && order.value.draining ? order.value.deadlineWallMs : 0;
    if (deadlineWallMs === this.#deadlineWallMs) return;
    this.#deadlineWallMs = deadlineWallMs;
    this.#timer?.cancel();
    this.#number += 1;
    if (deadlineWallMs === 0) return;
    if (deadlineWallMs <= this.#beganWallMs) {
      this.#context.log.warn(
        'the deadline of the drain passed before this process began: it stays, and takes no replicas',
      );
      return;
    }
    const leftMs = Math.min(timerMsMax, Math.max(0, deadlineWallMs - this.#context.clock.wallMs()));
    this.#context.log.info('this host is drained and leaves', { leftMs });
    this.#timer = this.#context.schedule(leftMs, { type: 'due', number: this.#number });
  }

  #onDue(number: number): void {
    if (number !== this.#number || this.#state.hasLeft) return;
    this.#state.hasLeft = true;
    const { ingress, membership } = this.#options;
    this.#context.log.warn('the time to drain is over: what still runs is refused, and the host leaves');
    ingress?.tell({ type: 'depart' });
    const deadlineMs = this.#context.clock.nowMs() + leaveMsMax;
    const left: DepartureInbox = { type: 'left' };
    this.#context.pipeToSelf(
      membership.ask<{ readonly deregistered: boolean }>((replyTo) => ({ type: 'leave', replyTo }), { deadlineMs }),
      () => left,
      () => left,
    );
  }
}
