/**
 * The attempts of one call that are on their way at once: usually one, a second one beside it when the first takes longer
 * than such calls do. The first answer ends the race; whoever is still on the way is cancelled.
 */
import type { CallOutcome, RunningCall } from '#adapters/grpc/client-channel.js';
import type { Clock } from '#ports/clock.js';
import type { EndpointState } from './endpoint-picker.js';

export interface RacingAttempt {
  readonly endpoint: EndpointState;
  readonly startMs: number;
  /** It took too long: its answer counts, but nobody waits for it alone. */
  overdue: boolean;
}

export interface SettledAttempt {
  readonly attempt: RacingAttempt;
  readonly outcome: CallOutcome;
}

interface Runner extends RacingAttempt {
  call: RunningCall | undefined;
}

export class AttemptRace {
  readonly #clock: Clock;
  readonly #running = new Set<Runner>();
  readonly #settled: SettledAttempt[] = [];
  #notify: (() => void) | undefined;
  #over = false;
  /** Told of attempts that end when the race is over. */
  readonly #onLate: (settled: SettledAttempt) => void;

  constructor(clock: Clock, onLate: (settled: SettledAttempt) => void) {
    this.#clock = clock;
    this.#onLate = onLate;
  }

  get running(): ReadonlySet<RacingAttempt> {
    return this.#running;
  }

  /** Whether an attempt is under way that does not take too long yet. */
  get hasInTime(): boolean {
    for (const { overdue } of this.#running) if (!overdue) return true;
    return false;
  }

  start(endpoint: EndpointState, begin: (done: (outcome: CallOutcome) => void) => RunningCall): void {
    const runner: Runner = { endpoint, startMs: this.#clock.nowMs(), overdue: false, call: undefined };
    this.#running.add(runner);
    runner.call = begin((outcome) => {
      this.#running.delete(runner);
      const settled = { attempt: runner, outcome };
      if (this.#over) {
        this.#onLate(settled);
        return;
      }
      this.#settled.push(settled);
      this.#notify?.();
    });
  }

  /** The next attempt that ends; undefined when none has after so many ms. */
  async next(waitMs: number): Promise<SettledAttempt | undefined> {
    if (this.#settled.length === 0) {
      await new Promise<void>((resolve) => {
        const timer = waitMs === Infinity ? undefined : this.#clock.schedule(waitMs, resolve);
        this.#notify = () => {
          timer?.cancel();
          resolve();
        };
      });
      this.#notify = undefined;
    }
    return this.#settled.shift();
  }

  cancel(): void {
    for (const { call } of this.#running) call?.cancel();
  }

  /** Nobody waits any more: what runs is cancelled, what ends from now on is late. */
  end(): void {
    this.#over = true;
    for (const settled of this.#settled.splice(0)) this.#onLate(settled);
    this.cancel();
  }
}
