/** What a load run does: how requests arrive, for how long, and which of them count. */
import { intarsiaError } from '#core/errors.js';

/** How requests arrive. */
export type Arrivals =
  /** Closed loop: always as many in flight; the next one leaves when an answer is there. A slow server is asked less. */
  | { readonly kind: 'closed'; readonly concurrency: number }
  /** Open loop: a Poisson process, whatever the server does. Latency counts from the intended moment. */
  | { readonly kind: 'poisson'; readonly ratePerSecond: number }
  /** Open loop: moments of a recording, ms from its beginning, ascending. Repeated from its end when it is too short. */
  | { readonly kind: 'trace'; readonly name: string; readonly arrivalsMs: readonly number[] };

export interface LoadPlan {
  readonly arrivals: Arrivals;
  /** Requests before this are sent and not counted. Default 1 s. */
  readonly warmUpMs: number;
  /** Length of the window that counts. */
  readonly windowMs: number;
  /** The window also ends after this many counted requests; Infinity for no such end. */
  readonly requestsMax: number;
  /** Goodput is what was answered well within this, ms from the intended moment; 0 when there is no deadline. */
  readonly deadlineMs: number;
  /** Requests in flight at once in an open loop; what would exceed it is counted as NOT_SENT. */
  readonly inFlightMax: number;
  /** Milliseconds to wait for the last answers before they count as UNANSWERED. */
  readonly drainMsMax: number;
  /** One answer in this many is read for its receipt; 0 reads none. Reading costs time of the generator. */
  readonly receiptEvery: number;
  /** Number of different bodies of the transport. */
  readonly bodies: number;
  readonly seed: string;
}

export type LoadPlanOptions = Pick<LoadPlan, 'arrivals'> & Partial<LoadPlan>;

/**
 * Fills in defaults and checks every value.
 * @throws CONFIG_INVALID naming the option, its range and the value.
 */
export function completeLoadPlan(options: LoadPlanOptions): LoadPlan {
  const plan: LoadPlan = {
    warmUpMs: 1000,
    windowMs: 10_000,
    requestsMax: Infinity,
    deadlineMs: 0,
    inFlightMax: 10_000,
    drainMsMax: 30_000,
    receiptEvery: 16,
    bodies: 1,
    seed: '1',
    ...options,
  };
  const { arrivals } = plan;
  if (arrivals.kind === 'closed') wholeIn('concurrency', arrivals.concurrency, 1, 100_000);
  if (arrivals.kind === 'poisson') numberIn('rate', arrivals.ratePerSecond, 0.001, 1_000_000);
  if (arrivals.kind === 'trace') checkTrace(arrivals.name, arrivals.arrivalsMs);
  numberIn('warmUpMs', plan.warmUpMs, 0, 3_600_000);
  numberIn('windowMs', plan.windowMs, 1, 86_400_000);
  if (plan.requestsMax !== Infinity) wholeIn('requestsMax', plan.requestsMax, 1, 1_000_000_000);
  numberIn('deadlineMs', plan.deadlineMs, 0, 3_600_000);
  wholeIn('inFlightMax', plan.inFlightMax, 1, 1_000_000);
  numberIn('drainMsMax', plan.drainMsMax, 0, 3_600_000);
  wholeIn('receiptEvery', plan.receiptEvery, 0, 1_000_000);
  wholeIn('bodies', plan.bodies, 1, 100_000);
  return plan;
}

function checkTrace(name: string, arrivalsMs: readonly number[]): void {
  if (arrivalsMs.length === 0) throw wrong(`trace ${name}`, 'hold at least one arrival', 'empty');
  let lastMs = 0;
  for (const [index, atMs] of arrivalsMs.entries()) {
    if (!(atMs >= lastMs)) {
      throw wrong(
        `trace ${name}`,
        'be ascending moments of at least 0',
        `${atMs} after ${lastMs} (arrival ${index + 1})`,
      );
    }
    lastMs = atMs;
  }
}

function numberIn(option: string, value: number, min: number, max: number): void {
  if (!(value >= min && value <= max)) throw wrong(option, `be a number from ${min} to ${max}`, value);
}

function wholeIn(option: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw wrong(option, `be a whole number from ${min} to ${max}`, value);
  }
}

function wrong(option: string, wanted: string, value: string | number): Error {
  return intarsiaError('CONFIG_INVALID', `${option} must ${wanted}; it is ${value}`, { option });
}
