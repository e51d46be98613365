/**
 * Requests that wait for an answer from somewhere else, which takes them one after the other: numbered, bounded, each
 * settled exactly once, all of them at once when the other end is gone.
 *
 * Time is counted in beats of a timer of the owner's: one that fires late, because the owner itself was held up, then
 * blames nobody.
 */
import { intarsiaError } from './errors.js';

interface Waiting<Answer> {
  /** Beats it may be the oldest. */
  readonly beatsMax: number;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

export class InFlight<Answer> {
  readonly #max: number;
  readonly #waiting = new Map<number, Waiting<Answer>>();
  #next = 1;
  #oldest = 0;
  #oldestBeats = 0;
  #idleListeners: (() => void)[] = [];

  /** @param max Requests that may wait; at the bound `add` throws RESOURCE_EXHAUSTED. */
  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Counts a beat. True when the oldest request has been the oldest for longer than it may. */
  beat(): boolean {
    for (const [number, waiting] of this.#waiting) {
      this.#oldestBeats = number === this.#oldest ? this.#oldestBeats + 1 : 0;
      this.#oldest = number;
      return this.#oldestBeats > waiting.beatsMax;
    }
    return false;
  }

  /** Numbers a request and hands the number to `start`, which sends it. @throws RESOURCE_EXHAUSTED when too many wait. */
  add(beatsMax: number, start: (number: number) => void): Promise<Answer> {
    if (this.#waiting.size >= this.#max) {
      return Promise.reject(
        intarsiaError(
          'RESOURCE_EXHAUSTED',
          `the executor has ${this.#waiting.size} requests in flight; its limit is ${this.#max}`,
          {
            inFlight: this.#waiting.size,
            inFlightMax: this.#max,
          },
        ),
      );
    }
    const number = this.#next;
    this.#next = this.#next === 0xffff_ffff ? 1 : this.#next + 1;
    return new Promise<Answer>((resolve, reject) => {
      this.#waiting.set(number, { beatsMax, resolve, reject });
      try {
        start(number);
      } catch (error) {
        this.reject(number, error instanceof Error ? error : new Error(String(error)));
      }
    });
  }

  /** Answers a request. False when it does not wait (any more). */
  resolve(number: number, answer: Answer): boolean {
    const waiting = this.#take(number);
    waiting?.resolve(answer);
    return waiting !== undefined;
  }

  /** Fails a request. False when it does not wait (any more). */
  reject(number: number, error: Error): boolean {
    const waiting = this.#take(number);
    waiting?.reject(error);
    return waiting !== undefined;
  }

  /** Fails every request that waits. */
  rejectAll(error: Error): void {
    for (const number of [...this.#waiting.keys()]) this.reject(number, error);
  }

  /** Resolves once nothing waits. */
  idle(): Promise<void> {
    if (this.#waiting.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idleListeners.push(resolve));
  }

  #take(number: number): Waiting<Answer> | undefined {
    const waiting = this.#waiting.get(number);
    if (waiting === undefined) return undefined;
    this.#waiting.delete(number);
    if (this.#waiting.size === 0 && this.#idleListeners.length > 0) {
      const listeners = this.#idleListeners;
      this.#idleListeners = [];
      for (const listener of listeners) listener();
    }
    return waiting;
  }
}
