/** The power of two choices: two different candidates drawn evenly, the one with the lesser measure is taken. */
import { NONE, type DispatchCandidate, type DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { drawUnmasked } from './dispatch-random.js';
import type { Measure } from './least-of.js';

export function betterOfTwo(name: string, measure: Measure): DispatchPolicy {
  return {
    name,
    choose: (request, candidates, fleet, random) => {
      const one = drawUnmasked(candidates, random, NONE);
      if (one === NONE) return NONE;
      const other = drawUnmasked(candidates, random, one);
      if (other === NONE) return one;
      const oneValue = measure(candidates[one] as DispatchCandidate, request, fleet);
      const otherValue = measure(candidates[other] as DispatchCandidate, request, fleet);
      return otherValue < oneValue ? other : one;
    },
  };
}
