/** Which cuts a check tries: all of them where they are few, otherwise a spread that touches every place. */
import { RandomStream } from '../random.js';

/** Cuts of one graph that are tried at most when all are asked for; more stages have astronomically many. */
const cutsMax = 20_000;

export interface CutChoice {
  readonly nodes: number;
  readonly stages: number;
  /** How many cuts; `all` for each one, or where those are too many for a set in which every position occurs. */
  readonly cuts: number | 'all';
  readonly seed: number;
}

/** Ascending lists of positions, each once, in a fixed order. Empty when the graph has too few nodes. */
export function chooseCuts({ nodes, stages, cuts, seed }: CutChoice): readonly (readonly number[])[] {
  const positions = nodes - 1;
  const wanted = stages - 1;
  if (wanted < 1 || positions < wanted) return [];
  const total = combinations(positions, wanted);
  if (total <= cutsMax && (cuts === 'all' || cuts >= total)) return [...subsets(positions, wanted)];
  const count = cuts === 'all' ? positions : cuts;
  const random = new RandomStream(seed).stream('cuts');
  const chosen = new Map<string, readonly number[]>();
  for (let turn = 0; chosen.size < count && turn < count * 20; turn += 1) {
    // One position from the even spread, the others drawn.
    const list = new Set([1 + Math.floor(((turn % count) * positions) / count)]);
    while (list.size < wanted) list.add(1 + random.below(positions));
    const sorted = [...list].sort((a, b) => a - b);
    chosen.set(sorted.join(','), sorted);
  }
  return [...chosen.values()];
}

function combinations(from: number, take: number): number {
  let count = 1;
  for (let step = 1; step <= take; step += 1) count = (count * (from - take + step)) / step;
  return count;
}

function* subsets(positions: number, take: number, first = 1): Generator<readonly number[]> {
  if (take === 0) {
    yield [];
    return;
  }
  for (let position = first; position <= positions - take + 1; position += 1) {
    for (const rest of subsets(positions, take - 1, position + 1)) yield [position, ...rest];
  }
}
