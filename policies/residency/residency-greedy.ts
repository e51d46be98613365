/**
 * Residency by steps: beginning with nothing, the model is put where it saves most a byte it takes, until nothing that fits
 * saves anything. What lives somewhere already costs nothing to keep, and so tends to stay.
 *
 * Each step tries every model on every device: for fleets of some dozen devices and models. As good as whole-number
 * programming on most small fleets, and never a plan that does not fit.
 */
import { bytesOn, checkResidency, costOf, type ResidencyPlanned, type ResidencyProblem } from './residency-problem.js';

/** A step must save this share of the cost. */
const tolerance = 1e-9;

/** @throws INVALID_ARGUMENT for figures that make no problem. */
export function greedyResidency(problem: ResidencyProblem): ResidencyPlanned {
  checkResidency(problem);
  const { devices, models } = problem;
  let best = costOf(
    problem,
    devices.map(() => models.map(() => false)),
  );
  for (;;) {
    let step: ResidencyPlanned | undefined;
    let most = 0;
    for (const [device, { memoryBytes }] of devices.entries()) {
      const row = best.lives[device] ?? [];
      const free = memoryBytes - bytesOn(problem, row);
      for (const [model, { bytes }] of models.entries()) {
        if (row[model] === true || bytes > free) continue;
        const tried = costOf(
          problem,
          best.lives.map((each, at) =>
            at === device ? each.map((isThere, index) => isThere || index === model) : each,
          ),
        );
        const saved = best.usd - tried.usd;
        if (saved <= tolerance * best.usd) continue;
        const perByte = saved / Math.max(1, bytes);
        if (perByte <= most) continue;
        most = perByte;
        step = tried;
      }
    }
    if (step === undefined) return best;
    best = step;
  }
}
