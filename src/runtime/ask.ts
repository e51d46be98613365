/**
 * One question that waits for its one reply. It ends exactly once: by the reply, the deadline, the cancellation, or the
 * end of the actor that was asked, whichever comes first; then it leaves the timer queue and the list of that actor.
 */
import type { ActorAddress, Delivery } from '#core/actor-address.js';
import { formatAddress } from '#core/actor-address.js';
import { intarsiaError } from '#core/errors.js';
import type { IntarsiaError } from '#core/errors.js';
import type { Timer } from '#ports/clock.js';
import type { AskOptions, Cancellation, ReplyTo } from './actor.js';
import type { AskDeadlines, Deadlined, Span } from './ask-deadlines.js';
import type { DeadLetters } from './dead-letters.js';

/** What a question needs of the system. */
export interface AskPorts {
  readonly deadlines: AskDeadlines;
  readonly deadLetters: DeadLetters;
}

export class Ask<Reply> implements ReplyTo<Reply>, Deadlined {
  deadlineMs = Infinity;
  earlier: Deadlined | undefined;
  later: Deadlined | undefined;
  span: Span | undefined;
  timer: Timer | undefined;
  /** Place of the question in the mailbox of the actor that was asked. */
  position = 0;
  /** Neighbours in the list of the actor that was asked. */
  previous: Ask<never> | undefined;
  next: Ask<never> | undefined;
  list: AskList | undefined;

  private readonly ports: AskPorts;
  private readonly asked: ActorAddress;
  private readonly resolve: (reply: Reply) => void;
  private readonly fail: (error: unknown) => void;
  private isOver = false;
  private cancellation: Cancellation | undefined;
  private onCancel: (() => void) | undefined;
  private endListeners: (() => void)[] | undefined;

  constructor(ports: AskPorts, asked: ActorAddress, resolve: (reply: Reply) => void, fail: (error: unknown) => void) {
    this.ports = ports;
    this.asked = asked;
    this.resolve = resolve;
    this.fail = fail;
  }

  get over(): boolean {
    return this.isOver;
  }

  tell(reply: Reply): Delivery {
    if (this.isOver) {
      this.ports.deadLetters.record(this.asked, reply, 'late-reply');
      return 'stopped';
    }
    this.end();
    this.resolve(reply);
    return 'accepted';
  }

  reject(error: unknown): void {
    if (this.isOver) return;
    this.end();
    this.fail(error);
  }

  /** Takes the deadline on. True when the question has ended with that: it was cancelled before, or the deadline is none. */
  endIfPointless(options: AskOptions): boolean {
    const { deadlineMs, cancellation } = options;
    if (cancellation?.cancelled === true) this.rejectCancelled();
    else if (deadlineMs < Infinity) {
      this.deadlineMs = deadlineMs;
      this.ports.deadlines.add(this);
    } else if (deadlineMs !== Infinity) {
      this.reject(intarsiaError('INVALID_ARGUMENT', `a deadline must be a moment in ms; it is ${deadlineMs}`));
    }
    return this.isOver;
  }

  onDeadline(): void {
    this.reject(
      intarsiaError('DEADLINE_EXCEEDED', `actor ${formatAddress(this.asked)} gave no reply before the deadline`, {
        actor: this.asked.path,
        deadlineMs: this.deadlineMs,
      }),
    );
  }

  /** Calls the listener once the question has ended. */
  whenOver(listener: () => void): void {
    this.endListeners ??= [];
    this.endListeners.push(listener);
  }

  /** From here on the cancellation ends it. */
  obey(cancellation: Cancellation): void {
    this.cancellation = cancellation;
    this.onCancel = () => this.rejectCancelled();
    cancellation.onCancel(this.onCancel);
  }

  /** The end of a question to an actor that stopped, or was stopped already. */
  rejectStopped(): void {
    this.reject(
      intarsiaError('UNAVAILABLE', `actor ${formatAddress(this.asked)} is stopped`, { actor: this.asked.path }),
    );
  }

  rejectFull(): void {
    this.reject(
      intarsiaError('RESOURCE_EXHAUSTED', `the mailbox of actor ${formatAddress(this.asked)} is full`, {
        actor: this.asked.path,
      }),
    );
  }

  private rejectCancelled(): void {
    this.reject(
      intarsiaError('CANCELLED', `the question to actor ${formatAddress(this.asked)} was cancelled`, {
        actor: this.asked.path,
      }),
    );
  }

  private end(): void {
    this.isOver = true;
    if (this.deadlineMs < Infinity) this.ports.deadlines.remove(this);
    this.list?.remove(this);
    if (this.onCancel !== undefined) this.cancellation?.offCancel?.(this.onCancel);
    for (const listener of this.endListeners ?? []) listener();
  }
}

/** The questions that wait for one actor, in the order in which they were asked. */
export class AskList {
  private first: Ask<never> | undefined;
  private last: Ask<never> | undefined;

  add(ask: Ask<never>): void {
    ask.list = this;
    ask.previous = this.last;
    if (this.last === undefined) this.first = ask;
    else this.last.next = ask;
    this.last = ask;
  }

  remove(ask: Ask<never>): void {
    if (ask.previous === undefined) this.first = ask.next;
    else ask.previous.next = ask.next;
    if (ask.next === undefined) this.last = ask.previous;
    else ask.next.previous = ask.previous;
    ask.previous = undefined;
    ask.next = undefined;
    ask.list = undefined;
  }

  /** Ends every question whose message was taken from the mailbox before `position`. */
  rejectBefore(position: number, errorOf: () => IntarsiaError): void {
    for (let ask = this.first; ask !== undefined && ask.position < position; ask = this.first) ask.reject(errorOf());
  }

  rejectAllStopped(): void {
    for (let ask = this.first; ask !== undefined; ask = this.first) ask.rejectStopped();
  }

  /** The question whose message has that place in the mailbox. */
  find(position: number): Ask<never> | undefined {
    for (let ask = this.last; ask !== undefined && ask.position >= position; ask = ask.previous) {
      if (ask.position === position) return ask;
    }
    return undefined;
  }
}
