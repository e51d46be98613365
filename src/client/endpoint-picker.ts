/**
 * Which endpoint gets the next call: round robin or the one with the least in flight, leaving alone for a while those
 * that failed several times in a row. Time is an argument, so tests turn the clock themselves.
 *
 * When every endpoint is out, the one that returns soonest is used: a wrong guess costs one failed attempt, refusing
 * would cost all of them.
 */
import type { Balancing, EjectionOptions } from './options.js';

/** What the picker keeps about one endpoint. */
export interface EndpointState {
  /** Position in the list of endpoints. */
  readonly index: number;
  /** Calls on their way; at least 0. */
  inFlight: number;
  /** Failures since the last success. */
  failuresInRow: number;
  /** Ejections since the last success; each doubles the time out. */
  ejectionsInRow: number;
  /** Moment (ms, monotonic) until which it gets nothing; -Infinity when it is in. */
  ejectedUntilMs: number;
}

/**
 * What an attempt says about its endpoint: it answered (an error about the request is an answer too), it is to blame, or
 * nothing can be told, as when the caller cancelled.
 */
export type EndpointVerdict = 'healthy' | 'failed' | 'unknown';

export class EndpointPicker {
  readonly #states: readonly EndpointState[];
  readonly #balancing: Balancing;
  readonly #ejection: EjectionOptions;
  #cursor = 0;

  constructor(count: number, balancing: Balancing, ejection: EjectionOptions) {
    this.#states = Array.from({ length: count }, (_, index) => ({
      index,
      inFlight: 0,
      failuresInRow: 0,
      ejectionsInRow: 0,
      ejectedUntilMs: -Infinity,
    }));
    this.#balancing = balancing;
    this.#ejection = ejection;
  }

  get states(): readonly EndpointState[] {
    return this.#states;
  }

  /**
   * The endpoint for the next attempt; its `inFlight` is counted up. Those in `tried` already failed this call and are
   * used again only when no other one is in.
   */
  acquire(tried: ReadonlySet<number>, nowMs: number): EndpointState {
    const chosen =
      this.#best((state) => state.ejectedUntilMs <= nowMs && !tried.has(state.index)) ??
      this.#best((state) => state.ejectedUntilMs <= nowMs) ??
      this.#soonest();
    this.#cursor = (chosen.index + 1) % this.#states.length;
    chosen.inFlight += 1;
    return chosen;
  }

  /** Whether an endpoint that is in has not been tried by this call yet. */
  hasUntried(tried: ReadonlySet<number>, nowMs: number): boolean {
    return this.#states.some((state) => state.ejectedUntilMs <= nowMs && !tried.has(state.index));
  }

  /** The attempt ended. */
  release(state: EndpointState, verdict: EndpointVerdict, nowMs: number): void {
    state.inFlight -= 1;
    if (verdict === 'unknown') return;
    if (verdict === 'healthy') {
      state.failuresInRow = 0;
      state.ejectionsInRow = 0;
      state.ejectedUntilMs = -Infinity;
      return;
    }
    state.failuresInRow += 1;
    // Calls that were on their way when it was sent out say nothing new.
    if (state.failuresInRow < this.#ejection.failuresMax || state.ejectedUntilMs > nowMs) return;
    const outMs = Math.min(this.#ejection.ejectMsMax, this.#ejection.ejectMsMin * 2 ** state.ejectionsInRow);
    state.ejectedUntilMs = nowMs + outMs;
    state.ejectionsInRow += 1;
    // Once back in, one more failure is enough to send it out again.
    state.failuresInRow = this.#ejection.failuresMax - 1;
  }

  /** In the order of the cursor, so that equals take turns. */
  #best(allowed: (state: EndpointState) => boolean): EndpointState | undefined {
    let best: EndpointState | undefined;
    for (let step = 0; step < this.#states.length; step += 1) {
      const state = this.#states[(this.#cursor + step) % this.#states.length];
      if (state === undefined || !allowed(state)) continue;
      if (this.#balancing === 'round-robin') return state;
      if (best === undefined || state.inFlight < best.inFlight) best = state;
    }
    return best;
  }

  #soonest(): EndpointState {
    return this.#states.reduce((soonest, state) => (state.ejectedUntilMs < soonest.ejectedUntilMs ? state : soonest));
  }
}
