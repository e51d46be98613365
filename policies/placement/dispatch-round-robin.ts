/** Candidates in turn, for each model its own turn; masked ones are passed over. */
import { NONE, type DispatchCandidate, type DispatchPolicy } from '#core/scheduling/dispatch-view.js';

export function roundRobin(): DispatchPolicy {
  const turns = new Map<string, Int32Array>();
  return {
    name: 'rr',
    choose: ({ model }, candidates) => {
      let turn = turns.get(model);
      if (turn === undefined) turns.set(model, (turn = new Int32Array([-1])));
      const count = candidates.length;
      const last = turn[0] as number;
      for (let step = 1; step <= count; step += 1) {
        const index = (last + step) % count;
        if ((candidates[index] as DispatchCandidate).masked !== '') continue;
        turn[0] = index;
        return index;
      }
      return NONE;
    },
  };
}
