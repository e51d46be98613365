/**
 * The best time to launch for one queue with Poisson arrivals, solved: a semi-Markov decision process whose state is the
 * number that waits, decided at each arrival and at each end of a run, and whose cost is the mean number in the system
 * (by Little's law the mean time of a request) plus a price for each run. Relative value iteration on a truncated queue.
 *
 * The solution is nearly always a control limit: launch as soon as so many wait. That limit is what comes out.
 */
import { intarsiaError } from '#core/errors.js';

export interface SmdpProblem {
  /** Milliseconds of a run by items, from 1 on: `runMs[0]` is one item's. */
  readonly runMs: readonly number[];
  /** Items that arrive in a millisecond, above 0. */
  readonly perMs: number;
  /** What a millisecond of a run costs, measured in milliseconds of one request's waiting. 0: time alone counts. */
  readonly runWeight: number;
}

export interface SmdpSolution {
  /** Items launched with so many waiting, from 0 on; 0: wait. */
  readonly launch: readonly number[];
  /** Smallest number that is launched. */
  readonly limit: number;
  /** Cost a millisecond in the long run. */
  readonly cost: number;
}

const iterationsMax = 20_000;
const tolerance = 1e-4;

/** @throws INVALID_ARGUMENT for times or rates that are not above 0. */
export function solveSmdp({ runMs, perMs, runWeight }: SmdpProblem): SmdpSolution {
  const itemsMax = runMs.length;
  if (itemsMax === 0 || !(perMs > 0) || !runMs.every((ms) => ms > 0) || !(runWeight >= 0)) {
    throw intarsiaError('INVALID_ARGUMENT', 'the batching problem needs run times and a rate above 0');
  }
  // Longer queues than this are so rare, or so hopeless, that the last state stands for them.
  const last = Math.max(4 * itemsMax, 32);
  const actions = runMs.map((ms, at) => ({
    items: at + 1,
    ms,
    arrivals: poisson(perMs * ms, last),
    // Those that come during the run wait half of it on average.
    arrivedMs: (perMs * ms * ms) / 2,
  }));
  const waitMs = 1 / perMs;
  // Turns unequal stays into equal steps: no longer than the shortest stay.
  const step = Math.min(waitMs, ...runMs) * 0.5;
  let value = new Float64Array(last + 1);
  const launch = new Array<number>(last + 1).fill(0);
  let cost = 0;
  for (let round = 0; round < iterationsMax; round += 1) {
    const next = new Float64Array(last + 1);
    let least = Infinity;
    let most = -Infinity;
    for (let waiting = 0; waiting <= last; waiting += 1) {
      const here = value[waiting] as number;
      let best = Infinity;
      let bestItems = 0;
      if (waiting < last) {
        best = waiting + ((value[waiting + 1] as number) - here) / waitMs;
        bestItems = 0;
      }
      for (const { items, ms, arrivals, arrivedMs } of actions) {
        if (items > waiting) break;
        let then = 0;
        const left = waiting - items;
        for (let count = 0; count < arrivals.length; count += 1) {
          then += (arrivals[count] as number) * (value[Math.min(last, left + count)] as number);
        }
        const rate = (waiting * ms + arrivedMs + runWeight * ms + then - here) / ms;
        if (rate < best - 1e-12) {
          best = rate;
          bestItems = items;
        }
      }
      launch[waiting] = bestItems;
      const change = step * best;
      next[waiting] = here + change;
      least = Math.min(least, best);
      most = Math.max(most, best);
    }
    cost = (least + most) / 2;
    const base = next[0] as number;
    for (let waiting = 0; waiting <= last; waiting += 1) next[waiting] = (next[waiting] as number) - base;
    value = next;
    if (most - least < tolerance * Math.max(1, cost)) break;
  }
  const limit = launch.findIndex((items) => items > 0);
  return { launch, limit: limit < 0 ? itemsMax : limit, cost };
}

/** Chance of so many arrivals; what is left of 1 goes to the last. */
function poisson(mean: number, last: number): Float64Array {
  const far = Math.min(last, Math.ceil(mean + 8 * Math.sqrt(mean) + 8));
  const chances = new Float64Array(far + 1);
  let chance = Math.exp(-mean);
  let sum = 0;
  for (let count = 0; count < far; count += 1) {
    chances[count] = chance;
    sum += chance;
    chance = (chance * mean) / (count + 1);
  }
  chances[far] = Math.max(0, 1 - sum);
  return chances;
}
