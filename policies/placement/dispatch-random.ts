/** Any candidate that may be chosen, each with the same chance: the floor that every other rule must beat. */
import { NONE, type Chance, type DispatchCandidate, type DispatchPolicy } from '#core/scheduling/dispatch-view.js';

export function uniformRandom(): DispatchPolicy {
  return { name: 'rand', choose: (_request, candidates, _fleet, random) => drawUnmasked(candidates, random, NONE) };
}

/** An unmasked candidate other than `not`, each with the same chance; `NONE` when there is none. */
export function drawUnmasked(candidates: readonly DispatchCandidate[], random: Chance, not: number): number {
  let able = 0;
  for (let index = 0; index < candidates.length; index += 1) {
    if (index !== not && (candidates[index] as DispatchCandidate).masked === '') able += 1;
  }
  if (able === 0) return NONE;
  let left = random.below(able);
  for (let index = 0; index < candidates.length; index += 1) {
    if (index === not || (candidates[index] as DispatchCandidate).masked !== '') continue;
    if (left === 0) return index;
    left -= 1;
  }
  return NONE;
}
