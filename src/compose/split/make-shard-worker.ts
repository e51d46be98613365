/** Entry of a thread that makes one shard. */
import { parentPort, workerData } from 'node:worker_threads';
import type { ShardOrder } from '#adapters/files/shard-model-files.js';
import { keptShard } from './kept-shard.js';
import { failedAnswer, type ShardAnswer } from './make-shard.js';

let answer: ShardAnswer;
try {
  answer = { ok: true, made: await keptShard(workerData as ShardOrder) };
} catch (thrown) {
  answer = failedAnswer(thrown);
}
parentPort?.postMessage(answer);
