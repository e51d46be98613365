/** A chain with fewer places to cut: in windows of even work the place that sends least. */
import type { PlannerProblem } from './plan-problem.js';

export interface ThinnedProblem {
  readonly problem: PlannerProblem;
  /** By boundary of the thinned chain, 0 and the end included: boundary of the full one. */
  readonly at: readonly number[];
}

export function thinned({ fillTransfers: _whole, ...problem }: PlannerProblem, segmentsMax: number): ThinnedProblem {
  const { segments } = problem;
  const at =
    segments <= segmentsMax ? Array.from({ length: segments + 1 }, (_, index) => index) : chosen(problem, segmentsMax);
  const full = (boundary: number): number => at[boundary] ?? segments;
  const scratch = new Float64Array(segments + 1);
  const { fillStages } = problem;
  return {
    at,
    problem: {
      ...problem,
      segments: at.length - 1,
      stageMs: (device, from, to) => problem.stageMs(device, full(from), full(to)),
      stageBytes: (from, to) => problem.stageBytes(full(from), full(to)),
      transferMs: (from, to, boundary) => problem.transferMs(from, to, full(boundary)),
      ...(fillStages === undefined
        ? {}
        : {
            fillStages: (device, from, last, into) => {
              fillStages(device, full(from), full(last), scratch);
              for (let end = from + 1; end <= last; end += 1) into[end] = scratch[full(end)] as number;
            },
          }),
    },
  };
}

function chosen(problem: PlannerProblem, segmentsMax: number): readonly number[] {
  const { segments, devices } = problem;
  const [first] = devices;
  const other = devices.at(-1);
  const at = [0];
  if (first === undefined || other === undefined) return [0, segments];
  // Work up to a boundary, each segment by itself, where a device can say it; else every segment counts the same.
  const work = new Float64Array(segments + 1);
  for (let index = 0; index < segments; index += 1) {
    const ms = problem.stageMs(first, index, index + 1);
    work[index + 1] = (work[index] as number) + (Number.isFinite(ms) ? ms : 0) + 1e-9;
  }
  const total = work[segments] as number;
  let boundary = 1;
  for (let window = 1; window < segmentsMax; window += 1) {
    let best = -1;
    let bestMs = Infinity;
    for (; boundary < segments && (work[boundary] as number) <= (total * window) / (segmentsMax - 1); boundary += 1) {
      const ms = problem.transferMs(first, other, boundary);
      // The later of equals: the ends of windows are evenly spread.
      if (ms <= bestMs) {
        best = boundary;
        bestMs = ms;
      }
    }
    if (best > 0) at.push(best);
  }
  at.push(segments);
  return at;
}
