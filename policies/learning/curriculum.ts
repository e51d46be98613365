/**
 * How hard a training scenario is and how far it strays from the fleet file, drawn from its name's own stream: first calm and
 * close to what is written, later loaded, bursty and wrong in its profiles, so that a policy does not learn one fleet by heart.
 */
import type { Random } from '#ports/random.js';

export interface Lesson {
  /** Arriving work over what the fleet can do in time. */
  readonly load: number;
  /** Arrivals as `src/sim/fleet/arrival-process.ts` writes them, of mean rate 1; the load sets the rate. */
  readonly arrivals: string;
  /** Sigma of the factors by which senders err in run times. */
  readonly profileError: number;
  /** Spread of the factors on prices. */
  readonly priceSpread: number;
  /** Share of the fleet's devices that are there, 0 to 1. */
  readonly fleetShare: number;
  /** How late answers become known to the sender, ms. */
  readonly staleMs: number;
  /** A device takes three times as long. */
  readonly slow: boolean;
}

/** The lesson of a stream. `progress`: 0 at the beginning of training, 1 at its end. */
export function drawLesson(random: Random, progress: number): Lesson {
  const uniform = (low: number, high: number): number => low + (high - low) * random.next();
  const reach = 0.3 + 0.7 * progress;
  const load = uniform(0.4, 0.9 + 0.12 * reach);
  const burst = random.next();
  const dwellMs = uniform(300, 3_000).toFixed(0);
  // Rates are relative to each other; a mean rate is put in their place.
  const quiet = burst < 0.5 ? undefined : uniform(1 - 0.6 * reach, 1);
  const arrivals =
    quiet === undefined
      ? 'poisson:rate=1'
      : `mmpp:rates=${quiet.toFixed(3)}/${(quiet * (1 + 4 * reach * (burst - 0.5) * 2)).toFixed(3)},dwell=${dwellMs}/${dwellMs}`;
  return {
    load,
    arrivals,
    profileError: uniform(0, 0.2 * reach),
    priceSpread: uniform(0, 0.3 * reach),
    fleetShare: Math.min(1, uniform(1 - 0.5 * reach, 1.3)),
    staleMs: random.next() < 0.2 * reach * reach ? uniform(0, 1_000) : 0,
    slow: random.next() < 0.15 * reach * reach,
  };
}
