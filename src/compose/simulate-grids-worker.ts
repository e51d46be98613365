/** Entry of a process that simulates grids for `simulate-grids.ts`: a seed in, its report out, until it is let go. */
import { messageOf } from '#core/errors.js';
import { runSeed } from '#sim/grid/run-seeds.js';
import type { WorkerNews, WorkerOrder } from './simulate-grids.js';

process.on('message', ({ request, seed }: WorkerOrder) => {
  const tell = (news: WorkerNews): void => void process.send?.(news);
  runSeed(request, seed)
    .then((report) => tell({ type: 'report', report }))
    .catch((error: unknown) => tell({ type: 'failed', reason: `seed ${seed}: ${messageOf(error)}` }));
});
