/** A large planning problem: 1,000 cut points, 16 unlike devices, 8 batch sizes. For the benchmark and a test of its size. */
import { RandomStream } from '#core/random.js';
import type { BatchProblem } from '#core/split/plan-choice.js';
import type { PlannerDevice } from '#core/split/plan-problem.js';

const segments = 1001;

export function largeProblems(): readonly BatchProblem[] {
  const random = new RandomStream('large plan');
  const speeds = Array.from({ length: 16 }, () => 1 + random.next() * 4);
  const devices = speeds.map((speed, index): PlannerDevice => {
    return {
      id: `d${index}`,
      type: `t${index}`,
      memoryBytes: 400 + random.below(800),
      usdPerHour: 1 + speed,
      busyWatts: 50 * speed,
    };
  });
  const work = new Float64Array(segments + 1);
  const weights = new Float64Array(segments + 1);
  for (let at = 0; at < segments; at += 1) {
    work[at + 1] = (work[at] as number) + 0.5 + random.next();
    weights[at + 1] = (weights[at] as number) + random.below(3);
  }
  const cutBytes = Array.from({ length: segments + 1 }, () => random.next());
  const between = (sums: Float64Array, from: number, to: number): number =>
    (sums[to] as number) - (sums[from] as number);
  return [1, 2, 4, 8, 16, 32, 64, 128].map((batch): BatchProblem => {
    const ms = (device: PlannerDevice, from: number, to: number): number =>
      (0.05 + between(work, from, to) * (0.3 + 0.7 * batch)) * (speeds[devices.indexOf(device)] ?? 1);
    return {
      batch,
      problem: {
        segments,
        devices,
        stageMs: ms,
        stageBytes: (from, to) => between(weights, from, to),
        transferMs: (_from, _to, boundary) => 0.1 + (cutBytes[boundary] ?? 0) * batch,
        fillStages: (device, from, last, into) => {
          const speed = speeds[devices.indexOf(device)] ?? 1;
          const scale = (0.3 + 0.7 * batch) * speed;
          const [heldBefore, workBefore] = [weights[from] as number, work[from] as number];
          for (let to = from + 1; to <= last; to += 1) {
            const fits = (weights[to] as number) - heldBefore <= device.memoryBytes;
            into[to] = fits ? 0.05 * speed + ((work[to] as number) - workBefore) * scale : Infinity;
          }
        },
      },
    };
  });
}
