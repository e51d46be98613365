/**
 * The picker of a grid: least expected time, of which link, queue, and the replica's own speed are parts. Of few replicas
 * all are looked at; of many, the own host's and two drawn by chance, so that a pick costs the same in a grid of three
 * hosts and of a thousand, and gateways with stale figures do not all run to the same replica.
 *
 * Draws are weighted by speed: of unlike devices, two drawn evenly would mostly be slow ones. The own host comes first and
 * wins ties: another one must be sooner done by more than the link costs.
 */
import { predictedMs } from '#core/grid/attempt-limit.js';
import { isStale, linkCostMs, queueLeftMs } from '#core/grid/standing.js';
import type { InferenceRequest } from '#core/inference.js';
import type { Candidate, Picker } from '#core/picker.js';
import type { Random } from '#ports/random.js';
import { mayTake } from './placement-least-work.js';
import { WeightedDraw } from './weighted-draw.js';

/** Up to this many replicas all are looked at. */
const lookedAtMax = 8;
/** Draws before the replicas are looked through in turn: only where most of them cannot take the request. */
const drawsMax = 16;
/** After as many picks as there are replicas, and at least so many, the weights are measured again. */
const picksBetweenMin = 1024;

/** What is kept for one list of candidates. */
interface Measured {
  draw: WeightedDraw | undefined;
  /** Milliseconds × speed of an item: what a replica that was never measured is taken to need. */
  workPerItem: number;
  picksLeft: number;
}

export function gridPicker(random: Random): Picker {
  const measured = new WeakMap<readonly Candidate[], Measured>();
  let turn = 0;

  const figuresOf = (candidates: readonly Candidate[]): Measured => {
    let figures = measured.get(candidates);
    if (figures === undefined) {
      figures = { draw: undefined, workPerItem: 1, picksLeft: 0 };
      measured.set(candidates, figures);
    }
    if (figures.picksLeft > 0) {
      figures.picksLeft -= 1;
      return figures;
    }
    figures.picksLeft = Math.max(candidates.length, candidates.length > lookedAtMax ? picksBetweenMin : 16);
    figures.workPerItem = leastWork(candidates);
    if (candidates.length > lookedAtMax) {
      const { workPerItem } = figures;
      figures.draw = new WeightedDraw(candidates.map((candidate) => 1 / msPerItemOf(candidate, workPerItem)));
    }
    return figures;
  };

  return {
    policy: 'grid',
    pick(
      request: InferenceRequest,
      candidates: readonly Candidate[],
      nowMs: number,
      exclude: ReadonlySet<string>,
    ): number {
      const count = candidates.length;
      if (count === 0) return -1;
      if (count === 1) return mayTake(candidates[0] as Candidate, exclude, nowMs) ? 0 : -1;
      const { draw, workPerItem } = figuresOf(candidates);
      turn = turn + 1 < count ? turn + 1 : 0;
      let best = -1;
      let bestMs = Infinity;
      // The own host's replicas are first in the list.
      let own = 0;
      while (own < count && (candidates[own] as Candidate).standing?.host.local === true) own += 1;
      for (let step = 0; step < own; step += 1) {
        const index = (turn + step) % own;
        const ms = expectedMs(candidates[index] as Candidate, request, nowMs, exclude, workPerItem);
        if (ms < bestMs) {
          best = index;
          bestMs = ms;
        }
      }
      const others = count - own;
      if (others === 0) return best;
      if (draw === undefined) {
        for (let step = 0; step < others; step += 1) {
          const index = own + ((turn + step) % others);
          const ms = expectedMs(candidates[index] as Candidate, request, nowMs, exclude, workPerItem);
          if (ms < bestMs) {
            best = index;
            bestMs = ms;
          }
        }
        return best;
      }
      let found = 0;
      let last = -1;
      for (let tries = 0; tries < drawsMax && found < 2; tries += 1) {
        const index = draw.draw(random);
        if (index < own || index === last) continue;
        const ms = expectedMs(candidates[index] as Candidate, request, nowMs, exclude, workPerItem);
        if (ms === Infinity) continue;
        found += 1;
        last = index;
        if (ms < bestMs) {
          best = index;
          bestMs = ms;
        }
      }
      return best >= 0 ? best : firstAble(candidates, exclude, nowMs, turn);
    },
  };
}

/** Milliseconds until the replica would have answered; Infinity when it may not take the request. */
function expectedMs(
  candidate: Candidate,
  request: InferenceRequest,
  nowMs: number,
  exclude: ReadonlySet<string>,
  workPerItem: number,
): number {
  if (!mayTake(candidate, exclude, nowMs)) return Infinity;
  const { load, standing } = candidate;
  const isKnown = load.msPerItem > 0 && (standing === undefined || load.itemsInFlight > 0 || !isStale(standing, nowMs));
  if (isKnown) return predictedMs(candidate, request.items, nowMs);
  // Never measured, or too long ago: taken to be what its device is said to be, so that it is tried.
  const guessMs = (load.itemsInFlight + request.items) * guessedMsPerItem(candidate, workPerItem);
  if (standing === undefined) return guessMs;
  return linkCostMs(standing.host, nowMs) + Math.max(queueLeftMs(standing, nowMs), guessMs);
}

function guessedMsPerItem({ standing }: Candidate, workPerItem: number): number {
  return workPerItem / (standing === undefined ? 1 : standing.speed);
}

function msPerItemOf(candidate: Candidate, workPerItem: number): number {
  const { msPerItem } = candidate.load;
  return msPerItem > 0 ? msPerItem : guessedMsPerItem(candidate, workPerItem);
}

/** Milliseconds an item would take on a device of speed 1: by the best of the measured replicas; 1 when none was. */
function leastWork(candidates: readonly Candidate[]): number {
  let least = Infinity;
  for (const { load, standing } of candidates) {
    if (load.msPerItem > 0) least = Math.min(least, load.msPerItem * (standing === undefined ? 1 : standing.speed));
  }
  return least === Infinity ? 1 : least;
}

function firstAble(
  candidates: readonly Candidate[],
  exclude: ReadonlySet<string>,
  nowMs: number,
  start: number,
): number {
  for (let step = 0; step < candidates.length; step += 1) {
    const index = (start + step) % candidates.length;
    if (mayTake(candidates[index] as Candidate, exclude, nowMs)) return index;
  }
  return -1;
}
