/**
 * The actor model of Intarsia: what actors, references, contexts and mailboxes promise. `ActorSystem` (system.ts) is the
 * implementation for one host; a reference to an actor elsewhere has the same type and other insides.
 *
 * Promises:
 * - At most once, in order per sender and receiver, to one incarnation. A restarted actor keeps its address and gets a
 *   new incarnation; messages sent to the old one that were still waiting are kept unless `restart.keepMailbox` is false.
 * - One message at a time. `receive` is synchronous; asynchronous work comes back as a message (`pipeToSelf`).
 * - A mailbox is bounded in messages and, where messages have a size, in bytes. At the bound its overflow rule applies,
 *   and `tell` says what happened, so that a sender can slow down.
 * - A thrown value stops the actor and its supervisor decides: restart with back-off, stop, or escalate.
 * - Time and chance come from the system's ports only: the same seed gives the same run.
 */
import type { ActorAddress, Delivery } from '#core/actor-address.js';
import type { Clock } from '#ports/clock.js';
import type { Log } from '#ports/log.js';
import type { Random } from '#ports/random.js';

export type { ActorAddress, Delivery };

/** Where a reply goes: a reference, or the other end of an `ask`. */
export interface ReplyTo<Reply> {
  tell(reply: Reply): Delivery;
}

/** A handle on an actor: the only way to reach it. Safe to keep, compare by `address`, send inside messages. */
export interface ActorRef<Message> extends ReplyTo<Message> {
  readonly address: ActorAddress;
  tell(message: Message): Delivery;
  /**
   * Sends the message that `build` makes around a one-time reply address and waits for the reply.
   * @throws DEADLINE_EXCEEDED when `deadlineMs` passes, CANCELLED when cancelled, RESOURCE_EXHAUSTED when the mailbox is
   * full, UNAVAILABLE when the actor is stopped or stops before it replies.
   */
  ask<Reply>(build: (replyTo: ReplyTo<Reply>) => Message, options: AskOptions): Promise<Reply>;
}

export interface AskOptions {
  /** Moment on the system's monotonic clock, ms. Infinity waits for ever. */
  readonly deadlineMs: number;
  readonly cancellation?: Cancellation;
}

/** A request to stop caring about an answer. Listeners run once, soon after `cancel`. */
export interface Cancellation {
  readonly cancelled: boolean;
  onCancel(listener: () => void): void;
  /** Forgets a listener: whoever outlives many short calls must not collect theirs. */
  offCancel?(listener: () => void): void;
}

/** What the system tells an actor beside its messages. */
export type Signal =
  /** An actor this one watches has stopped. */
  | { readonly type: 'terminated'; readonly address: ActorAddress; readonly reason: 'stopped' | 'failed' }
  /** The supervisor is about to replace this incarnation: give back what it holds. */
  | { readonly type: 'pre-restart'; readonly failure: unknown }
  /** The system asks for a graceful end: finish what is in flight, then call `context.stop()`. Sent by `drain` only. */
  | { readonly type: 'drain' }
  /** The last call to this incarnation. */
  | { readonly type: 'post-stop' };

/** One incarnation of an actor: made by its factory, lives until it stops or fails. */
export interface Actor<Message> {
  /** Handles one message. A thrown value is a failure of the actor, not an answer. */
  receive(message: Message): void;
  signal?(signal: Signal): void;
}

export type ActorFactory<Message> = (context: ActorContext<Message>) => Actor<Message>;

/** What an actor may do. Valid for one incarnation; calls after its end are ignored. */
export interface ActorContext<Message> {
  readonly self: ActorRef<Message>;
  readonly clock: Clock;
  /** A stream of its own, seeded from the system's seed and the actor's path. */
  readonly random: Random;
  readonly log: Log;
  /** A child: stops with its parent, is supervised by `options.supervision`. Names are unique among siblings. */
  spawn<Child>(name: string, factory: ActorFactory<Child>, options?: SpawnOptions<Child>): ActorRef<Child>;
  /** Stops a child, or this actor when no child is named. What waits in the mailbox goes to the dead letters. */
  stop(child?: ActorRef<never>): void;
  /** Asks for a `terminated` signal when that actor stops; at once when it already has. */
  watch(other: ActorRef<never>): void;
  unwatch(other: ActorRef<never>): void;
  /** Sends to itself after a delay; the timer dies with the incarnation. */
  schedule(delayMs: number, message: Message): { cancel(): void };
  /** Turns the end of a promise into a message to itself; dropped when this incarnation is over by then. */
  pipeToSelf<Value>(
    promise: Promise<Value>,
    onValue: (value: Value) => Message,
    onError: (error: unknown) => Message,
  ): void;
  /** Puts the current message aside. Bounded by the mailbox's limits; overflow fails the actor. */
  stash(): void;
  /** Puts what was set aside back in front of the mailbox, oldest first. */
  unstashAll(): void;
}

export type OverflowRule =
  /** The new message is refused; the sender sees `full`. Default. */
  | 'refuse'
  /** The oldest waiting message is dropped. */
  | 'drop-oldest'
  /** The new message is dropped and the sender sees `accepted`; for news that is stale at once. */
  | 'drop-newest';

export interface MailboxOptions<Message> {
  /** Messages that may wait, 1 to 1,000,000, default 10,000. */
  readonly messagesMax: number;
  /** Bytes that may wait; Infinity by default. Needs `sizeOf`. */
  readonly bytesMax: number;
  /** Bytes of a message, for `bytesMax`. */
  readonly sizeOf?: (message: Message) => number;
  readonly overflow: OverflowRule;
}

export type SupervisionDecision = 'restart' | 'stop' | 'escalate';

export interface SupervisionOptions {
  /** What to do with a failed child. Default: restart. */
  readonly decide: (failure: unknown) => SupervisionDecision;
  /** Restarts allowed within `intervalMs` before the failure escalates, default 5 within 60,000 ms. */
  readonly restartsMax: number;
  readonly intervalMs: number;
  /** Wait before the first restart, doubled each time up to the maximum, with ±20 % jitter. Defaults 100 and 10,000 ms. */
  readonly backoffMsMin: number;
  readonly backoffMsMax: number;
  /** Whether messages that waited are given to the next incarnation. Default true. */
  readonly keepMailbox: boolean;
}

export interface SpawnOptions<Message> {
  readonly mailbox?: Partial<MailboxOptions<Message>>;
  readonly supervision?: Partial<SupervisionOptions>;
}
