/** Runs simulated grids for `intarsia simulate-grid`: in this process, or seeds dealt out to several. */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { GridSimulationReport, GridSimulationRequest } from '#cli/simulation-report.js';
import { intarsiaError } from '#core/errors.js';
import { faultKindsOf, runSeeds, runTwice } from '#sim/grid/run-seeds.js';
import { readScenario } from '#sim/grid/scenario.js';

/** What a worker process is sent: it runs every `jobs`-th seed, from its own number on. */
export interface WorkerOrder {
  readonly request: GridSimulationRequest;
  readonly number: number;
}

/** What it sends back for each seed; a failure of the simulation itself ends it. */
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
  const jobs = Math.min(request.jobs, request.seeds);
  if (jobs <= 1) return runSeeds(request, onReport);
  await Promise.all(Array.from({ length: jobs }, (_, number) => runWorker({ request, number }, onReport)));
}

function runWorker(order: WorkerOrder, onReport: (report: GridSimulationReport) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const worker = fork(fileURLToPath(new URL('./simulate-grids-worker.js', import.meta.url)), {
      // Reports hold Infinity, which JSON does not.
      serialization: 'advanced',
    });
    let failure: string | undefined;
    worker.on('message', (news: WorkerNews) => {
      if (news.type === 'report') onReport(news.report);
      else failure = news.reason;
    });
    worker.on('error', reject);
    worker.on('exit', (code, signal) => {
      if (code === 0 && failure === undefined) resolve();
      else
        reject(
          intarsiaError('INTERNAL', `a process that simulates ended: ${failure ?? `code ${code}, signal ${signal}`}`),
        );
    });
    worker.send(order);
  });
}
