/** When an actor was restarted, and so whether it may be again and after how long a wait. */
import type { Random } from '#ports/random.js';
import type { SupervisionOptions } from './actor.js';

const jitterRatio = 0.2;

export class RestartHistory {
  private readonly options: SupervisionOptions;
  /** Moments of the restarts within the interval, oldest first; at most `restartsMax`. */
  private restartsMs: number[] = [];
  private restartCount = 0;

  constructor(options: SupervisionOptions) {
    this.options = options;
  }

  /** Restarts since the actor was spawned. */
  get count(): number {
    return this.restartCount;
  }

  /**
   * Notes a restart and gives the wait before it, ms: `backoffMsMin` doubled for each restart that lies within the
   * interval, at most `backoffMsMax`, ±20 %. Undefined when the interval has seen `restartsMax` restarts already.
   */
  next(nowMs: number, random: Random): number | undefined {
    const { restartsMax, intervalMs, backoffMsMin, backoffMsMax } = this.options;
    this.restartsMs = this.restartsMs.filter((restartMs) => nowMs - restartMs < intervalMs);
    const earlier = this.restartsMs.length;
    if (earlier >= restartsMax) return undefined;
    this.restartsMs.push(nowMs);
    this.restartCount += 1;
    const backoffMs = Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(earlier, 60));
    return backoffMs * (1 + jitterRatio * (2 * random.next() - 1));
  }
}
