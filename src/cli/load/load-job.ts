/**
 * A load run as one plain object, so that another process can be told to make it: plan, target, bodies, and where to ask
 * for statistics. `intarsia bench serve` makes one from its flags; `load-main` reads one from a file.
 */
import type { Clock } from '#ports/clock.js';
import type { LoadTarget, LoadTransport } from '#ports/load-transport.js';
import type { InferenceClient, ModelStatistics } from '#client/index.js';
import { receiptReader } from './answer-receipt.js';
import { completeLoadPlan, type LoadPlanOptions } from './load-plan.js';
import type { LoadReport, ServerSplit } from './load-report.js';
import { runLoad } from './load-runner.js';

export interface LoadJob {
  readonly plan: LoadPlanOptions;
  readonly target: LoadTarget;
  readonly itemsPerRequest: number;
  /** Model whose statistics are read before and after the window. Absent: the server has none. */
  readonly model?: { readonly name: string; readonly version: string };
}

/** What a job needs from the outside. */
export interface LoadSurroundings {
  readonly clock: Clock;
  readonly openTransport: (target: LoadTarget) => LoadTransport | Promise<LoadTransport>;
  /** Asked for statistics; absent: they are left out. */
  readonly client?: InferenceClient;
  /** Microseconds of processor time this process has used. */
  readonly cpuUs?: () => number;
  readonly onProgress?: (share: number, requests: number) => void;
  readonly signal?: AbortSignal;
}

/** @throws CONFIG_INVALID (plan), UNAVAILABLE (nobody listens). What fails later is counted in the report. */
export async function runLoadJob(job: LoadJob, surroundings: LoadSurroundings): Promise<LoadReport> {
  const plan = completeLoadPlan({ ...job.plan, bodies: job.target.bodies.length });
  const { clock, client, cpuUs } = surroundings;
  const transport = await surroundings.openTransport(job.target);
  const edges: Promise<ModelStatistics | undefined>[] = [];
  const cpu: { readonly us: number; readonly atMs: number }[] = [];
  try {
    await transport.open();
    const report = await runLoad({
      plan,
      transport,
      clock,
      itemsPerRequest: job.itemsPerRequest,
      receiptOf: receiptReader(job.target.protocol),
      onWindow: () => {
        if (cpuUs !== undefined) cpu.push({ us: cpuUs(), atMs: clock.nowMs() });
        edges.push(statisticsOf(client, job.model));
      },
      ...(surroundings.onProgress === undefined ? {} : { onProgress: surroundings.onProgress }),
      ...(surroundings.signal === undefined ? {} : { signal: surroundings.signal }),
    });
    const [before, after] = await Promise.all(edges);
    const server = before === undefined || after === undefined ? undefined : serverSplit(before, after);
    const [begin, end] = cpu;
    const generatorCores =
      begin === undefined || end === undefined
        ? undefined
        : (end.us - begin.us) / 1000 / Math.max(1, end.atMs - begin.atMs);
    return {
      ...report,
      ...(generatorCores === undefined ? {} : { generatorCores }),
      ...(server === undefined ? {} : { server }),
    };
  } finally {
    transport.close();
  }
}

/** Statistics explain a run; a server without them is driven all the same. */
async function statisticsOf(
  client: InferenceClient | undefined,
  model: LoadJob['model'],
): Promise<ModelStatistics | undefined> {
  if (client === undefined || model === undefined) return undefined;
  try {
    const options = { timeoutMs: 5000, ...(model.version === '' ? {} : { version: model.version }) };
    return sumOfVersions(await client.modelStatistics(model.name, options));
  } catch {
    return undefined;
  }
}

/** The version that answers may change in a run: what all of them did counts. */
function sumOfVersions(versions: readonly ModelStatistics[]): ModelStatistics | undefined {
  const [first, ...others] = versions;
  if (first === undefined) return undefined;
  const add = (a: { count: number; ns: number }, b: { count: number; ns: number }): { count: number; ns: number } => ({
    count: a.count + b.count,
    ns: a.ns + b.ns,
  });
  return others.reduce(
    (sum, version) => ({
      ...sum,
      inferenceCount: sum.inferenceCount + version.inferenceCount,
      executionCount: sum.executionCount + version.executionCount,
      success: add(sum.success, version.success),
      fail: add(sum.fail, version.fail),
      queue: add(sum.queue, version.queue),
      computeInput: add(sum.computeInput, version.computeInput),
      computeInfer: add(sum.computeInfer, version.computeInfer),
      computeOutput: add(sum.computeOutput, version.computeOutput),
    }),
    first,
  );
}

/** Mean times of the requests between two totals. */
export function serverSplit(before: ModelStatistics, after: ModelStatistics): ServerSplit {
  const meanMs = (part: 'queue' | 'computeInput' | 'computeInfer' | 'computeOutput'): number => {
    const count = after[part].count - before[part].count;
    return count > 0 ? (after[part].ns - before[part].ns) / count / 1e6 : 0;
  };
  const batches = after.executionCount - before.executionCount;
  return {
    requests: after.success.count - before.success.count,
    failed: after.fail.count - before.fail.count,
    queueMs: meanMs('queue'),
    computeInputMs: meanMs('computeInput'),
    computeInferMs: meanMs('computeInfer'),
    computeOutputMs: meanMs('computeOutput'),
    itemsPerBatch: batches > 0 ? (after.inferenceCount - before.inferenceCount) / batches : 0,
    batches,
  };
}
