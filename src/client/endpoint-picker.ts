/**
 * Which endpoint gets the next call: round robin or the one with the least in flight, leaving alone for a while those
 * that failed several times in a row. Time is an argument, so tests turn the clock themselves.
 *
 * When every endpoint is out, the one that returns soonest is used: a wrong guess costs one failed attempt, refusing
 * would cost all of them.
 */
import { invariant } from '#core/errors.js';
import type { Random } from '#ports/random.js';
import type { Balancing, EjectionOptions } from './options.js';

/** What the picker keeps about one endpoint. */
export interface EndpointState {
  /** Number of the endpoint, in the order in which they became known. */
  readonly index: number;
  /**
   * `used`; `spare` for those the user named while a grid's own list is used: taken when none of that list is left;
   * `retired` gets nothing.
   */
  role: 'used' | 'spare' | 'retired';
  /** Calls on their way; at least 0. */
  inFlight: number;
  /** Failures since the last success. */
  failuresInRow: number;
  /** Ejections since the last success; each doubles the time out. */
  ejectionsInRow: number;
  /** Moment (ms, monotonic) until which it gets nothing; -Infinity when it is in. */
  ejectedUntilMs: number;
  /**
   * One call went ahead after its time out: until this moment (ms, monotonic), or until an attempt there ends, it gets no other.
   * Else each return of one that stands still would cost all the calls of the time in which that shows.
   */
  trialUntilMs: number;
}

/**
 * What an attempt says about its endpoint: it answered (an error about the request is an answer too), it is to blame, or
 * nothing can be told, as when the caller cancelled.
 */
export type EndpointVerdict = 'healthy' | 'failed' | 'unknown';

/** Up to this many endpoints all are looked at. */
const allMax = 8;

export class EndpointPicker {
  #states: EndpointState[] = [];
  readonly #balancing: Balancing;
  readonly #ejection: EjectionOptions;
  #cursor = 0;

  readonly #random: Random | undefined;

  constructor(count: number, balancing: Balancing, ejection: EjectionOptions, random?: Random) {
    this.#balancing = balancing;
    this.#ejection = ejection;
    this.#random = random;
    for (let index = 0; index < count; index += 1) this.add(index);
  }

  add(index: number): EndpointState {
    const state: EndpointState = {
      index,
      role: 'used',
      inFlight: 0,
      failuresInRow: 0,
      ejectionsInRow: 0,
      ejectedUntilMs: -Infinity,
      trialUntilMs: -Infinity,
    };
    this.#states.push(state);
    return state;
  }

  /** Forgets an endpoint that nothing is on its way to. */
  remove(index: number): void {
    this.#states = this.#states.filter((state) => state.index !== index);
    this.#cursor = 0;
  }

  get states(): readonly EndpointState[] {
    return this.#states;
  }

  /**
   * The endpoint for the next attempt; its `inFlight` is counted up. Those in `tried` already failed this call and are
   * used again only when no other one is in. `beside` an attempt that takes too long one that is out is better than the
   * same again.
   */
  acquire(tried: ReadonlySet<number>, nowMs: number, beside = false): EndpointState {
    const chosen =
      this.#best((state) => state.role === 'used' && isIn(state, nowMs) && !tried.has(state.index)) ??
      this.#best((state) => state.role === 'spare' && isIn(state, nowMs) && !tried.has(state.index)) ??
      (beside ? this.#soonest(tried) : undefined) ??
      this.#best((state) => state.role !== 'retired' && isIn(state, nowMs)) ??
      this.#soonest() ??
      this.#any();
    this.#cursor = (this.#states.indexOf(chosen) + 1) % this.#states.length;
    chosen.inFlight += 1;
    if (chosen.ejectionsInRow > 0) chosen.trialUntilMs = nowMs + this.#ejection.ejectMsMin;
    return chosen;
  }

  /** Whether an endpoint that is in has not been tried by this call yet. */
  hasUntried(tried: ReadonlySet<number>, nowMs: number): boolean {
    return this.#states.some((state) => state.role !== 'retired' && isIn(state, nowMs) && !tried.has(state.index));
  }

  /**
   * Whether there is an endpoint beside this one that has not been tried, in or out: where one stands still, calls through the
   * others are slow for a moment too, and they may all be out at once.
   */
  hasAnother(tried: ReadonlySet<number>, besides: number): boolean {
    return this.#states.some(({ role, index }) => role !== 'retired' && index !== besides && !tried.has(index));
  }

  /** The attempt ended. */
  release(state: EndpointState, verdict: EndpointVerdict, nowMs: number): void {
    state.inFlight -= 1;
    state.trialUntilMs = -Infinity;
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
    this.#eject(state, nowMs);
  }

  /** It took too long: left alone at once, as after many failures, until it answers or the time is over. */
  suspect(state: EndpointState, nowMs: number): void {
    if (state.ejectedUntilMs > nowMs) return;
    state.failuresInRow = this.#ejection.failuresMax;
    this.#eject(state, nowMs);
  }

  #eject(state: EndpointState, nowMs: number): void {
    const outMs = Math.min(this.#ejection.ejectMsMax, this.#ejection.ejectMsMin * 2 ** state.ejectionsInRow);
    state.ejectedUntilMs = nowMs + outMs;
    state.ejectionsInRow += 1;
    // Once back in, one more failure is enough to send it out again.
    state.failuresInRow = this.#ejection.failuresMax - 1;
  }

  /**
   * In the order of the cursor, so that equals take turns. Of many, the better of two that are drawn: clients with stale
   * figures do not all run to the same one.
   */
  #best(allowed: (state: EndpointState) => boolean): EndpointState | undefined {
    const count = this.#states.length;
    if (count > allMax && this.#random !== undefined && this.#balancing !== 'round-robin') {
      const first = this.#from(this.#random.below(count), allowed);
      const second = this.#from(this.#random.below(count), allowed);
      return first === undefined || second === undefined || second.inFlight >= first.inFlight ? first : second;
    }
    let best: EndpointState | undefined;
    for (let step = 0; step < count; step += 1) {
      const state = this.#states[(this.#cursor + step) % count];
      if (state === undefined || !allowed(state)) continue;
      if (this.#balancing === 'round-robin') return state;
      if (best === undefined || state.inFlight < best.inFlight) best = state;
    }
    return best;
  }

  #from(start: number, allowed: (state: EndpointState) => boolean): EndpointState | undefined {
    for (let step = 0; step < this.#states.length; step += 1) {
      const state = this.#states[(start + step) % this.#states.length];
      if (state !== undefined && allowed(state)) return state;
    }
    return undefined;
  }

  #soonest(tried: ReadonlySet<number> = new Set()): EndpointState | undefined {
    return this.#states
      .filter(({ role, index }) => role !== 'retired' && !tried.has(index))
      .reduce<EndpointState | undefined>(
        (soonest, state) => (soonest !== undefined && soonest.ejectedUntilMs <= state.ejectedUntilMs ? soonest : state),
        undefined,
      );
  }

  #any(): EndpointState {
    const [first] = this.#states;
    invariant(first !== undefined, 'a client has at least one endpoint');
    return first;
  }
}

function isIn({ ejectedUntilMs, trialUntilMs }: EndpointState, nowMs: number): boolean {
  return ejectedUntilMs <= nowMs && trialUntilMs <= nowMs;
}
