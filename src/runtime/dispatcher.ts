/**
 * Gives actors their turns: a queue of those that have something to do, served in order, a bounded burst of messages
 * each. One `defer` starts a turn however many messages were sent before it; a turn that is long gives way, so that the
 * clock can let input, output and timers in.
 */
import { Deque } from '#core/deque.js';
import type { Clock } from '#ports/clock.js';

/** Messages one actor may handle before the next one in the queue has its burst. */
const burstMessagesMax = 32;
/** Messages and time, ms, after which a turn gives way. Time is looked at after each full burst only. */
const turnMessagesMax = 4_096;
const turnMsMax = 1;

/** Something that has turns. */
export interface Runnable {
  /** True while it is in the queue, or must not enter it. */
  isQueued: boolean;
  /** Handles up to `messagesMax` messages and says how many they were. Never throws. */
  run(messagesMax: number): number;
  /** Whether it wants another turn. */
  hasWork(): boolean;
}

export class Dispatcher {
  private readonly clock: Clock;
  private readonly queue = new Deque<Runnable>();
  private isTurnPending = false;
  private messageCount = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Messages handled so far. */
  get messages(): number {
    return this.messageCount;
  }

  /** Gives it a turn soon. The caller has made sure that it is not in the queue. */
  enqueue(runnable: Runnable): void {
    runnable.isQueued = true;
    this.queue.push(runnable);
    if (this.isTurnPending) return;
    this.isTurnPending = true;
    this.clock.defer(this.turn);
  }

  private readonly turn = (): void => {
    try {
      this.runTurn();
    } finally {
      this.isTurnPending = this.queue.length > 0;
      if (this.isTurnPending) this.clock.defer(this.turn);
    }
  };

  private runTurn(): void {
    let left = turnMessagesMax;
    let startMs = -1;
    while (this.queue.length > 0 && left > 0) {
      const runnable = this.queue.shift();
      const handled = runnable.run(burstMessagesMax);
      this.messageCount += handled;
      // A turn without messages, such as a start, counts as one.
      left -= handled > 0 ? handled : 1;
      if (runnable.hasWork()) this.queue.push(runnable);
      else runnable.isQueued = false;
      if (handled < burstMessagesMax) continue;
      const nowMs = this.clock.nowMs();
      if (startMs < 0) startMs = nowMs;
      else if (nowMs - startMs >= turnMsMax) return;
    }
  }
}
