/**
 * What waits for an actor: messages in order, bounded in number and, where they have a size, in bytes.
 *
 * Messages set aside (`stash`) count against the same bounds, so putting them back never overflows. Positions in the
 * mailbox are the numbers of the deque below: the system uses them to order its signals among the messages.
 */
import { Deque } from '#core/deque.js';
import { intarsiaError } from '#core/errors.js';
import { formatBytes } from '#core/units.js';
import type { MailboxOptions } from './actor.js';

/** What `offer` did: took it, refused it, or dropped it by the rule `drop-newest`. */
export type OfferOutcome = 'accepted' | 'full' | 'dropped';

export class Mailbox<Message> extends Deque<Message> {
  private readonly messagesMax: number;
  private readonly bytesMax: number;
  private readonly overflow: MailboxOptions<Message>['overflow'];
  private readonly sizeOf: ((message: Message) => number) | undefined;
  /** Called with each message that the rule `drop-oldest` gives up, and its position. */
  private readonly onDrop: (message: Message, position: number) => void;
  /** Bytes of each waiting message; only when messages have sizes. */
  private readonly sizes: Deque<number> | undefined;
  private aside: Message[] = [];
  private asideCount = 0;
  private byteCount = 0;

  constructor(options: MailboxOptions<Message>, onDrop: (message: Message, position: number) => void) {
    super();
    this.messagesMax = options.messagesMax;
    this.bytesMax = options.bytesMax;
    this.overflow = options.overflow;
    this.sizeOf = options.sizeOf;
    this.onDrop = onDrop;
    this.sizes = options.sizeOf === undefined ? undefined : new Deque<number>();
  }

  /** Bytes of what waits and of what is set aside; 0 when messages have no sizes. */
  get bytes(): number {
    return this.byteCount;
  }

  /** Messages set aside. */
  get stashed(): number {
    return this.asideCount;
  }

  /** Puts a message at the end, as the bounds and the overflow rule allow. */
  offer(message: Message): OfferOutcome {
    if (this.sizes === undefined && this.tail - this.head + this.asideCount < this.messagesMax) {
      this.push(message);
      return 'accepted';
    }
    return this.offerBounded(message);
  }

  /** The next message, taken out; only when there is one. */
  take(): Message {
    if (this.sizes !== undefined) this.byteCount -= this.sizes.shift();
    return this.shift();
  }

  /** Sets a message aside that was taken out before. @throws RESOURCE_EXHAUSTED when the bounds do not allow it. */
  setAside(message: Message): void {
    const size = this.measure(message);
    if (!this.hasRoom(size)) {
      throw intarsiaError(
        'RESOURCE_EXHAUSTED',
        `no room to stash a message: ${this.length} messages wait and ${this.asideCount} are stashed of ${this.messagesMax}; ${formatBytes(this.byteCount)} are held of ${formatBytes(this.bytesMax)}`,
        { waiting: this.length, stashed: this.asideCount, messagesMax: this.messagesMax, bytes: this.byteCount },
      );
    }
    this.byteCount += size;
    this.aside.push(message);
    this.asideCount += 1;
  }

  /** Puts everything set aside in front of what waits, oldest first. */
  putBack(): void {
    for (const message of this.aside.reverse()) {
      this.pushFront(message);
      if (this.sizes !== undefined) this.sizes.pushFront(this.measure(message));
    }
    this.aside = [];
    this.asideCount = 0;
  }

  /** Takes everything out, what was set aside first. */
  empty(): Message[] {
    this.putBack();
    const messages: Message[] = [];
    while (this.head < this.tail) messages.push(this.take());
    return messages;
  }

  private offerBounded(message: Message): OfferOutcome {
    const size = this.measure(message);
    while (!this.hasRoom(size)) {
      if (this.overflow === 'drop-newest') return 'dropped';
      // A message that fits in no mailbox of this size must not cost the others their place.
      if (this.overflow === 'refuse' || this.head === this.tail || size > this.bytesMax) return 'full';
      const position = this.head;
      this.onDrop(this.take(), position);
    }
    this.push(message);
    this.byteCount += size;
    this.sizes?.push(size);
    return 'accepted';
  }

  private hasRoom(size: number): boolean {
    return this.length + this.asideCount < this.messagesMax && this.byteCount + size <= this.bytesMax;
  }

  private measure(message: Message): number {
    if (this.sizeOf === undefined) return 0;
    const size = this.sizeOf(message);
    if (size >= 0 && size < Infinity) return size;
    throw intarsiaError('INTERNAL', `a mailbox's sizeOf must give bytes from 0 up; it gave ${size}`, { size });
  }
}
