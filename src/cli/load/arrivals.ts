/** Moments at which requests are meant to leave, one after the other, in milliseconds from the beginning of the run. */
import { intarsiaError } from '#core/errors.js';
import { RandomStream } from '#core/random.js';
import type { Arrivals } from './load-plan.js';

/** Gives the next moment with each call; never ends. */
export type ArrivalSource = () => number;

/** A Poisson process: independent gaps, exponentially distributed around 1 / rate. */
export function poissonArrivals(ratePerSecond: number, seed: string): ArrivalSource {
  const random = new RandomStream(seed).stream('arrivals');
  const gapMs = 1000 / ratePerSecond;
  let atMs = 0;
  return () => {
    // 1 - u is in (0, 1]: the logarithm is finite.
    atMs -= Math.log(1 - random.next()) * gapMs;
    return atMs;
  };
}

/** A recording; from its end it goes on from its beginning, after the mean gap. */
export function traceArrivals(arrivalsMs: readonly number[]): ArrivalSource {
  const firstMs = arrivalsMs[0] ?? 0;
  const spanMs = (arrivalsMs.at(-1) ?? 0) - firstMs;
  const gapMs = arrivalsMs.length > 1 ? spanMs / (arrivalsMs.length - 1) : 1000;
  let index = 0;
  let offsetMs = -firstMs;
  return () => {
    if (index === arrivalsMs.length) {
      index = 0;
      // A recording of one instant would otherwise ask for endlessly many requests at once.
      offsetMs += spanMs + Math.max(gapMs, 1);
    }
    const atMs = (arrivalsMs[index] ?? 0) + offsetMs;
    index += 1;
    return atMs;
  };
}

export function openLoopArrivals(arrivals: Exclude<Arrivals, { kind: 'closed' }>, seed: string): ArrivalSource {
  return arrivals.kind === 'poisson'
    ? poissonArrivals(arrivals.ratePerSecond, seed)
    : traceArrivals(arrivals.arrivalsMs);
}

const arrivalsMax = 10_000_000;

/**
 * Arrivals of a CSV text: the first column is the moment in milliseconds (or seconds, by `unit`), other columns are passed
 * over; so are a header, empty lines and lines that begin with `#`.
 * @throws CONFIG_INVALID naming the line that is no number.
 */
export function parseTrace(name: string, text: string, unit: 'ms' | 's'): readonly number[] {
  const scale = unit === 's' ? 1000 : 1;
  const arrivalsMs: number[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const cell = line.split(',', 1)[0]?.trim() ?? '';
    if (cell === '' || cell.startsWith('#')) continue;
    const at = Number(cell);
    if (!Number.isFinite(at)) {
      if (arrivalsMs.length === 0 && index === 0) continue;
      throw intarsiaError(
        'CONFIG_INVALID',
        `${name}, line ${index + 1}: ${JSON.stringify(cell.slice(0, 40))} is not a number`,
      );
    }
    arrivalsMs.push(at * scale);
    if (arrivalsMs.length > arrivalsMax) {
      throw intarsiaError('CONFIG_INVALID', `${name} holds more than ${arrivalsMax} arrivals`);
    }
  }
  return arrivalsMs;
}
