/** Entry of a process that simulates grids for `simulate-grids.ts`: one order in, a report for each seed out. */
import { messageOf } from '#core/errors.js';
import { runSeeds } from '#sim/grid/run-seeds.js';
import type { WorkerNews, WorkerOrder } from './simulate-grids.js';

process.once('message', (order: WorkerOrder) => {
  const { request, number } = order;
  const tell = (news: WorkerNews): void => void process.send?.(news);
  runSeeds(
    request,
    (report) => tell({ type: 'report', report }),
    (seed) => (seed - request.seed) % request.jobs === number,
  )
    .catch((error: unknown) => tell({ type: 'failed', reason: messageOf(error) }))
    .finally(() => process.disconnect());
});
