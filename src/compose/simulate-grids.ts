/** Runs simulated grids for `intarsia simulate-grid`: in this process, or seeds dealt out to several. */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { GridSimulationReport, GridSimulationRequest } from '#cli/simulation-report.js';
import { intarsiaError } from '#core/errors.js';
import { faultKindsOf, runSeed, runTwice } from '#sim/grid/run-seeds.js';
import { readScenario } from '#sim/grid/scenario.js';

/** What a worker process is sent: the next seed, once it has reported the one before. */
export interface WorkerOrder {
  readonly request: GridSimulationRequest;
  readonly seed: number;
}

/** What it sends back for each; a failure of the simulation itself ends it. */
export type WorkerNews =
  | { readonly type: 'report'; readonly report: GridSimulationReport }
  | { readonly type: 'failed'; readonly reason: string };

export async function simulateGrids(
  request: GridSimulationRequest,
  onReport: (report: GridSimulationReport) => void,
): Promise<void> {
  faultKindsOf(request.faults);
  if (request.scenario !== undefined) {
    onReport(await runTwice(readScenario(request.scenario)));
    return;
  }
  const seeds = seedsLeft(request);
  if (request.jobs <= 1 || request.seeds <= 1) {
    for (const seed of seeds) onReport(await runSeed(request, seed));
    return;
  }
  const jobs = Math.min(request.jobs, request.seeds - request.done.size);
  await Promise.all(Array.from({ length: jobs }, () => runWorker(request, seeds, onReport)));
}

function* seedsLeft({ seed: first, seeds, done }: GridSimulationRequest): Generator<number, undefined> {
  for (let seed = first; seed < first + seeds; seed += 1) if (!done.has(seed)) yield seed;
}

/** A process that takes seeds until none is left. */
function runWorker(
  request: GridSimulationRequest,
  seeds: Iterator<number, undefined>,
  onReport: (report: GridSimulationReport) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const worker = fork(fileURLToPath(new URL('./simulate-grids-worker.js', import.meta.url)), {
      // Reports hold Infinity, which JSON does not.
      serialization: 'advanced',
      // Much is made and soon forgotten.
      execArgv: [...process.execArgv, '--max-semi-space-size=64'],
    });
    let failure: string | undefined;
    const give = (): void => {
      const seed = seeds.next().value;
      if (seed === undefined) worker.disconnect();
      else worker.send({ request, seed } satisfies WorkerOrder);
    };
    worker.on('message', (news: WorkerNews) => {
      if (news.type === 'report') {
        onReport(news.report);
        give();
      } else {
        failure = news.reason;
        worker.disconnect();
      }
    });
    worker.on('error', reject);
    worker.on('exit', (code, signal) => {
      if (code === 0 && failure === undefined) resolve();
      else
        reject(
          intarsiaError('INTERNAL', `a process that simulates ended: ${failure ?? `code ${code}, signal ${signal}`}`),
        );
    });
    give();
  });
}
