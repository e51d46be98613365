/**
 * Makes shards for a host of a grid, in a thread: reading, cutting and hashing a large model would hold the host up. The
 * engine that tells the types of the values that cross is a process of its own, and ends with the thread.
 */
import { Worker } from 'node:worker_threads';
import type { MakeShard, MadeShard } from '#adapters/files/shard-model-files.js';
import { intarsiaError, IntarsiaError, messageOf, type ErrorCode } from '#core/errors.js';

/** What the thread answers. Errors lose their class on the way. */
export type ShardAnswer =
  | { readonly ok: true; readonly made: MadeShard }
  | { readonly ok: false; readonly code: ErrorCode; readonly message: string };

export function failedAnswer(thrown: unknown): ShardAnswer {
  const code = thrown instanceof IntarsiaError ? thrown.code : 'INTERNAL';
  return { ok: false, code, message: messageOf(thrown) };
}

export const makeShard: MakeShard = (order) =>
  new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./make-shard-worker.js', import.meta.url), { workerData: order });
    let answer: ShardAnswer | undefined;
    worker.on('message', (message: ShardAnswer) => {
      answer = message;
    });
    worker.on('error', reject);
    worker.on('exit', (code) => {
      if (answer?.ok === true) resolve(answer.made);
      else if (answer !== undefined) reject(intarsiaError(answer.code, answer.message));
      else reject(intarsiaError('INTERNAL', `the thread that makes shards ended with code ${code}`));
    });
  });
