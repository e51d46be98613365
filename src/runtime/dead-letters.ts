/**
 * Messages that reached nobody: counted by reason, the latest ones described, each one told to whoever listens. The
 * messages themselves are not kept: a few hundred of them could hold gigabytes of tensors.
 */
import type { ActorAddress } from '#core/actor-address.js';
import { Deque } from '#core/deque.js';
import type { Clock } from '#ports/clock.js';
import type { DiagnosticsChannel } from '#ports/diagnostics.js';
import { deadLetterReasons } from './diagnostic-events.js';
import type { DeadLetterEvent, DeadLetterReason } from './diagnostic-events.js';

/** Descriptions kept; the oldest goes first. */
const recentMax = 256;

export interface DeadLetter {
  readonly atMs: number;
  readonly address: ActorAddress;
  readonly reason: DeadLetterReason;
  /** The message's `type` where it has one, else its JavaScript type. */
  readonly messageType: string;
}

export class DeadLetters {
  private readonly clock: Clock;
  private readonly channel: DiagnosticsChannel<DeadLetterEvent>;
  private readonly counts: Record<DeadLetterReason, number>;
  private readonly latest = new Deque<DeadLetter>();

  constructor(clock: Clock, channel: DiagnosticsChannel<DeadLetterEvent>) {
    this.clock = clock;
    this.channel = channel;
    this.counts = Object.fromEntries(deadLetterReasons.map((reason) => [reason, 0])) as Record<
      DeadLetterReason,
      number
    >;
  }

  /** How many there were, of one reason or of all. */
  count(reason?: DeadLetterReason): number {
    if (reason !== undefined) return this.counts[reason];
    return deadLetterReasons.reduce((sum, each) => sum + this.counts[each], 0);
  }

  /** The latest ones, oldest first; at most 256. */
  recent(): readonly DeadLetter[] {
    const letters: DeadLetter[] = [];
    for (let count = this.latest.length; count > 0; count -= 1) {
      const letter = this.latest.shift();
      letters.push(letter);
      this.latest.push(letter);
    }
    return letters;
  }

  record(address: ActorAddress, message: unknown, reason: DeadLetterReason): void {
    this.counts[reason] += 1;
    if (this.latest.length >= recentMax) this.latest.shift();
    this.latest.push({ atMs: this.clock.nowMs(), address, reason, messageType: typeOf(message) });
    if (this.channel.hasSubscribers) this.channel.publish({ address, message, reason });
  }
}

function typeOf(message: unknown): string {
  if (typeof message === 'object' && message !== null && 'type' in message && typeof message.type === 'string') {
    return message.type;
  }
  return typeof message;
}
