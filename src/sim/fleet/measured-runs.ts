/**
 * The runs of devices, put together again from what was logged of the requests in them: requests of one device that were launched at the
 * same moment shared a batch. A run that is handed over while another computes waits in the executor; the log counts that wait
 * as way there and back. Here each run is given the time in which the device was its own.
 */

/** An answered request of a log, times in ms. */
export interface AnsweredRequest {
  readonly device: string;
  readonly arrivedMs: number;
  /** From arrival to answer. */
  readonly durationMs: number;
  /** Until its batch was handed over. */
  readonly queueMs: number;
  readonly computeMs: number;
  /** Of the batch, from handing over to its answer, less computing. */
  readonly linkMs: number;
  readonly batchItems: number;
}

export interface MeasuredRun {
  readonly device: string;
  readonly items: number;
  /** From when the device could begin: handed over, and the run before it answered. */
  readonly startMs: number;
  readonly endMs: number;
  readonly computeMs: number;
}

/** Times of one batch differ by rounding alone. */
const sameMs = 0.01;

/** In order of their start. Every request must be there: one that is missing makes another's run seem long. */
export function measuredRuns(requests: readonly AnsweredRequest[]): readonly MeasuredRun[] {
  const launched = requests
    .map((request) => ({ ...request, launchMs: request.arrivedMs + request.queueMs }))
    .sort((one, other) => one.launchMs - other.launchMs);
  const lastOf = new Map<string, { launchMs: number; endMs: number }>();
  const runs: MeasuredRun[] = [];
  for (const { device, launchMs, computeMs, linkMs, batchItems } of launched) {
    const last = lastOf.get(device);
    if (last !== undefined && launchMs - last.launchMs < sameMs) continue;
    const endMs = launchMs + computeMs + linkMs;
    const startMs = Math.max(launchMs, last?.endMs ?? -Infinity);
    lastOf.set(device, { launchMs, endMs: Math.max(endMs, last?.endMs ?? -Infinity) });
    runs.push({ device, items: batchItems, startMs: Math.min(startMs, endMs), endMs, computeMs });
  }
  return runs;
}

/** Share of each run's time, 0 to 1, in which another device computed; runs in order of their start. */
export function overlapShares(runs: readonly MeasuredRun[], device: string, other: string): Float64Array {
  const own = runs.filter((run) => run.device === device);
  const others = runs.filter((run) => run.device === other);
  const shares = new Float64Array(own.length);
  let first = 0;
  for (const [index, { startMs, endMs }] of own.entries()) {
    while (first < others.length && (others[first] as MeasuredRun).endMs <= startMs) first += 1;
    let bothMs = 0;
    for (let at = first; at < others.length; at += 1) {
      const run = others[at] as MeasuredRun;
      if (run.startMs >= endMs) break;
      bothMs += Math.max(0, Math.min(endMs, run.endMs) - Math.max(startMs, run.startMs));
    }
    shares[index] = endMs > startMs ? Math.min(1, bothMs / (endMs - startMs)) : 0;
  }
  return shares;
}
